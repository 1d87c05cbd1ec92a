//! What a Procfile means in Kubernetes: a Deployment a process, of linked source, in the machine's own
//! network as under foreman.

use std::{
    collections::BTreeMap,
    path::{Component, Path},
};

use api::link::Link;
use serde_json::{Value, json};

use crate::{
    dotenv::Variables,
    error::{Error, Problem},
    procfile::{Process, Procfile},
    shell::in_place,
};

/// The variable that says which port is a process's own, and in `.env` where ports are counted from.
const PORT: &str = "PORT";

/// The port of the first process, unless `.env` says otherwise: foreman's.
const BASE_PORT: u16 = 5000;

/// What lies between the ports of two processes: foreman's, which leaves room for more of one kind.
const PORT_STEP: usize = 100;

/// How long a process has between SIGTERM and SIGKILL, in seconds: foreman's.
const GRACE_SECONDS: u32 = 5;

/// Begins the image of processes, which is a name only: their link stands in for it.
const IMAGE: &str = "procfile";

/// Longest image, in bytes, less than both an image and a key of a ConfigMap may have. Of a longer
/// path, the end counts.
const IMAGE_MAX: usize = 200;

/// Objects, and the links that say what is run for the images in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// In the order of the processes.
    pub objects: Vec<Object>,
    /// By name.
    pub links: BTreeMap<String, Link>,
}

/// A Kubernetes object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The object as JSON, without a namespace.
    pub value: Value,
    /// The line of the Procfile that it comes from, counted from 1.
    pub line: u64,
}

/// What `procfile` means, whose processes run in `folder` and all get `variables`. `folder` is
/// absolute.
///
/// # Errors
/// If the ports do not suffice, or `PORT` in the variables is none.
pub fn from_procfile(
    procfile: &Procfile,
    variables: &Variables,
    folder: &Path,
) -> Result<Application, Error> {
    let base = u32::from(variables.port(PORT)?.unwrap_or(BASE_PORT));
    let image = image(folder);
    let mut objects = Vec::new();
    for (process, port) in procfile.processes().iter().zip((base..).step_by(PORT_STEP)) {
        let Process { name, line, .. } = process;
        let port = u16::try_from(port).map_err(|_| {
            let problem = Problem::PortRange { name: name.clone(), port };
            Error::new(procfile.file(), *line, problem)
        })?;
        objects.push(Object { value: deployment(process, variables, port, &image), line: *line });
    }
    let link = Link { image: image.clone(), directory: folder.to_owned(), run: Vec::new() };
    Ok(Application { objects, links: BTreeMap::from([(image.replace('/', "."), link)]) })
}

fn deployment(process: &Process, variables: &Variables, port: u16, image: &str) -> Value {
    let Process { name, label, command, .. } = process;
    let own = [(PORT, port.to_string()), ("PS", format!("{name}.1"))];
    let given = variables.iter().filter(|(name, _)| own.iter().all(|(it, _)| it != name));
    let given = given.map(|(name, value)| (name, value.to_owned()));
    let variable = |(name, value): (&str, String)| json!({"name": name, "value": literal(&value)});
    let env: Vec<Value> = given.chain(own.iter().cloned()).map(variable).collect();
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": label},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": {"app": label}},
            // Two of them would want the same port.
            "strategy": {"type": "Recreate"},
            "template": {
                "metadata": {"labels": {"app": label}},
                "spec": {
                    "hostNetwork": true,
                    "dnsPolicy": "Default",
                    "enableServiceLinks": false,
                    "terminationGracePeriodSeconds": GRACE_SECONDS,
                    "containers": [{
                        "name": label,
                        "image": image,
                        "command": ["/bin/sh", "-c", literal(&in_place(command))],
                        "env": env,
                    }],
                },
            },
        },
    })
}

/// A text that Kubernetes gives to a program as it is: `$(NAME)` is its own way to name a variable, and
/// `$$` its own way to write `$`.
fn literal(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        result.push(letter);
        if letter == '$' && letters.peek().is_some_and(|it| matches!(it, '$' | '(')) {
            result.push('$');
        }
    }
    result
}

/// The image of the processes of a folder: its path, in letters that images may have.
fn image(folder: &Path) -> String {
    let names = folder.components().filter_map(|it| match it {
        Component::Normal(name) => Some(name.to_string_lossy()),
        _ => None,
    });
    let names = names.map(|it| {
        let plain =
            |it: char| if it.is_ascii_alphanumeric() { it.to_ascii_lowercase() } else { '-' };
        it.chars().map(plain).collect::<String>().trim_matches('-').to_owned()
    });
    let path: Vec<String> = names.filter(|it| !it.is_empty()).collect();
    let path = path.join("/");
    let cut = path.len().saturating_sub(IMAGE_MAX - IMAGE.len());
    let end = path.get(cut..).unwrap_or_default().trim_start_matches(['-', '/']);
    if end.is_empty() { IMAGE.to_owned() } else { format!("{IMAGE}/{end}") }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    fn application(procfile: &str, env: &str) -> Result<Application, Error> {
        let procfile = Procfile::parse("Procfile", procfile)?;
        from_procfile(&procfile, &Variables::parse(".env", env)?, Path::new("/srv/Ann B/shop_2"))
    }

    #[track_caller]
    fn check(procfile: &str, env: &str, expected: Expect) {
        let shown = match application(procfile, env) {
            Ok(Application { objects, .. }) => {
                let line = |it: &Object| {
                    let container = &it.value["spec"]["template"]["spec"]["containers"][0];
                    let env = container["env"].as_array().unwrap().iter();
                    let env: Vec<String> = env
                        .map(|it| format!("{}={}", it["name"].as_str().unwrap(), it["value"]))
                        .collect();
                    let (name, command) = (&it.value["metadata"]["name"], &container["command"][2]);
                    format!("{} {name}: {command} {}", it.line, env.join(" "))
                };
                objects.iter().map(line).collect::<Vec<_>>().join("\n")
            }
            Err(error) => format!("error: {error}"),
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn a_process_is_a_deployment() {
        let Application { objects, links } = application("web: node web.js\n", "").unwrap();
        let text = serde_json::to_string_pretty(&objects[0].value).unwrap();
        expect![[r#"
            {
              "apiVersion": "apps/v1",
              "kind": "Deployment",
              "metadata": {
                "name": "web"
              },
              "spec": {
                "replicas": 1,
                "selector": {
                  "matchLabels": {
                    "app": "web"
                  }
                },
                "strategy": {
                  "type": "Recreate"
                },
                "template": {
                  "metadata": {
                    "labels": {
                      "app": "web"
                    }
                  },
                  "spec": {
                    "containers": [
                      {
                        "command": [
                          "/bin/sh",
                          "-c",
                          "exec node web.js"
                        ],
                        "env": [
                          {
                            "name": "PORT",
                            "value": "5000"
                          },
                          {
                            "name": "PS",
                            "value": "web.1"
                          }
                        ],
                        "image": "procfile/srv/ann-b/shop-2",
                        "name": "web"
                      }
                    ],
                    "dnsPolicy": "Default",
                    "enableServiceLinks": false,
                    "hostNetwork": true,
                    "terminationGracePeriodSeconds": 5
                  }
                }
              }
            }"#]]
        .assert_eq(&text);
        expect![[r#"{"procfile.srv.ann-b.shop-2": Link { image: "procfile/srv/ann-b/shop-2", directory: "/srv/Ann B/shop_2", run: [] }}"#]].assert_eq(&format!("{links:?}"));
    }

    #[test]
    fn ports_count_up_by_a_hundred() {
        check(
            "web: a\n\nworker: b\nClock_1: c\n",
            "",
            expect![[r#"
            1 "web": "exec a" PORT="5000" PS="web.1"
            3 "worker": "exec b" PORT="5100" PS="worker.1"
            4 "clock-1": "exec c" PORT="5200" PS="Clock_1.1""#]],
        );
        check(
            "web: a\nworker: b\n",
            "B=2\nPORT=3000\nA=1\nPS=x\n",
            expect![[r#"
            1 "web": "exec a" A="1" B="2" PORT="3000" PS="web.1"
            2 "worker": "exec b" A="1" B="2" PORT="3100" PS="worker.1""#]],
        );
        check(
            "web: a\nworker: b\n",
            "PORT=65500\n",
            expect![
                "error: Procfile:2: process `worker` would get PORT 65600, and ports end at 65535: begin lower"
            ],
        );
        check(
            "web: a\n",
            "\nPORT=http\n",
            expect![
                "error: .env:2: PORT is where ports are counted from, and `http` is no number from 1 to 65535"
            ],
        );
    }

    #[test]
    fn dollars_reach_the_shell() {
        check(
            "web: echo $PORT ${PORT} $(date) $$ `a` $((1+1)) $\n",
            "PRICE=5$\nHOME_OF=$(HOME)$$\n",
            expect![[
                r#"1 "web": "echo $PORT ${PORT} $$(date) $$$ `a` $$((1+1)) $" HOME_OF="$$(HOME)$$$" PRICE="5$" PORT="5000" PS="web.1""#
            ]],
        );
    }

    #[test]
    fn folders_are_images() {
        for (folder, expected) in [
            ("/", "procfile"),
            ("/srv/shop", "procfile/srv/shop"),
            ("/srv/Ann B/shop_2", "procfile/srv/ann-b/shop-2"),
            ("/été/-/.x", "procfile/t/x"),
        ] {
            assert_eq!(image(Path::new(folder)), expected);
        }
        let deep = format!("/{}/end", "long/".repeat(100));
        assert!(image(Path::new(&deep)).ends_with("/end"));
    }

    /// What Kubernetes makes of a text in which no variable is known.
    fn expand(text: &str) -> String {
        let mut result = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            result.push_str(before);
            result.push('$');
            rest = after.strip_prefix('$').unwrap_or(after);
            assert!(after.starts_with('$') || !after.starts_with('('), "a reference in {text:?}");
        }
        result + rest
    }

    proptest! {
        #[test]
        fn literal_text_is_what_the_program_gets(text in "([$()a]|.){0,30}") {
            prop_assert_eq!(expand(&literal(&text)), text);
        }

        /// An image as the specification of distribution has them, without a tag, and no longer than a
        /// key of a ConfigMap.
        #[test]
        fn every_folder_has_an_image(folder in "(/([a-zA-Z0-9._: -]|.){0,20}){0,30}") {
            let image = image(Path::new(&folder));
            prop_assert!(image.len() <= 253, "{}", image);
            prop_assert_eq!(api::link::repository(&image), &image);
            for part in image.split('/') {
                prop_assert!(!part.is_empty() && !part.starts_with('-') && !part.ends_with('-'));
                prop_assert!(part.chars().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-'));
            }
        }
    }
}
