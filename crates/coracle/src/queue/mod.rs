//! `coracle queue`: NSQ's three programs, with the flags of the originals, also under their names; and
//! what nsqlookupd learns of the cluster, which the programs themselves know nothing of.

mod find;
mod slices;

use std::{
    ffi::{OsStr, OsString},
    path::Path,
    process::ExitCode,
};

use clap::{Args, ValueEnum};

use crate::cli;

/// Arguments of `queue`.
#[derive(Clone, Debug, Args)]
pub(crate) struct QueueArguments {
    /// Which of them.
    program: Program,
    /// Its flags, as the original has them: `-tcp-address=127.0.0.1:4150`; `-help` lists them.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// One of NSQ's programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Program {
    /// Takes, keeps and hands out messages.
    Nsqd,
    /// Tells consumers where a topic is.
    Nsqlookupd,
    /// Shows topics, channels and nodes on a web page.
    Nsqadmin,
}

impl Program {
    /// The program that this binary was called as, if it was one of these.
    pub(crate) fn called(name: &OsStr) -> Option<Self> {
        let name = Path::new(name).file_name()?.to_str()?;
        Self::from_str(name, false).ok()
    }

    /// Runs it until it is told to stop. `arguments` are those after its name.
    pub(crate) fn main(self, arguments: impl Iterator<Item = OsString>) -> ExitCode {
        let text = |it: OsString| it.to_string_lossy().into_owned();
        let arguments: Vec<String> = arguments.map(text).collect();
        match self {
            Self::Nsqd => queue::cli::main_nsqd(&arguments),
            Self::Nsqlookupd => {
                let find =
                    async |given, tasks| find::find(given, &cli::read_environment(), &tasks).await;
                let finder = queue::cli::Finder { flags: find::FLAGS, find };
                queue::cli::main_nsqlookupd(&arguments, finder)
            }
            Self::Nsqadmin => queue::cli::main_nsqadmin(&arguments),
        }
    }
}

/// Runs one of them. `main` has done so already, unless an option stood before the program's name.
pub(crate) fn run(arguments: &QueueArguments) -> ExitCode {
    arguments.program.main(arguments.arguments.iter().map(OsString::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_names_of_the_originals() {
        let called = |it: &str| Program::called(OsStr::new(it));
        assert_eq!(called("/usr/bin/nsqd"), Some(Program::Nsqd));
        assert_eq!(called("nsqlookupd"), Some(Program::Nsqlookupd));
        assert_eq!(called("coracle"), None);
    }
}
