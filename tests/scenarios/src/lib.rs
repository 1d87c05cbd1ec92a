//! Tests that each need a process of their own: entering namespaces needs one with a single thread,
//! and a test of a privilege needs one that lacks it.
//!
//! Runs every scenario in such a process, as the invoking user and, started by root, as an ordinary
//! user as well, and sees to it that the host is afterwards as it was. What a scenario does, and
//! what else the test program is run as, is the program's own.
#![expect(clippy::print_stdout, reason = "shows what a scenario printed, inside a test program")]

use std::{
    fs, io,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::{Command, ExitCode},
};

use libtest_mimic::{Arguments, Failed, Trial};

/// User and group of an ordinary user without any rights: `nobody` on most machines.
const USER: u32 = 65_534;

/// Longest run of a scenario, in seconds; then it is killed.
const SECONDS_MAX: &str = "60";

/// First argument of the process that runs one scenario.
const SCENARIO: &str = "scenario";

/// What a test program with the scenarios called `names` does: all of them, or, in a process that it
/// started itself, the one that `scenario` is called with. That one fails by panicking.
///
/// It gets a folder of its own: on the host, empty, the user's and of mode 0700. Its standard streams
/// are pipes.
#[must_use]
pub fn main(names: &[&'static str], scenario: impl FnOnce(&str, &Path)) -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if let [first, name, folder] = arguments.as_slice()
        && first == SCENARIO
        && let Some(name) = names.iter().find(|it| name == **it)
    {
        scenario(name, folder.as_ref());
        return ExitCode::SUCCESS;
    }
    libtest_mimic::run(&Arguments::from_args(), trials(names)).exit_code()
}

fn trials(names: &[&'static str]) -> Vec<Trial> {
    let root = rustix::process::geteuid().is_root();
    let users: &[Option<u32>] = if root { &[None, Some(USER)] } else { &[None] };
    let all = users.iter().flat_map(|user| names.iter().map(move |it| (*user, *it)));
    all.map(|(user, name)| {
        let title = user.map_or_else(|| name.to_owned(), |_| format!("{name}::as_a_user"));
        Trial::test(title, move || run(name, user))
    })
    .collect()
}

/// Runs a scenario in a process of its own, with a folder of its own.
fn run(name: &str, user: Option<u32>) -> Result<(), Failed> {
    let folder = tempfile::tempdir()?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
    // Build folders may lie where the user may not look.
    let program = folder.path().join("program");
    // By another process: a descriptor that can write, inherited by what another test starts at the
    // same moment, would make the copy's execution fail with ETXTBSY.
    let copied = Command::new("cp").arg(std::env::current_exe()?).arg(&program).status()?;
    if !copied.success() {
        return Err(format!("cp: {copied}").into());
    }
    let place = folder.path().join("place");
    fs::create_dir(&place)?;
    fs::set_permissions(&place, fs::Permissions::from_mode(0o700))?;
    std::os::unix::fs::chown(&place, user, user)?;
    let mut command = Command::new("timeout");
    command.args(["--kill-after=1", SECONDS_MAX]).arg(&program).args([SCENARIO, name]).arg(&place);
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let before = host()?;
    let output = command.output()?;
    if host()? != before {
        return Err("the host's mounts, links or folders have changed".into());
    }
    print!("{}", String::from_utf8_lossy(&output.stdout));
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}\n{}", output.status, String::from_utf8_lossy(&output.stderr)).into())
}

/// What no scenario may change: mounts, links, folders.
fn host() -> io::Result<Vec<String>> {
    let links = fs::read_to_string("/proc/self/net/dev")?;
    let links = links.lines().filter_map(|it| it.split_once(':')).map(|it| it.0.to_owned());
    let mut all: Vec<String> = links.collect();
    for folder in ["/", "/etc", "/opt", "/usr", "/dev"] {
        for entry in fs::read_dir(folder)? {
            all.push(entry?.path().to_string_lossy().into_owned());
        }
    }
    all.sort();
    all.push(fs::read_to_string("/proc/self/mountinfo")?);
    Ok(all)
}
