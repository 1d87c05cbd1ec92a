//! Programs of this machine, packed.

use std::{collections::BTreeSet, process::Command};

use super::*;
use crate::{Owners, Reference, unpack};

struct Packed {
    _place: tempfile::TempDir,
    digest: crate::Digest,
    config: Config,
    root: PathBuf,
    warnings: Vec<String>,
}

fn packed(source: &Path, options: &Options) -> Packed {
    let place = tempfile::tempdir().unwrap();
    let store = Store::open(place.path().join("store")).unwrap();
    let super::Packed { target: descriptor, warnings } =
        pack(&store, &store.lease().unwrap(), source, options).unwrap();
    let warnings = warnings.iter().map(ToString::to_string).collect();
    let name: Reference = "packed".parse().unwrap();
    store.tag(&name, &descriptor).unwrap();
    let image = store.resolve(&name).unwrap().unwrap();
    let layers = unpack::ensure(&store, &image, Owners::of_process().unwrap()).unwrap();
    let root = layers.folders[0].clone();
    let config = image.config.config;
    Packed { _place: place, digest: descriptor.digest, config, root, warnings }
}

/// What the loader itself says that a program needs.
fn listed(program: &Path) -> BTreeSet<String> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let name = |it: &str| Some(it.split_once(" => ")?.0.trim().to_owned());
    text.lines().filter_map(name).filter(|it| !it.starts_with("linux-vdso")).collect()
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut next = vec![folder.to_owned()];
    while let Some(folder) = next.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            found.push(entry.path());
            if entry.file_type().unwrap().is_dir() {
                next.push(entry.path());
            }
        }
    }
    found
}

fn names(folder: &Path) -> BTreeSet<String> {
    let name = |it: PathBuf| it.file_name().unwrap().to_str().unwrap().to_owned();
    walk(folder).into_iter().map(name).collect()
}

#[test]
fn libraries_are_those_of_the_loader() {
    let tar = Path::new("/usr/bin/tar");
    let packed = packed(tar, &Options::default());
    assert_eq!(packed.config.entrypoint, ["/bin/tar"]);
    let needed = listed(tar);
    assert!(needed.contains("libc.so.6"), "{needed:?}");
    let names = names(&packed.root);
    assert!(needed.is_subset(&names), "{needed:?} {names:?}");
    // Its own loader runs it with nothing but what was packed.
    let loader = fs::read_dir(packed.root.join("lib64")).unwrap().next().unwrap().unwrap().path();
    let libraries = walk(&packed.root).into_iter().find(|it| it.ends_with("libc.so.6")).unwrap();
    let mut command = Command::new(loader);
    command.arg("--inhibit-cache").arg("--library-path").arg(libraries.parent().unwrap());
    let output = command.arg(packed.root.join("bin/tar")).arg("--version").output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("GNU tar"));
    assert_eq!(fs::read_to_string(packed.root.join("etc/nsswitch.conf")).unwrap(), NSSWITCH);
    let mode = fs::metadata(packed.root.join("tmp")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o1777);
}

#[test]
fn scripts_bring_their_interpreters() {
    let place = tempfile::tempdir().unwrap();
    for (line, program) in [("#!/bin/sh -e", "bin/sh"), ("#!/usr/bin/env -S tar", "usr/bin/tar")] {
        let script = place.path().join("script");
        fs::write(&script, format!("{line}\necho x\n")).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).unwrap();
        let packed = packed(&script, &Options::default());
        assert!(packed.root.join(program).is_file(), "{line}");
        assert!(names(&packed.root).contains("libc.so.6"), "{line}");
        let mode = fs::metadata(packed.root.join("bin/script")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
    }
    let script = place.path().join("script");
    fs::write(&script, "#!/nowhere/python\n").unwrap();
    let store = Store::open(place.path().join("store")).unwrap();
    let error = pack(&store, &store.lease().unwrap(), &script, &Options::default()).unwrap_err();
    assert!(error.to_string().contains("needs `/nowhere/python`"), "{error}");
}

/// The same files at another place, of another time, with other owners' bits, give the same image.
#[test]
fn the_same_inputs_give_the_same_digest() {
    let digest = |mask: u32, order: [&str; 3], time: i64| {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("folder");
        fs::create_dir(&folder).unwrap();
        for name in order {
            fs::write(folder.join(name), name).unwrap();
            let mode = fs::Permissions::from_mode(0o644 & !mask);
            fs::set_permissions(folder.join(name), mode).unwrap();
        }
        std::os::unix::fs::symlink("a", folder.join("link")).unwrap();
        let add = vec![(folder.join("a"), "/etc/added".to_owned())];
        let options = Options { time, add, cmd: vec!["x".to_owned()], ..Options::default() };
        packed(&folder, &options).digest
    };
    let first = digest(0, ["a", "b", "c"], 7);
    assert_eq!(digest(0o044, ["c", "a", "b"], 7), first);
    assert_ne!(digest(0, ["a", "b", "c"], 8), first);
}

#[test]
fn origin_is_where_the_file_is() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    fs::create_dir_all(path("app/bin")).unwrap();
    fs::create_dir_all(path("app/lib")).unwrap();
    fs::write(path("l.c"), "int seven(void) { return 7; }").unwrap();
    fs::write(path("p.c"), "int seven(void); int main(void) { return seven(); }").unwrap();
    let compile = |arguments: &[&str]| {
        let status = Command::new("cc").current_dir(&place).args(arguments).status().unwrap();
        assert!(status.success());
    };
    compile(&["-shared", "-fPIC", "-o", "app/lib/libseven.so", "l.c"]);
    compile(&["-o", "app/bin/p", "p.c", "-Lapp/lib", "-lseven", "-Wl,-rpath,$ORIGIN/../lib"]);
    let options =
        Options { add: vec![(path("app/bin/p"), "/opt/x/".to_owned())], ..Options::default() };
    let packed = packed(&path("app"), &options);
    // Within the folder it is there already; the program alone brings it along.
    assert!(packed.root.join("lib/libseven.so").is_file());
    assert!(packed.root.join("opt/lib/libseven.so").is_file());
}

/// In a folder lies much that nobody runs; of it only what lacks something is said.
#[test]
fn only_what_is_run_must_be_whole() {
    let place = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str, mode: u32| {
        let path = place.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    write("lacks", "#!/nowhere/python\n", 0o755);
    write("text", "#!/nowhere/perl\n", 0o644);
    write("torn", "\x7fELF and no more", 0o644);
    write("good", "#!/usr/bin/tar\n", 0o755);
    let words = |it: &str| vec![it.to_owned()];
    let good = Options { entrypoint: words("/good"), ..Options::default() };
    let found = packed(place.path(), &good);
    assert!(found.root.join("usr/bin/tar").is_file());
    assert_eq!(found.warnings.len(), 2, "{:?}", found.warnings);
    assert!(found.warnings[0].contains("lacks` needs `/nowhere/python`"), "{:?}", found.warnings);
    assert!(found.warnings[1].contains("torn`"), "{:?}", found.warnings);

    let elsewhere = Options { cmd: words("other"), ..Options::default() };
    let warnings = packed(place.path(), &elsewhere).warnings;
    assert!(warnings.contains(&"the entry point `other` is not in the image".to_owned()));
    let failure = |options: Options| {
        let store = tempfile::tempdir().unwrap();
        let store = Store::open(store.path()).unwrap();
        pack(&store, &store.lease().unwrap(), place.path(), &options).unwrap_err().to_string()
    };
    // Named in whatever way, what is run must be whole, and what is named by itself.
    let path = || vec!["PATH=/bin:/".to_owned()];
    let by_path = Options { entrypoint: words("lacks"), env: path(), ..Options::default() };
    let by_command = Options { cmd: words("./lacks"), ..Options::default() };
    let add = vec![(place.path().join("lacks"), "/opt/".to_owned())];
    for options in [by_path, by_command, Options { add, ..good }] {
        let error = failure(options);
        assert!(error.contains("lacks` needs `/nowhere/python`"), "{error}");
    }
}

/// A folder may be a whole system: its own libraries are meant, wherever its links lead.
#[test]
fn libraries_of_a_folder_come_before_those_of_the_machine() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    fs::create_dir_all(path("usr/lib")).unwrap();
    fs::create_dir_all(path("tmp")).unwrap();
    fs::set_permissions(path("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    std::os::unix::fs::symlink("usr/lib", path("lib")).unwrap();
    let tar = Path::new("/usr/bin/tar");
    let library = packed(tar, &Options::default());
    let is_libc = |it: &PathBuf| it.ends_with("libc.so.6");
    let libc = walk(&library.root).into_iter().find(is_libc).unwrap();
    fs::copy(&libc, path("usr/lib/libc-of-the-folder.so")).unwrap();
    std::os::unix::fs::symlink("libc-of-the-folder.so", path("usr/lib/libc.so.6")).unwrap();
    let add = vec![(tar.to_owned(), "/bin/tar".to_owned())];
    let found = packed(place.path(), &Options { add, ..Options::default() });
    let all: Vec<PathBuf> = walk(&found.root).into_iter().filter(is_libc).collect();
    assert_eq!(all, [found.root.join("usr/lib/libc.so.6")]);
    assert!(fs::symlink_metadata(found.root.join("lib")).unwrap().is_symlink());
    let mode = fs::metadata(found.root.join("tmp")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o1777);
}
