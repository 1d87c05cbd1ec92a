//! `/config/…`: shows what is set, and changes what can change while nsqd runs.

use bytes::Bytes;
use http::StatusCode;
use hyper::body::Body as HttpBody;

use super::{Api, Cause};
use crate::{
    cli::{Level, OneOf, Word as _},
    web::{Failure, Reply},
};

impl Api {
    pub(super) fn config(&self, key: &str) -> Result<Reply, Failure> {
        let value = self.0.options.borrow().json(key);
        // A text is told as it is, without quotes, as in the original.
        match value {
            None => Err(Failure::bad("INVALID_OPTION")),
            Some(serde_json::Value::String(text)) if text.is_empty() => Ok(Reply::Empty),
            Some(serde_json::Value::String(text)) => Ok(Reply::Text(text.into())),
            Some(other) => Ok(Reply::json(&other)),
        }
    }

    pub(super) async fn set_config<B>(&self, key: &str, body: B) -> Result<Reply, Failure>
    where
        B: HttpBody<Data = Bytes> + Unpin,
        B::Error: Into<Cause>,
    {
        let max = self.0.options.borrow().max_msg_size.get();
        let arrived = self.read(body, max, "INVALID_VALUE").await?;
        let body = &arrived.body;
        if body.is_empty() {
            return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "INVALID_VALUE"));
        }
        let invalid = || Failure::bad("INVALID_VALUE");
        match key {
            "nsqlookupd_tcp_addresses" => {
                let all: Vec<String> = serde_json::from_slice(body).map_err(|_| invalid())?;
                self.0.options.send_modify(|it| it.lookupd_tcp_address = all);
            }
            "log_level" => {
                let word = String::from_utf8_lossy(body).to_ascii_lowercase();
                let level = Level::WORDS.iter().find(|(it, ..)| *it == word);
                let level = level.ok_or_else(invalid)?.1;
                self.0.options.send_modify(|it| it.log_level = OneOf(level));
            }
            _ => return Err(Failure::bad("INVALID_OPTION")),
        }
        self.config(key)
    }
}
