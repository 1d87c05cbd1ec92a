//! Users and groups by name, as the image's own files have them.

use super::{User, places::Place};

/// Longest `/etc/passwd` or `/etc/group` that is read, in bytes.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Whom `USER` or `--chown` names: `USER`, `USER:GROUP`, each by name or number.
pub(super) fn find(text: &str, image: &Place<'_>) -> Result<User, String> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let passwd = read(image, "etc/passwd")?;
    let groups = read(image, "etc/group")?;
    let number: Option<u32> = user.parse().ok();
    let entry = passwd.iter().find(|it| match number {
        Some(number) => field(it, 2) == Some(number),
        None => it.first().is_some_and(|it| it == user),
    });
    let uid = number.or_else(|| field(entry?, 2));
    let uid = uid.ok_or_else(|| format!("there is no user `{user}` in the image's /etc/passwd"))?;
    let gid = match group {
        Some(group) => {
            let of_name = groups.iter().find(|it| it.first().is_some_and(|it| it == group));
            let number = group.parse().ok().or_else(|| field(of_name?, 2));
            number
                .ok_or_else(|| format!("there is no group `{group}` in the image's /etc/group"))?
        }
        None => entry.and_then(|it| field(it, 3)).unwrap_or(0),
    };
    let name = entry.and_then(|it| it.first());
    let is_member = |it: &&Vec<String>| {
        let members = it.get(3).map(String::as_str).unwrap_or_default();
        name.is_some_and(|name| members.split(',').any(|it| it == name))
    };
    // Who names a group wants no other.
    let more = groups.iter().filter(|_| group.is_none()).filter(is_member);
    let groups = more.filter_map(|it| field(it, 2)).filter(|it| *it != gid).collect();
    let home = entry.and_then(|it| it.get(5)).filter(|it| !it.is_empty());
    Ok(User { uid, gid, groups, home: home.cloned().unwrap_or_else(|| "/".to_owned()) })
}

fn field(entry: &[String], at: usize) -> Option<u32> {
    entry.get(at)?.parse().ok()
}

/// The lines of such a file, in fields; none if the image has no such file.
fn read(image: &Place<'_>, name: &str) -> Result<Vec<Vec<String>>, String> {
    let failed = |it: std::io::Error| format!("cannot read /{name}: {it}");
    let path = image.resolve(name.as_bytes()).map_err(failed)?;
    let Some(found) = image.stat(&path).map_err(failed)? else { return Ok(Vec::new()) };
    let super::places::Kind::File { size } = found.kind else { return Ok(Vec::new()) };
    if FILE_BYTES_MAX < size {
        return Err(format!("/{name} has more than {FILE_BYTES_MAX} bytes"));
    }
    let text = std::fs::read(&found.path).map_err(failed)?;
    let text = String::from_utf8_lossy(&text);
    Ok(text.lines().map(|it| it.split(':').map(str::to_owned).collect()).collect())
}
