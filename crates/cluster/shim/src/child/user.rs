//! Which user a process runs as, by the numbers and names of the container's own `/etc/passwd` and
//! `/etc/group`. The rules, and the words of errors, are containerd's.
//!
//! Reads these files, as a program in the container would; what they say is found by pure functions.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
};

use rustix::fs::OFlags;

use super::{failed, refused};
use crate::wire::{Stage, StartError, User};

/// What is read of a file at most, in bytes. What an image's files say beyond is not looked at: they
/// are a stranger's.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Most supplementary groups, see setgroups(2).
const GROUPS_MAX: usize = 65_536;

/// A user by numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    /// Its home folder, if `/etc/passwd` names one.
    pub(super) home: Option<String>,
}

/// The user's numbers; the files are those that this process sees.
pub(super) fn resolve(user: &User) -> Result<Identity, StartError> {
    match user {
        User::Ids { uid, gid, groups } => {
            Ok(Identity { uid: *uid, gid: *gid, groups: groups.clone(), home: None })
        }
        User::Named { text, gid, groups, strict } => {
            let (passwd, group) = (read("/etc/passwd")?, read("/etc/group")?);
            let found = find(text, &passwd, &group)
                .map_err(|why| refused(Stage::Privileges, format!("user `{text}`: {why}")))?;
            let own = if *strict { Vec::new() } else { found.groups };
            let gid = gid.unwrap_or(found.gid);
            // The group itself as well: a file that denies something to it denies it to the user,
            // whatever group a program goes on with.
            let mut all = vec![gid];
            for group in own.iter().chain(groups).take(GROUPS_MAX - 1) {
                if !all.contains(group) {
                    all.push(*group);
                }
            }
            Ok(Identity { uid: found.uid, gid, groups: all, home: found.home })
        }
    }
}

/// A file of the container; one that is missing is empty.
fn read(path: &str) -> Result<String, StartError> {
    let read = || -> io::Result<String> {
        // A pipe would keep the reader waiting, and a device give no end.
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        result => {
            result.map_err(failed(Stage::Privileges, format!("cannot read `{path}` of the image")))
        }
    }
}

/// The numbers of `USER` or `USER:GROUP`, and of the user's groups.
fn find(text: &str, passwd: &str, group: &str) -> Result<Identity, &'static str> {
    let (user, own_group) = match text.split_once(':') {
        Some((_, rest)) if rest.contains(':') => return Err("invalid USER value"),
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let (uid, account) = match number(user) {
        Some(uid) => (uid, accounts(passwd).find(|it| it.uid == uid)),
        None => {
            let account = accounts(passwd).find(|it| it.name == user).ok_or("no users found")?;
            (account.uid, Some(account))
        }
    };
    let gid = match own_group {
        None => account.as_ref().map_or(0, |it| it.gid),
        Some(name) => match number(name) {
            Some(gid) => gid,
            None => groups(group).find(|it| it.name == name).ok_or("no groups found")?.gid,
        },
    };
    let is_member = |it: &Group<'_>, user: &str| {
        it.name != user && it.members.split(',').any(|member| member == user)
    };
    let groups = match &account {
        Some(account) => {
            groups(group).filter(|it| is_member(it, account.name)).map(|it| it.gid).collect()
        }
        None => Vec::new(),
    };
    let home = account.map(|it| it.home.to_owned()).filter(|it| !it.is_empty());
    Ok(Identity { uid, gid, groups, home })
}

/// A text that is an id. What is none may be a name.
fn number(text: &str) -> Option<u32> {
    text.parse().ok().filter(|it| i32::try_from(*it).is_ok())
}

/// A line of `/etc/passwd`.
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let (uid, gid) = (number(fields.next()?)?, number(fields.next()?)?);
        let _comment = fields.next();
        Some(Account { name, uid, gid, home: fields.next().unwrap_or_default() })
    })
}

/// A line of `/etc/group`.
struct Group<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

fn groups(group: &str) -> impl Iterator<Item = Group<'_>> {
    group.lines().filter_map(|line| {
        let mut fields = line.trim().split(':');
        let (name, _password) = (fields.next()?, fields.next()?);
        let gid = number(fields.next()?)?;
        Some(Group { name, gid, members: fields.next().unwrap_or_default() })
    })
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\nweb:x:1000:1001:a:b:c\nbroken\n";
    const GROUP: &str = "root:x:0:\nweb:x:1001:web\nlogs:x:7:root,web\nmail:x:8:webmaster\n";

    fn check(text: &str, expected: Expect) {
        let shown = match find(text, PASSWD, GROUP) {
            Ok(Identity { uid, gid, groups, .. }) => format!("{uid}:{gid} {groups:?}"),
            Err(why) => why.to_owned(),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        check("", expect!["0:0 [7]"]);
        check("0", expect!["0:0 [7]"]);
        check("web", expect!["1000:1001 [7]"]);
        check("1000", expect!["1000:1001 [7]"]);
        check("web:mail", expect!["1000:8 [7]"]);
        check("1000:5", expect!["1000:5 [7]"]);
        check("4321", expect!["4321:0 []"]);
        check("4321:logs", expect!["4321:7 []"]);
        check("nobody", expect!["no users found"]);
        check("web:nobody", expect!["no groups found"]);
        check("web:a:b", expect!["invalid USER value"]);
        // No number of a user is as high.
        check("4000000000", expect!["no users found"]);
    }
}
