//! The scenarios in examples and documentation are scenarios.

use std::{fs, path::Path};

use expect_test::expect;

use crate::scenario::{self, Overrides, Scenario};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../.."))
}

#[track_caller]
fn plan(scenario: Result<Scenario, scenario::Error>) {
    match scenario.and_then(|it| it.plan(&Overrides::default())) {
        Ok(plan) => assert!(!plan.flows.is_empty()),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn every_example_is_read() {
    let mut read = 0;
    for entry in fs::read_dir(root().join("examples/load")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|it| it == "yaml") {
            plan(scenario::read(&path));
            read += 1;
        }
    }
    assert!(read >= 3, "{read}");
}

#[test]
fn without_a_file_of_its_own_it_is_relative_to_the_working_directory() {
    let data = "../../../examples/load/customers.csv";
    assert!(Path::new(data).exists(), "tests run in the folder of their package");
    let yaml = |data: &str| {
        format!(
            "target: http://a\nrate: 1/s\nfor: 1s\ndata: {{c: {data}}}\nsteps: ['GET /{{{{ c.name }}}}']\n"
        )
    };
    let read = |data| scenario::read_from("standard input", &mut yaml(data).as_bytes());
    plan(read(data));
    expect!["standard input:4: `data.c`: read `none.csv`: No such file or directory (os error 2)"]
        .assert_eq(&read("none.csv").unwrap_err().to_string());
}

#[test]
fn every_block_of_the_documentation_is_read() {
    let page = fs::read_to_string(root().join("docs/load-scenarios.md")).unwrap();
    let data = fs::read_to_string(root().join("examples/load/customers.csv")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("customers.csv"), data).unwrap();
    let mut read = 0;
    for block in page.split("```yaml\n").skip(1) {
        let path = folder.path().join("scenario.yaml");
        fs::write(&path, block.split("```").next().unwrap()).unwrap();
        plan(scenario::read(&path));
        read += 1;
    }
    assert_eq!(read, 2);
}
