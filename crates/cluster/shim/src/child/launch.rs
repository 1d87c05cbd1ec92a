//! The last steps before a program runs: limits, user, capabilities, working directory, look-up.

use std::{
    ffi::{CString, OsStr},
    io::{self, Read as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Access, Gid, Mode, Uid},
    process::{Resource, Signal},
    thread::{CapabilitySet, CapabilitySets},
};

use super::{Ground, cause, failed, refused};
use crate::{
    sys,
    wire::{ProcessSpec, Rlimit, RlimitResource, Stage, StartError, User},
};

/// Where a program is looked up if its environment has no `PATH`: as in containerd.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How much of a script's first line the kernel reads (BINPRM_BUF_SIZE).
const INTERPRETER_MAX: u64 = 256;

/// File mode creation mask if none is asked for.
const UMASK: u32 = 0o022;

/// What root may do in a container: containerd's default set.
const CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// Runs the program in place of this process; returns why it could not.
pub(super) fn launch(ground: &Ground, process: &ProcessSpec) -> StartError {
    match try_launch(ground, process) {
        Ok(error) | Err(error) => error,
    }
}

fn try_launch(ground: &Ground, process: &ProcessSpec) -> Result<StartError, StartError> {
    let argv = c_strings(&process.argv, "argument")?;
    let env = c_strings(&process.env, "environment variable")?;
    let Some(program) = process.argv.first() else {
        return Err(refused(Stage::Spec, "no command".to_owned()));
    };
    limit(&process.rlimits)?;
    rustix::process::umask(Mode::from_raw_mode(process.umask.unwrap_or(UMASK)));
    drop_bounds(ground).map_err(failed(Stage::Privileges, "cannot limit the capabilities"))?;
    if let Some(user) = &process.user {
        become_user(user)?;
    }
    drop_capabilities(ground).map_err(failed(Stage::Privileges, "cannot drop capabilities"))?;
    if process.no_new_privs {
        rustix::thread::set_no_new_privs(true)
            .map_err(failed(Stage::Privileges, "cannot forbid new privileges"))?;
    }
    let cwd = process.cwd.as_deref().unwrap_or(Path::new("/"));
    rustix::process::chdir(cwd).map_err(failed(
        Stage::Cwd,
        format!("cannot use the working directory {:?}", cwd.display().to_string()),
    ))?;
    let path = look_up(program, &process.env)?;
    let file = c_string(path.as_os_str().as_bytes(), "command")?;
    let error = sys::execute(&file, &argv, &env);
    Ok(exec_failed(program, &path, &error))
}

fn limit(limits: &[Rlimit]) -> Result<(), StartError> {
    for limit in limits {
        let resource = match limit.resource {
            RlimitResource::Core => Resource::Core,
            RlimitResource::Cpu => Resource::Cpu,
            RlimitResource::Data => Resource::Data,
            RlimitResource::Fsize => Resource::Fsize,
            RlimitResource::Memlock => Resource::Memlock,
            RlimitResource::Nofile => Resource::Nofile,
            RlimitResource::Nproc => Resource::Nproc,
            RlimitResource::Stack => Resource::Stack,
        };
        let new = rustix::process::Rlimit { current: limit.soft, maximum: limit.hard };
        let what =
            format!("cannot set the limit {resource:?} to {:?}:{:?}", limit.soft, limit.hard);
        rustix::process::setrlimit(resource, new).map_err(failed(Stage::Privileges, what))?;
    }
    Ok(())
}

/// The capabilities that programs in the container may have at most.
fn allowed(ground: &Ground) -> CapabilitySet {
    if ground.initial_user_namespace { CAPABILITIES } else { CapabilitySet::empty() }
}

/// Takes the others from the bounding set, which programs run as root get theirs from.
fn drop_bounds(ground: &Ground) -> io::Result<()> {
    let allowed = allowed(ground);
    for bit in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        match rustix::thread::capability_is_in_bounding_set(capability) {
            Ok(true) if !allowed.contains(capability) => {
                rustix::thread::remove_capability_from_bounding_set(capability)?;
            }
            Ok(_) => {}
            // Beyond the last one this kernel knows.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn drop_capabilities(ground: &Ground) -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    let permitted = rustix::thread::capabilities(None)?.permitted & allowed(ground);
    let inheritable = CapabilitySet::empty();
    let sets = CapabilitySets { effective: permitted, permitted, inheritable };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

fn become_user(user: &User) -> Result<(), StartError> {
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if own == (user.uid, user.gid) && own.0 != 0 {
        return Ok(());
    }
    let changed = || -> io::Result<()> {
        let groups: Vec<Gid> = user.groups.iter().map(|it| Gid::from_raw(*it)).collect();
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        rustix::thread::set_thread_groups(&groups)?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
        // Changing the user made the kernel forget it.
        Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?)
    };
    let what = format!(
        "cannot run as user {}, group {}: without root there is only user {}, group {}",
        user.uid, user.gid, own.0, own.1
    );
    changed().map_err(failed(Stage::Privileges, what))
}

/// The file of a program: as given if it has a `/`, else the first one in `PATH`.
fn look_up(program: &str, env: &[String]) -> Result<PathBuf, StartError> {
    let quoted = format!("exec: {program:?}");
    if program.contains('/') {
        let path = PathBuf::from(program);
        let stat = rustix::fs::stat(&path)
            .map_err(failed(Stage::Exec, format!("{quoted}: stat {program}")))?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
            return Err(refused(Stage::Exec, format!("{quoted}: is a directory")));
        }
        rustix::fs::access(&path, Access::EXEC_OK).map_err(failed(Stage::Exec, quoted))?;
        return Ok(path);
    }
    let list = env.iter().find_map(|it| it.strip_prefix("PATH=")).unwrap_or(PATH);
    let found = list
        .split(':')
        .map(|dir| Path::new(if dir.is_empty() { "." } else { dir }))
        .find_map(|dir| {
            let path = dir.join(program);
            let is_file = rustix::fs::stat(&path)
                .is_ok_and(|it| rustix::fs::FileType::from_raw_mode(it.st_mode).is_file());
            (is_file && rustix::fs::access(&path, Access::EXEC_OK).is_ok()).then_some(path)
        });
    found.ok_or_else(|| {
        let errno = rustix::io::Errno::NOENT.raw_os_error();
        let message = format!("{quoted}: executable file not found in $PATH");
        StartError { stage: Stage::Exec, errno, message }
    })
}

/// Why a file that is there and executable does not run.
fn exec_failed(program: &str, path: &Path, error: &io::Error) -> StartError {
    let errno = error.raw_os_error().unwrap_or(0);
    let mut message = format!("exec {program}: {}", cause(error));
    if error.kind() == io::ErrorKind::NotFound {
        // What is missing is what should run it.
        let interpreter = interpreter(path);
        let which = interpreter.map_or_else(|| "its loader".to_owned(), |it| format!("`{it}`"));
        message = format!("{message}: {which} is missing");
    }
    StartError { stage: Stage::Exec, errno, message }
}

/// What the first line of a script names.
fn interpreter(path: &Path) -> Option<String> {
    let mut content = Vec::new();
    std::fs::File::open(path).ok()?.take(INTERPRETER_MAX).read_to_end(&mut content).ok()?;
    let line = content.strip_prefix(b"#!")?.split(|it| *it == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    Some(line.split_ascii_whitespace().next()?.to_owned())
}

fn c_strings(strings: &[String], what: &str) -> Result<Vec<CString>, StartError> {
    strings.iter().map(|it| c_string(it.as_bytes(), what)).collect()
}

fn c_string(bytes: &[u8], what: &str) -> Result<CString, StartError> {
    CString::new(bytes).map_err(|_| {
        let shown = OsStr::from_bytes(bytes);
        refused(Stage::Spec, format!("{what} {shown:?} contains a NUL byte"))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use expect_test::{Expect, expect};

    use super::*;

    fn check(program: &str, env: &[&str], expected: Expect) {
        let env: Vec<String> = env.iter().map(|it| (*it).to_owned()).collect();
        let shown = match look_up(program, &env) {
            Ok(path) => path.display().to_string(),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn programs_are_looked_up_in_the_path() {
        check("sh", &["PATH=/nowhere:/bin"], expect!["/bin/sh"]);
        check(
            "sh",
            &["PATH=/nowhere"],
            expect![[r#"exec: "sh": executable file not found in $PATH"#]],
        );
        check(
            "no-such-program",
            &[],
            expect![[r#"exec: "no-such-program": executable file not found in $PATH"#]],
        );
        check("/bin/sh", &[], expect!["/bin/sh"]);
        check(
            "/bin/nowhere/sh",
            &[],
            expect![[
                r#"exec: "/bin/nowhere/sh": stat /bin/nowhere/sh: no such file or directory"#
            ]],
        );
        check("/etc", &[], expect![[r#"exec: "/etc": is a directory"#]]);
    }

    #[test]
    fn reasons_name_the_interpreter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("script");
        std::fs::write(&path, "#!/no/such/shell -e\n").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        let error = exec_failed("./script", &path, &io::ErrorKind::NotFound.into());
        expect!["exec ./script: entity not found: `/no/such/shell` is missing"]
            .assert_eq(&error.message);
    }
}
