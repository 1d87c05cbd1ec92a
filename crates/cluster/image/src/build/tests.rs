//! Dockerfiles and what comes of them. Commands are run by a host that only writes files.

use std::os::unix::fs::PermissionsExt as _;

use expect_test::{Expect, expect};

use super::*;
use crate::{
    Config,
    tarball::{Kind, Reader},
};

/// A host whose images are in the store and whose commands write what they are.
struct Fake<'a> {
    store: &'a Store,
    steps: Vec<String>,
    ran: Vec<String>,
}

impl Host for Fake<'_> {
    fn image(&mut self, name: &Reference) -> Result<Image, Cause> {
        self.store.resolve(name)?.ok_or_else(|| format!("no image {name}").into())
    }

    fn run(&mut self, step: &Step<'_>) -> Result<i32, Cause> {
        let text = step.arguments.join(" ");
        self.ran.push(format!("{text} as {}:{} in {}", step.user.uid, step.user.gid, step.workdir));
        if text.contains("fail") {
            return Ok(3);
        }
        let upper = step.writable.join("upper");
        fs::create_dir(&upper)?;
        fs::write(upper.join("ran"), format!("{text}\n{}", step.env.join("\n")))?;
        fs::create_dir_all(upper.join("etc"))?;
        fs::write(upper.join("etc/hosts"), "")?;
        fs::hard_link(upper.join("ran"), upper.join("again"))?;
        let device = rustix::fs::FileType::CharacterDevice;
        let mode = rustix::fs::Mode::empty();
        rustix::fs::mknodat(rustix::fs::CWD, upper.join("gone"), device, mode, 0)?;
        Ok(0)
    }

    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Step { number, of, text } => self.steps.push(format!("[{number}/{of}] {text}")),
            Event::Cached => {
                if let Some(it) = self.steps.last_mut() {
                    it.push_str(" (cached)");
                }
            }
            Event::Unused { argument } => self.steps.push(format!("unused {argument}")),
        }
    }
}

struct Bench {
    place: tempfile::TempDir,
    store: Store,
    options: Options,
}

#[derive(Debug)]
struct Built {
    descriptor: Descriptor,
    image: Image,
    steps: Vec<String>,
    ran: Vec<String>,
}

impl Bench {
    fn new(files: &[(&str, &str)]) -> Self {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        fs::create_dir(path("context")).unwrap();
        let options = Options {
            context: path("context"),
            dockerfile: path("context/Dockerfile"),
            arguments: BTreeMap::new(),
            target: None,
            is_cached: true,
            time: None,
        };
        let store = Store::open(path("store")).unwrap();
        let this = Self { place, store, options };
        for (name, text) in files {
            this.write(name, text);
        }
        this
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.options.context.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }

    fn build(&self, dockerfile: &str) -> Result<Built, Error> {
        fs::write(&self.options.dockerfile, dockerfile).unwrap();
        let mut host = Fake { store: &self.store, steps: Vec::new(), ran: Vec::new() };
        let lease = self.store.lease().unwrap();
        let descriptor = build(&self.store, &lease, &self.options, &mut host)?;
        let name: Reference = "built".parse().unwrap();
        self.store.tag(&name, &descriptor).unwrap();
        let image = self.store.resolve(&name).unwrap().unwrap();
        Ok(Built { descriptor, image, steps: host.steps, ran: host.ran })
    }

    fn error(&self, dockerfile: &str) -> String {
        let error = self.build(dockerfile).unwrap_err();
        error.to_string().replace(&self.place.path().display().to_string(), "")
    }

    /// The entries of all layers, a line each.
    fn entries(&self, built: &Built) -> String {
        let mut text = String::new();
        for layer in &built.image.layers {
            let stream = unpack::decompress(self.store.blob(&layer.digest).unwrap()).unwrap();
            let mut reader = Reader::new(stream);
            while let Some(entry) = reader.next_entry().unwrap() {
                let mut data = Vec::new();
                io::Read::read_to_end(&mut reader.data(), &mut data).unwrap();
                let data = String::from_utf8(data).unwrap_or("(bytes)".to_owned());
                let name = String::from_utf8(entry.name).unwrap();
                let target = match entry.kind {
                    Kind::SymbolicLink(it) => format!(" -> {}", String::from_utf8(it).unwrap()),
                    Kind::HardLink(it) => format!(" = {}", String::from_utf8(it).unwrap()),
                    _ => String::new(),
                };
                let data = data.lines().next().unwrap_or_default();
                let owner = (entry.uid, entry.gid);
                text +=
                    &format!("{name}{target} {:o} {}:{} {data}\n", entry.mode, owner.0, owner.1);
            }
            text += "--\n";
        }
        text
    }

    fn check(&self, dockerfile: &str, expected: Expect) -> Built {
        let built = self.build(dockerfile).unwrap();
        expected.assert_eq(&self.entries(&built));
        built
    }
}

#[test]
fn the_dockerfile_of_a_sensor() {
    let bench = Bench::new(&[("sensor", "program")]);
    let base = "FROM scratch AS base\nCOPY <<EOF /etc/passwd\nroot:x:0:0:root:/root:/bin/sh\n\
        app:x:100:101::/home/user:/bin/sh\nEOF\nCMD [\"sh\"]\nENV PATH=/bin\n";
    let file = format!("{base}FROM base\nCOPY sensor /bin/\nENTRYPOINT [\"/bin/sensor\"]\n");
    let built = bench.check(
        &file,
        expect![[r#"
            etc/ 755 0:0 
            etc/passwd 644 0:0 root:x:0:0:root:/root:/bin/sh
            --
            bin/ 755 0:0 
            bin/sensor 644 0:0 program
            --
        "#]],
    );
    let Config { env, entrypoint, cmd, .. } = &built.image.config.config;
    // The base's arguments are another program's.
    assert_eq!(
        (env.as_slice(), entrypoint.as_slice(), cmd.len()),
        (&["PATH=/bin".to_owned()][..], &["/bin/sensor".to_owned()][..], 0)
    );
    expect![[r#"
        [1/7] FROM scratch
        [2/7] COPY <<EOF /etc/passwd
        [3/7] CMD ["sh"]
        [4/7] ENV PATH=/bin
        [5/7] FROM stage 0
        [6/7] COPY sensor /bin/
        [7/7] ENTRYPOINT ["/bin/sensor"]"#]]
    .assert_eq(&built.steps.join("\n"));
    // The same again, at another time: all is known.
    let touched =
        fs::File::options().append(true).open(bench.options.context.join("sensor")).unwrap();
    touched.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let again = bench.build(&file).unwrap();
    assert_eq!(again.descriptor, built.descriptor);
    assert_eq!(again.steps.iter().filter(|it| it.ends_with("(cached)")).count(), 2);
    bench.write("sensor", "changed");
    let changed = bench.build(&file).unwrap();
    assert_ne!(changed.descriptor, built.descriptor);
    assert_eq!(changed.steps.iter().filter(|it| it.ends_with("(cached)")).count(), 1);
    // Elsewhere, without anything made before, it is the same.
    let elsewhere = Bench::new(&[("sensor", "program")]);
    assert_eq!(elsewhere.build(&file).unwrap().descriptor, built.descriptor);
}

#[test]
fn copying() {
    let bench = Bench::new(&[
        ("a.txt", "a"),
        ("b.txt", "b"),
        ("dir/x", "x"),
        ("dir/deep/y", "y"),
        (".dockerignore", "b.*\ndir/deep/**\n!dir/deep/y2\nDockerfile"),
        ("dir/deep/y2", "y2"),
    ]);
    std::os::unix::fs::symlink("x", bench.options.context.join("dir/link")).unwrap();
    bench.check(
        "FROM scratch\nWORKDIR /w\nCOPY *.txt ./\nCOPY dir to\nCOPY --chown=7:8 --chmod=600 a.txt n\n\
         COPY dir/link /l\n",
        expect![[r#"
            w/ 755 0:0 
            --
            w/ 755 0:0 
            w/a.txt 644 0:0 a
            --
            w/ 755 0:0 
            w/to/ 755 0:0 
            w/to/deep/ 755 0:0 
            w/to/deep/y2 644 0:0 y2
            w/to/link -> x 777 0:0 
            w/to/x 644 0:0 x
            --
            w/ 755 0:0 
            w/n 600 7:8 a
            --
            l 644 0:0 x
            --
        "#]],
    );
    assert_eq!(
        bench.error("FROM scratch\nCOPY b.txt /"),
        "/context/Dockerfile:2: COPY: `b.txt` is not there, or .dockerignore has it"
    );
    assert_eq!(
        bench.error("FROM scratch\nCOPY ../x /"),
        "/context/Dockerfile:2: COPY: `../x` leads out of the context"
    );
    assert_eq!(
        bench.error("FROM scratch\nCOPY a.txt dir /x"),
        "/context/Dockerfile:2: COPY: with several sources, `/x` must end with a slash"
    );
    std::os::unix::fs::symlink("/etc/passwd", bench.options.context.join("out")).unwrap();
    // A link to the machine's file is one within the context, where there is none.
    assert_eq!(
        bench.error("FROM scratch\nCOPY out /x"),
        "/context/Dockerfile:2: COPY: `out` is not there, or .dockerignore has it"
    );
}

/// What a link of the image leads to is where files go, and a folder keeps its mode.
#[test]
fn copying_into_an_image() {
    let bench = Bench::new(&[("a", "a"), ("tree/lib/b", "b")]);
    fs::create_dir_all(bench.options.context.join("base/usr/lib")).unwrap();
    std::os::unix::fs::symlink("usr/lib", bench.options.context.join("base/lib")).unwrap();
    fs::create_dir(bench.options.context.join("base/tmp")).unwrap();
    let tmp = bench.options.context.join("base/tmp");
    fs::set_permissions(tmp, fs::Permissions::from_mode(0o1777)).unwrap();
    bench.check(
        "FROM scratch\nCOPY base /\nCOPY a /lib\nCOPY tree /\nCOPY a /tmp/\n",
        expect![[r#"
            lib -> usr/lib 777 0:0 
            tmp/ 1777 0:0 
            usr/ 755 0:0 
            usr/lib/ 755 0:0 
            --
            usr/ 755 0:0 
            usr/lib/ 755 0:0 
            usr/lib/a 644 0:0 a
            --
            usr/ 755 0:0 
            usr/lib/ 755 0:0 
            usr/lib/b 644 0:0 b
            --
            tmp/ 1777 0:0 
            tmp/a 644 0:0 a
            --
        "#]],
    );
}

#[test]
fn commands() {
    let bench = Bench::new(&[("a", "a")]);
    let file = "FROM scratch\nARG V=1\nCOPY <<EOF /etc/passwd\napp:x:5:6::/a:\nEOF\nUSER app\nWORKDIR /w\n\
        ENV E=$V\nRUN make $V\nSHELL [\"/b\", \"-x\"]\nRUN more\nRUN [\"direct\"]\n";
    let built = bench.build(file).unwrap();
    assert_eq!(
        built.ran,
        ["/bin/sh -c make $V as 5:6 in /w", "/b -x more as 5:6 in /w", "direct as 5:6 in /w"]
    );
    let entries = bench.entries(&built);
    let last = entries.split("--\n").nth(4).unwrap();
    expect![[r#"
        .wh.gone 644 0:0 
        again 644 0:0 direct
        etc/ 755 0:0 
        ran = again 644 0:0 
    "#]]
    .assert_eq(last);
    assert!(bench.build(file).unwrap().ran.is_empty());
    let other = bench.build(&file.replace("V=1", "V=2")).unwrap();
    assert_eq!(other.ran.len(), 3);
    assert_eq!(
        bench.error("FROM scratch\nRUN fail"),
        "/context/Dockerfile:2: `/bin/sh -c fail` has ended with 3"
    );
    assert_eq!(
        bench.error("FROM scratch\nUSER nobody\nRUN x"),
        "/context/Dockerfile:3: RUN: there is no user `nobody` in the image's /etc/passwd"
    );
}

#[test]
fn stages_and_arguments() {
    let mut bench = Bench::new(&[("a", "a"), ("b", "b")]);
    let file = "ARG BASE=scratch\nARG G=global\nFROM $BASE AS one\nCOPY a /\nFROM scratch AS unused\nRUN fail\n\
        FROM scratch\nARG G\nARG H=${G}x\nARG T=none\nLABEL g=$G h=$H t=$T arch=$TARGETARCH\n\
        COPY --from=one /a /from-one\nCOPY --from=0 a /from-0\n";
    bench.options.arguments.insert("T".to_owned(), "given".to_owned());
    bench.options.arguments.insert("Z".to_owned(), "given".to_owned());
    let built = bench.check(
        file,
        expect![[r#"
            from-one 644 0:0 a
            --
            from-0 644 0:0 a
            --
        "#]],
    );
    let labels = format!("{:?}", built.image.config.config.labels);
    expect![[r#"{"arch": "", "g": "global", "h": "globalx", "t": "given"}"#]].assert_eq(&labels);
    assert_eq!(built.steps.last().unwrap(), "unused Z");
    bench.options.target = Some("one".to_owned());
    assert_eq!(bench.build(file).unwrap().image.layers.len(), 1);
    bench.options.target = Some("none".to_owned());
    assert_eq!(bench.error(file), "/context/Dockerfile:1: there is no stage `none`");
    bench.options.target = None;
    for (file, expected) in [
        ("COPY a b", "only ARG may come before the first FROM"),
        ("", "there is no FROM"),
        ("FROM --platform=linux/none scratch", "FROM: --platform=linux/none: this machine is"),
        ("FROM ${X:?missing}", "FROM: X: missing"),
    ] {
        let error = bench.error(file);
        assert!(error.starts_with(&format!("/context/Dockerfile:1: {expected}")), "{error}");
    }
    assert_eq!(bench.error("FROM nothing"), "/context/Dockerfile:1: cannot use image `nothing`");
}

#[test]
fn configuration() {
    let bench = Bench::new(&[]);
    let file = "FROM scratch\nENV A=1 B=\"x y\"\nENV C a  b\nENV A=$A$B\nLABEL l=1\nEXPOSE 80 90-91/udp\n\
        VOLUME /v /w\nUSER 5:6\nSTOPSIGNAL SIGQUIT\nCMD a b\nENTRYPOINT [\"e\"]\nWORKDIR x\nWORKDIR ../y\n\
        HEALTHCHECK --interval=5s CMD ok\n";
    let config = bench.build(file).unwrap().image.config;
    expect![[r#"
        {
          "User": "5:6",
          "ExposedPorts": {
            "80/tcp": {},
            "90/udp": {},
            "91/udp": {}
          },
          "Env": [
            "A=1x y",
            "B=x y",
            "C=a  b"
          ],
          "Entrypoint": [
            "e"
          ],
          "Cmd": [
            "/bin/sh",
            "-c",
            "a b"
          ],
          "Volumes": {
            "/v": {},
            "/w": {}
          },
          "WorkingDir": "/y",
          "Labels": {
            "l": "1"
          },
          "StopSignal": "SIGQUIT",
          "Healthcheck": {
            "Test": [
              "CMD-SHELL",
              "ok"
            ],
            "Interval": 5000000000
          }
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&config.config).unwrap());
    assert_eq!(config.created.as_deref(), Some("1970-01-01T00:00:00Z"));
    let made: Vec<_> = config.history.iter().filter(|it| !it.empty_layer).collect();
    assert_eq!(made.len(), config.rootfs.diff_ids.len());
}

#[test]
fn archives_are_unpacked() {
    let bench = Bench::new(&[("in/a", "a"), ("plain", "no archive"), ("plain.gz", "neither")]);
    let tar = |archive: &str, arguments: &[&str]| {
        let mut command = std::process::Command::new("tar");
        command
            .current_dir(&bench.options.context)
            .arg("--create")
            .args(["--owner=5", "--group=6"]);
        let status = command.args(arguments).arg("--file").arg(archive).arg("in").status().unwrap();
        assert!(status.success());
    };
    fs::hard_link(bench.options.context.join("in/a"), bench.options.context.join("in/b")).unwrap();
    tar("x.tar.gz", &["--gzip", "--sort=name"]);
    bench.check(
        "FROM scratch\nADD x.tar.gz plain plain.gz /to/\nCOPY x.tar.gz /\n",
        expect![[r#"
            to/ 755 0:0 
            to/in/ 755 5:6 
            to/in/a 644 5:6 a
            to/in/b = to/in/a 644 5:6 
            to/plain 644 0:0 no archive
            to/plain.gz 644 0:0 neither
            --
            x.tar.gz 644 0:0 (bytes)
            --
        "#]],
    );
}
