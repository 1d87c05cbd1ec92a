//! When users arrive.

use std::time::Duration;

use expect_test::{Expect, expect};

use super::read;
use crate::{
    plan::{Arrival, Spacing, Stage},
    scenario::{Overrides, units::print_duration},
};

fn arrivals(yaml: &str, overrides: &Overrides) -> String {
    let plan = match read(yaml).and_then(|it| it.plan(overrides)) {
        Ok(plan) => plan,
        Err(error) => return format!("error: {error}"),
    };
    let mut said = String::new();
    for flow in &plan.flows {
        said += &flow.name;
        match &flow.arrival {
            Arrival::Closed { users, duration } => {
                said += &format!(" {users} users for {}", print_duration(*duration));
            }
            Arrival::Open(stages) => {
                for stage in stages {
                    let random = if stage.spacing == Spacing::Poisson { " poisson" } else { "" };
                    let duration = print_duration(stage.duration);
                    said += &format!(" {}..{}/s for {duration}{random},", stage.from, stage.to);
                }
            }
        }
        said += "\n";
    }
    said
}

#[track_caller]
fn check_arrival(arrival: &str, expected: Expect) {
    let yaml = format!("target: http://a\n{arrival}\nsteps: [GET /]\n");
    expected.assert_eq(&arrivals(&yaml, &Overrides::default()));
}

#[test]
fn users_arrive_by_a_schedule() {
    check_arrival(
        "rate: 90/min\nfor: 1m",
        expect![[r#"
        main 1.5..1.5/s for 1m,
    "#]],
    );
    check_arrival(
        "rate: 5/s\nfor: 1m\nspacing: poisson",
        expect![[r#"
        main 5..5/s for 1m poisson,
    "#]],
    );
    check_arrival(
        "ramp: {to: 100/s}\nfor: 30s",
        expect![[r#"
        main 0..100/s for 30s,
    "#]],
    );
    check_arrival(
        "ramp: {from: 100/s, to: 1/s}\nfor: 30s",
        expect![[r#"
        main 100..1/s for 30s,
    "#]],
    );
    check_arrival(
        "stages:\n- {to: 10/s, for: 5s}\n- {rate: 10/s, for: 1m}\n- {to: 0/s, for: 5s}\n- {from: 1/s, to: 2/s, for: 1s}",
        expect![[r#"
            main 0..10/s for 5s, 10..10/s for 1m, 10..0/s for 5s, 1..2/s for 1s,
        "#]],
    );
    check_arrival(
        "replay: {file: rates.txt}",
        expect![[r#"
        main 1..1/s for 1s, 2..2/s for 2s, 0..0/s for 1s, 3..3/s for 1s,
    "#]],
    );
    check_arrival(
        "replay: {file: rates.txt, scale: 10, speed: 2, skip: 1s, for: 1s}",
        expect![[r#"
        main 20..20/s for 1s,
    "#]],
    );
    check_arrival(
        "replay: {file: rates.csv, every: 1m}",
        expect![[r#"
        main 1..1/s for 1m, 2..2/s for 1m,
    "#]],
    );
    // Exactly as long as was asked for, wherever in a number that begins and ends.
    check_arrival(
        "replay: {file: rates.csv, every: 1m, for: 90s}",
        expect![[r#"
        main 1..1/s for 1m, 2..2/s for 30s,
    "#]],
    );
    check_arrival(
        "replay: {file: rates.csv, every: 1m, skip: 50s, speed: 2, for: 10s}",
        expect![[r#"
        main 1..1/s for 5s, 2..2/s for 5s,
    "#]],
    );
    check_arrival(
        "closed: 50\nfor: 1m",
        expect![[r#"
        main 50 users for 1m
    "#]],
    );
}

#[test]
fn says_what_is_wrong_with_an_arrival() {
    check_arrival(
        "",
        expect![
            "error: a.yaml:1: nothing says when users arrive: write `rate`, `ramp`, `stages`, `replay` or `closed`"
        ],
    );
    check_arrival(
        "rate: 1/s",
        expect!["error: a.yaml:1: `for` is missing: how long do users arrive?"],
    );
    check_arrival(
        "for: 1s",
        expect!["error: a.yaml:2: `for`: does nothing without `rate`, `ramp` or `closed`"],
    );
    check_arrival(
        "rate: 1/s\nclosed: 5\nfor: 1s",
        expect!["error: a.yaml:1: `rate` and `closed` both say when users arrive; leave one out"],
    );
    check_arrival(
        "rate: 5\nfor: 1s",
        expect!["error: a.yaml:2: `rate`: `5` does not say per what; write `5/s`"],
    );
    check_arrival("rate: 0/s\nfor: 1s", expect!["error: a.yaml:2: `rate`: must be above 0"]);
    check_arrival(
        "rate: 1/h\nfor: 1s",
        expect!["error: a.yaml:1: nobody would arrive: the rate is too low for this time"],
    );
    check_arrival(
        "rate: 1/s\nfor: 5",
        expect!["error: a.yaml:3: `for`: `5` has no unit; write `5s` or `5ms`"],
    );
    check_arrival("rate: 1/s\nfor: 0s", expect!["error: a.yaml:3: `for`: must be longer than 0"]);
    check_arrival(
        "rate: 1/s\nfor: 1s\nspacing: random",
        expect!["error: a.yaml:4: `spacing`: `random` is neither `even` nor `poisson`"],
    );
    check_arrival(
        "ramp: {from: 1/s}\nfor: 1s",
        expect!["error: a.yaml:2: `ramp`: `to` is missing"],
    );
}

#[test]
fn says_what_is_wrong_with_stages_and_records() {
    check_arrival("stages: []", expect!["error: a.yaml:2: `stages`: no stages"]);
    check_arrival(
        "stages: [{for: 1s}]",
        expect![
            "error: a.yaml:2: `stages[0]`: a stage has either `rate`, or `to` and perhaps `from`"
        ],
    );
    check_arrival(
        "stages: [{rate: 1/s, for: 1s}]\nfor: 1s",
        expect!["error: a.yaml:3: `for`: each stage has a `for` of its own"],
    );
    check_arrival(
        "closed: 0\nfor: 1s",
        expect!["error: a.yaml:2: `closed`: `0` is no whole number from 1 to 1000000"],
    );
    check_arrival(
        "closed: 1\nfor: 1s\nspacing: poisson",
        expect!["error: a.yaml:4: `spacing`: users of a closed loop come at once and begin again"],
    );
    check_arrival(
        "replay: {file: nothing.txt}",
        expect!["error: a.yaml:2: `replay.file`: read `nothing.txt`: entity not found"],
    );
    check_arrival(
        "replay: {file: bad.txt}",
        expect!["error: bad.txt:2: `many` is no number of arrivals"],
    );
    check_arrival(
        "replay: {file: rates.txt, skip: 1h}",
        expect!["error: a.yaml:2: `replay`: nothing is left: the record has 5 numbers"],
    );
    check_arrival(
        "replay: {file: rates.txt, scale: 0}",
        expect!["error: a.yaml:2: `replay.scale`: `0` is no number above 0 and up to 1000000"],
    );
}

#[test]
fn the_command_line_has_the_last_word() {
    let one = "target: http://a\nrate: 5/s\nfor: 1m\nspacing: poisson\nsteps: [GET /]\n";
    let ramp =
        "target: http://a\nstages: [{to: 5/s, for: 1m}, {to: 1/s, for: 1m}]\nsteps: [GET /]\n";
    let none = "target: http://a\nsteps: [GET /]\n";
    let two = "target: http://a\nscenarios:\n  a: {rate: 1/s, for: 1m, steps: [GET /]}\n  b: {closed: 2, for: 1m, steps: [GET /]}\n";
    let stage = Stage {
        duration: Duration::from_secs(20),
        from: 10.0,
        to: 20.0,
        spacing: Spacing::Poisson,
    };
    let schedule = Overrides { stages: Some(vec![stage]), ..Overrides::default() };
    let users = Overrides { users: Some(7), ..Overrides::default() };
    let long = Overrides { duration: Some(Duration::from_secs(5)), ..Overrides::default() };
    let mut said = String::new();
    for overrides in [&schedule, &users, &long] {
        for yaml in [one, ramp, none, two] {
            said += &arrivals(yaml, overrides);
        }
        said += "\n";
    }
    expect![[r#"
        main 10..20/s for 20s poisson,
        main 10..20/s for 20s poisson,
        main 10..20/s for 20s poisson,
        error: a.yaml:3: `scenarios.a`: a schedule or a number of users fits one scenario only
        main 7 users for 1m
        main 7 users for 2m
        error: a.yaml:1: how long do users arrive?error: a.yaml:3: `scenarios.a`: a schedule or a number of users fits one scenario only
        main 5..5/s for 5s poisson,
        error: a.yaml:1: its stages say how long they lasterror: a.yaml:1: nothing says when users arrive: write `rate`, `ramp`, `stages`, `replay` or `closed`a 1..1/s for 5s,
        b 2 users for 5s

    "#]].assert_eq(&said);
}

#[test]
fn a_path_needs_a_target() {
    let show = |yaml: &str| match read(yaml) {
        Ok(scenario) => format!("{:?}", scenario.plan(&Overrides::default()).unwrap().targets),
        Err(error) => error.to_string(),
    };
    let steps = "rate: 1/s\nfor: 1s\nsteps: [GET /x]\n";
    expect!["a.yaml:3: `steps[0]`: `target` is missing: whose path is this?"]
        .assert_eq(&show(steps));
    expect![[r#"[Origin { tls: true, host: "b", port: 443 }]"#]]
        .assert_eq(&show(&format!("target: https://b\n{steps}")));
    expect!["a.yaml:1: `target`: `b` is no URL; write it as `http://b`"]
        .assert_eq(&show(&format!("target: b\n{steps}")));
}
