//! The last steps before a program runs: limits, privileges, working directory, look-up.

use std::{
    ffi::{CString, OsStr},
    fs,
    io::{self, Read as _},
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt as _, fs::DirBuilderExt as _},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Access, Mode},
    process::Resource,
};

use super::{
    cause, failed,
    privileges::{self, Users},
    refused,
    user::{self, Identity},
};
use crate::{
    sys,
    wire::{ProcessSpec, Rlimit, RlimitResource, Stage, StartError},
};

/// Where a program is looked up if its environment has no `PATH`: as in containerd.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// How much of a script's first line the kernel reads (BINPRM_BUF_SIZE).
const INTERPRETER_MAX: u64 = 256;

/// File mode creation mask if none is asked for.
const UMASK: u32 = 0o022;

/// How a process is to be run, beside what it is.
#[derive(Debug)]
pub(crate) struct Setting<'a> {
    pub(crate) users: Users<'a>,
    /// Whether the root is an image's: it has users and folders of its own.
    pub(crate) image: bool,
    /// The seccomp program.
    pub(crate) seccomp: Option<OwnedFd>,
}

/// Runs the program in place of this process; returns why it could not.
pub(super) fn launch(setting: Setting<'_>, process: &ProcessSpec) -> StartError {
    match try_launch(setting, process) {
        Ok(error) | Err(error) => error,
    }
}

fn try_launch(setting: Setting<'_>, process: &ProcessSpec) -> Result<StartError, StartError> {
    let argv = c_strings(&process.argv, "argument")?;
    let Some(program) = process.argv.first() else {
        return Err(refused(Stage::Spec, "no command".to_owned()));
    };
    let cwd = process.cwd.as_deref().unwrap_or(Path::new("/"));
    let identity = match &process.user {
        Some(user) => Some(user::resolve(user)?),
        // An image's user is root unless it says otherwise.
        None => setting.image.then(Identity::default),
    };
    let mut variables = process.env.clone();
    if setting.image && !variables.iter().any(|it| it.starts_with("HOME=")) {
        // As container runtimes do it, whatever Kubernetes says of the environment.
        let home = identity.as_ref().and_then(|it| it.home.as_deref());
        variables.push(format!("HOME={}", home.unwrap_or("/")));
    }
    let env = c_strings(&variables, "environment variable")?;
    let seccomp = setting.seccomp.map(privileges::read_seccomp).transpose()?;
    limit(process.rlimits.iter().filter(|it| it.resource != RlimitResource::Nproc))?;
    if let Some(profile) = &process.apparmor {
        privileges::confine(profile)?;
    }
    rustix::process::umask(Mode::from_raw_mode(process.umask.unwrap_or(UMASK)));
    if setting.image {
        make_cwd(cwd);
    }
    privileges::take_on(setting.users, identity.as_ref(), process, seccomp.as_deref())?;
    go_to(cwd).map_err(failed(
        Stage::Cwd,
        format!("cannot use the working directory {:?}", cwd.display().to_string()),
    ))?;
    let path = look_up(program, &process.env)?;
    let file = c_string(path.as_os_str().as_bytes(), "command")?;
    if let Some(program) = seccomp.filter(|_| process.no_new_privs) {
        privileges::install(&program)?;
    }
    let error = sys::execute(&file, &argv, &env);
    Ok(exec_failed(program, &path, &error))
}

/// Makes a working directory that the image lacks, as container runtimes do. Where that is not
/// possible, going there says why.
fn make_cwd(cwd: &Path) {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(cwd).ok();
}

/// Goes into a folder, which must be one that a path of the container leads to: `/proc/self/fd/7` may
/// lead anywhere.
fn go_to(cwd: &Path) -> io::Result<()> {
    rustix::process::chdir(cwd)?;
    let path = rustix::process::getcwd(Vec::new())?;
    if path.to_bytes().starts_with(b"/") {
        return Ok(());
    }
    Err(io::Error::other("it is outside of the container"))
}

/// Sets limits of this process, and so of all that it begins.
pub(super) fn limit<'a>(limits: impl Iterator<Item = &'a Rlimit>) -> Result<(), StartError> {
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
    fs::File::open(path).ok()?.take(INTERPRETER_MAX).read_to_end(&mut content).ok()?;
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
        fs::write(&path, "#!/no/such/shell -e\n").unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        let error = exec_failed("./script", &path, &io::ErrorKind::NotFound.into());
        expect!["exec ./script: entity not found: `/no/such/shell` is missing"]
            .assert_eq(&error.message);
    }
}
