//! What a few flags can say, and what this machine is called.

use serde_json::json;

use super::value::{Value, Word, parse_bool};
use crate::{
    Durability,
    protocol::{AuthMethod, ClientAuth},
};

/// How much is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// Everything.
    Debug,
    /// What an operator wants to read a day later.
    #[default]
    Info,
    /// What may need one.
    Warn,
    /// What does.
    Error,
    /// Only why the program ends.
    Fatal,
}

impl Word for Level {
    const WORDS: &'static [(&'static str, Self, Option<i64>)] = &[
        ("debug", Self::Debug, Some(1)),
        ("info", Self::Info, Some(2)),
        ("warn", Self::Warn, Some(3)),
        ("error", Self::Error, Some(4)),
        ("fatal", Self::Fatal, Some(5)),
    ];
}

impl Word for Durability {
    const WORDS: &'static [(&'static str, Self, Option<i64>)] = &[
        ("memory", Self::Memory, None),
        ("process", Self::Process, None),
        ("disk", Self::Disk, None),
    ];
}

impl Word for AuthMethod {
    const WORDS: &'static [(&'static str, Self, Option<i64>)] =
        &[("get", Self::Get, None), ("post", Self::Post, None)];
}

impl Word for ClientAuth {
    const WORDS: &'static [(&'static str, Self, Option<i64>)] = &[
        ("", Self::None, None),
        ("require", Self::Require, None),
        ("require-verify", Self::RequireVerify, None),
    ];
}

/// The oldest version of TLS that was asked for. The first two mean 1.2, as does nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MinVersion {
    /// 1.0
    #[default]
    V10,
    /// 1.1
    V11,
    /// 1.2
    V12,
    /// 1.3
    V13,
}

impl Word for MinVersion {
    const WORDS: &'static [(&'static str, Self, Option<i64>)] = &[
        ("tls1.0", Self::V10, Some(0x301)),
        ("tls1.1", Self::V11, Some(0x302)),
        ("tls1.2", Self::V12, Some(0x303)),
        ("tls1.3", Self::V13, Some(0x304)),
        // In files that leave the choice open.
        ("", Self::V10, Some(0x301)),
    ];
}

/// Whether clients must use TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsRequired {
    /// They may.
    #[default]
    No,
    /// Over TCP they must; HTTP may be plain.
    ExceptHttp,
    /// They must.
    Yes,
}

impl Value for TlsRequired {
    fn set(&mut self, text: &str) -> Result<(), String> {
        let text = text.to_ascii_lowercase();
        *self = match parse_bool(&text) {
            _ if text == "tcp-https" => Self::ExceptHttp,
            Some(true) => Self::Yes,
            Some(false) => Self::No,
            None => return Err("must be true, false or tcp-https".to_owned()),
        };
        Ok(())
    }

    fn json(&self) -> serde_json::Value {
        json!(match self {
            Self::No => 0,
            Self::ExceptHttp => 1,
            Self::Yes => 2,
        })
    }

    fn shown(&self) -> String {
        match self {
            Self::No => String::new(),
            Self::ExceptHttp => "tcp-https".to_owned(),
            Self::Yes => "true".to_owned(),
        }
    }

    fn is_bool(&self) -> bool {
        true
    }
}

/// What this machine is called.
#[must_use]
pub(crate) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
