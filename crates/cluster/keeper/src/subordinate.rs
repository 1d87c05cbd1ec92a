//! Further users and groups for a cluster without root: the ranges that /etc/subuid and /etc/subgid give
//! to the user, mapped by the programs `newuidmap` and `newgidmap`, which have the right to.
//!
//! Inside the user namespace the numbers are the same as outside, so that files have one owner for
//! everybody. What is missing is said; the cluster then has one user.

use std::{
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::process::Pid;

/// Where programs are looked for by a process that was not told.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Programs that map, in the order in which they are run.
const GROUPS: &str = "newgidmap";
const USERS: &str = "newuidmap";

/// What is to be mapped, and by which programs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Subordinate {
    users: Map,
    groups: Map,
}

/// One id, and a range beside it.
#[derive(Debug, PartialEq, Eq)]
struct Map {
    program: PathBuf,
    own: u32,
    range: Range,
}

/// Ids one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    start: u32,
    count: u32,
}

impl Subordinate {
    /// What this process's user has.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub(crate) fn of_user() -> Result<Self, String> {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let names = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let name = user_name(&names, uid);
        let map = |program: &str, own: u32, file: &str| -> Result<Map, String> {
            let table = fs::read_to_string(file).map_err(|it| format!("`{file}`: {it}"))?;
            let range = largest(&table, name, uid, own)
                .ok_or_else(|| format!("`{file}` has no range for user {}", name.unwrap_or("?")))?;
            let program = look_up(program, std::env::var_os("PATH").as_deref())
                .ok_or_else(|| format!("there is no program `{program}`"))?;
            Ok(Map { program, own, range })
        };
        let users = map(USERS, uid, "/etc/subuid")?;
        Ok(Self { users, groups: map(GROUPS, gid, "/etc/subgid")? })
    }

    /// Maps for a process of the user that has just come into a user namespace of its own.
    ///
    /// # Errors
    /// What the programs said, for people. The namespace is then of no use.
    pub(crate) fn map(&self, process: Pid) -> Result<(), String> {
        self.groups.write(process)?;
        self.users.write(process)
    }
}

impl Map {
    fn write(&self, process: Pid) -> Result<(), String> {
        let Self { program, own, range: Range { start, count } } = self;
        let arguments = [process.as_raw_nonzero().get().cast_unsigned(), *own, *own, 1];
        let shown = program.display();
        let output = Command::new(program)
            .args(arguments.iter().chain([start, start, count]).map(u32::to_string))
            .env_clear()
            .stdin(Stdio::null())
            .output()
            .map_err(|it| format!("`{shown}`: {it}"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("`{shown}`: {}: {}", output.status, said.trim_end()))
    }
}

/// Says in the keeper's log why there is one user only.
pub(crate) fn log_missing(why: &str) {
    use io::Write as _;
    // Standard error may be closed, and that is no reason to fail.
    writeln!(io::stderr(), "coracle keeper: no further users in containers: {why}").ok();
}

/// The name of a user in /etc/passwd.
fn user_name(passwd: &str, uid: u32) -> Option<&str> {
    let uid = uid.to_string();
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        (fields.next()? == uid).then_some(name)
    })
}

/// The largest range of a user, by name or number, that does not contain what is mapped anyway.
fn largest(table: &str, name: Option<&str>, uid: u32, own: u32) -> Option<Range> {
    let uid = uid.to_string();
    let ranges = table.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let user = fields.next()?;
        if Some(user) != name && user != uid {
            return None;
        }
        let (start, count) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let end = u32::checked_add(start, count)?;
        (0 < count && !(start..end).contains(&own)).then_some(Range { start, count })
    });
    ranges.max_by_key(|it| (it.count, std::cmp::Reverse(it.start)))
}

fn look_up(program: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    let path = path.unwrap_or(OsStr::new(PATH));
    std::env::split_paths(path).map(|dir| dir.join(program)).find(|it| is_file(it))
}

fn is_file(path: &Path) -> bool {
    path.is_absolute() && fs::metadata(path).is_ok_and(|it| it.is_file())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(table: &str, expected: Expect) {
        let passwd = "root:x:0:0::/:/bin/sh\nweb:x:1000:1000::/:/bin/sh\n";
        let range = largest(table, user_name(passwd, 1000), 1000, 1000);
        expected
            .assert_eq(&range.map_or_else(String::new, |it| format!("{} {}", it.start, it.count)));
    }

    #[test]
    fn ranges_are_found_by_name_and_number() {
        check("root:1:1\nweb:100000:65536\n", expect!["100000 65536"]);
        check("web:100000:10\n1000:200000:65536\nweb:300000:65536\n", expect!["200000 65536"]);
        check("web:900:200\n", expect![""]);
        check("web:x:1\nweb:5\nweb:4294967295:2\nweb:7:0\n", expect![""]);
        check("", expect![""]);
    }

    #[test]
    fn programs_are_looked_for_where_it_is_said() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(USERS), "").unwrap();
        let path = format!("/nowhere:.:{}", dir.path().display());
        let found = look_up(USERS, Some(OsStr::new(&path)));
        assert_eq!(found, Some(dir.path().join(USERS)));
        assert_eq!(look_up(USERS, Some(OsStr::new("/nowhere"))), None);
    }
}
