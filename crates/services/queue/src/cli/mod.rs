//! The command lines of `nsqd`, `nsqlookupd` and `nsqadmin`, and what runs them.

pub(crate) mod duration;
mod flags;
mod logging;
pub mod nsqadmin;
pub mod nsqd;
pub mod nsqlookupd;
mod run;
mod value;
pub(crate) mod words;

pub use flags::{Asked, Given, Outside, Refused, Rest};
pub use run::{Finder, main_nsqadmin, main_nsqd, main_nsqlookupd};
pub use value::{Number, OneOf, Parts, Size, Word};
pub use words::{Level, MinVersion, TlsRequired};

/// Reads the command line of `nsqd`, without the program's name.
///
/// # Errors
/// What is wrong with it, or with the configuration file it names.
pub fn parse_nsqd(arguments: &[String]) -> Result<Asked<nsqd::Options>, Refused> {
    nsqd::NSQD.parse(arguments)
}

/// Reads the command line of `nsqlookupd`, without the program's name.
///
/// # Errors
/// What is wrong with it, or with the configuration file it names.
pub fn parse_nsqlookupd(arguments: &[String]) -> Result<Asked<nsqlookupd::Options>, Refused> {
    nsqlookupd::NSQLOOKUPD.parse(arguments)
}

/// Reads the command line of `nsqadmin`, without the program's name.
///
/// # Errors
/// What is wrong with it, or with the configuration file it names.
pub fn parse_nsqadmin(arguments: &[String]) -> Result<Asked<nsqadmin::Options>, Refused> {
    nsqadmin::NSQADMIN.parse(arguments)
}

/// What `-version` prints: the release of the original that this behaves as, and of what it is.
pub(crate) fn version(program: &str) -> String {
    let (theirs, ours) = (crate::web::VERSION, env!("CARGO_PKG_VERSION"));
    format!("{program} v{theirs} (coracle {ours})\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_takes_its_default_back() {
        fn check<O: Default>(program: &flags::Program<O>) {
            let mut keys = std::collections::BTreeSet::new();
            for flag in program.flags {
                assert!(keys.insert(flag.key()), "{} twice", flag.key());
                let mut options = O::default();
                let (before, shown) = {
                    let value = (flag.at)(&mut options);
                    (value.json(), value.shown())
                };
                if !shown.is_empty() {
                    let plain = shown.trim_matches('"');
                    (flag.at)(&mut options).set(plain).unwrap();
                }
                assert_eq!(program.json(&mut options, &flag.key()), Some(before), "{}", flag.name);
            }
        }
        check(&nsqd::NSQD);
        check(&nsqlookupd::NSQLOOKUPD);
        check(&nsqadmin::NSQADMIN);
    }
}
