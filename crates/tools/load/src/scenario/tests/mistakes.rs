//! What is said of mistakes: file, line, key, and what is wrong.

use expect_test::expect;
use proptest::prelude::*;

use super::{flow, read, wrong};
use crate::scenario::Overrides;

#[test]
fn names_file_line_and_key() {
    wrong(&flow("stepz: []"), expect!["a.yaml:4: `stepz`: unknown key; did you mean `steps`?"]);
    wrong(&flow("steps: []"), expect!["a.yaml:4: `steps`: no steps"]);
    wrong(
        &flow("steps: 5"),
        expect!["a.yaml:4: `steps`: expected a list of steps, found a number"],
    );
    wrong(
        &flow("steps: [GET]"),
        expect!["a.yaml:4: `steps[0]`: `GET` is no step; write it as `GET /path`, or as a map"],
    );
    wrong(
        &flow("steps: [FETCH /]"),
        expect!["a.yaml:4: `steps[0]`: `FETCH /` is no step; write it as `GET /path`, or as a map"],
    );
    wrong(
        &flow("steps: [think]"),
        expect!["a.yaml:4: `steps[0]`: `think` is no step; write it as `GET /path`, or as a map"],
    );
    wrong(
        &flow("steps:\n- gett: /"),
        expect!["a.yaml:5: `steps[0].gett`: unknown key; did you mean `get`?"],
    );
    wrong(
        &flow("steps:\n- get: /\n  post: /"),
        expect![
            "a.yaml:5: `steps[0]`: a request has one method: `get: /path`, or `method: PURGE` and `path: /path`"
        ],
    );
    wrong(
        &flow("steps:\n- get: /\n  chek: 200"),
        expect!["a.yaml:6: `steps[0].chek`: unknown key; did you mean `check`?"],
    );
}

#[test]
fn names_the_place_of_what_is_wrong_with_a_request() {
    wrong(
        &flow("steps:\n- get: /\n  check: {stauts: 200}"),
        expect!["a.yaml:6: `steps[0].check.stauts`: unknown key; did you mean `status`?"],
    );
    wrong(
        &flow("steps:\n- get: /\n  check: 20"),
        expect!["a.yaml:6: `steps[0].check`: `20` is no status; write `200` or `2xx`"],
    );
    wrong(
        &flow("steps:\n- get: /\n  check: {matches: 'a('}"),
        expect![
            "a.yaml:6: `steps[0].check.matches`: `a(` is no regular expression: unclosed group"
        ],
    );
    wrong(
        &flow("steps:\n- get: /\n  timeout: 5"),
        expect!["a.yaml:6: `steps[0].timeout`: `5` has no unit; write `5s` or `5ms`"],
    );
    wrong(
        &flow("steps:\n- get: /\n  redirects: 21"),
        expect!["a.yaml:6: `steps[0].redirects`: `21` is no whole number from 0 to 20"],
    );
    wrong(
        &flow("steps:\n- get: /\n  on_failure: stop"),
        expect!["a.yaml:6: `steps[0].on_failure`: `stop` is neither `continue` nor `leave`"],
    );
    wrong(
        &flow("steps:\n- get: /\n  headers: {'a b': c}"),
        expect!["a.yaml:6: `steps[0].headers.a b`: `a b` is no name of a header"],
    );
    wrong(
        &flow("steps:\n- get: /\n  headers: {host: c}"),
        expect!["a.yaml:6: `steps[0].headers.host`: this header is made from the request itself"],
    );
    wrong(
        &flow("steps:\n- get: /\n  headers: {a: \"b\\nc\"}"),
        expect!["a.yaml:6: `steps[0].headers.a`: no value that a header can have"],
    );
}

#[test]
fn names_the_place_of_what_contradicts() {
    wrong(
        &flow("steps:\n- get: /\n  body: a\n  json: {}"),
        expect!["a.yaml:5: `steps[0]`: a request has `body` or `json`, not both"],
    );
    wrong(
        &flow("steps:\n- get: /\n  extract: {a: b}"),
        expect![
            "a.yaml:6: `steps[0].extract.a`: `b` is no path; write `$.items[0].id` or `/items/0/id`, or a map with `json`, `regex`, `header` or `cookie`"
        ],
    );
    wrong(
        &flow("steps:\n- get: /\n  extract: {a: {json: $.a, cookie: b}}"),
        expect![
            "a.yaml:6: `steps[0].extract.a`: write one of `json`, `regex`, `header` and `cookie`"
        ],
    );
    wrong(
        &flow("steps:\n- get: x"),
        expect!["a.yaml:5: `steps[0].get`: `x` does not begin with `/` or `http://`"],
    );
    wrong(
        &flow("steps:\n- get: http://{{ $uuid }}/"),
        expect!["a.yaml:5: `steps[0].get`: the server of a request cannot be a variable of a user"],
    );
    wrong(&flow("steps:\n- think: 1s"), expect!["a.yaml:4: `steps`: no request is ever sent"]);
    wrong(
        &flow("steps:\n- think: 0s\n- GET /"),
        expect!["a.yaml:5: `steps[0].think`: must be longer than 0"],
    );
    wrong(
        &flow("steps:\n- think: {from: 2s, to: 1s}\n- GET /"),
        expect!["a.yaml:5: `steps[0].think`: `from` is longer than `to`"],
    );
    wrong(
        &flow("defaults: {protocol: http3}\nsteps: [GET /]"),
        expect!["a.yaml:4: `defaults.protocol`: `http3` is neither `http1` nor `http2`"],
    );
    wrong(
        &flow("defaults: {time_out: 1s}\nsteps: [GET /]"),
        expect!["a.yaml:4: `defaults.time_out`: unknown key; did you mean `timeout`?"],
    );
    wrong(
        "target: a:80\nsteps: [GET /]",
        expect!["a.yaml:1: `target`: `a:80` is no URL; write it as `http://a:80`"],
    );
    wrong("target: [a\n", expect!["a.yaml:1: unclosed bracket '[' at line 1, column 9"]);
    wrong("", expect!["a.yaml:1: expected a map, found nothing"]);
}

#[test]
fn finds_what_can_never_be() {
    wrong(
        &flow("steps:\n- loop: forever\n  steps: [GET /]\n- GET /never\n"),
        expect!["a.yaml:7: `steps[1]`: unreachable: nobody comes out of the step before it"],
    );
    wrong(
        &flow("steps:\n- GET /\n- leave\n- GET /never\n"),
        expect!["a.yaml:7: `steps[2]`: unreachable: nobody comes out of the step before it"],
    );
    wrong(
        &flow("steps:\n- leave\n"),
        expect!["a.yaml:5: `steps[0]`: a user would leave without having done anything"],
    );
    wrong(
        &flow("steps:\n- choose:\n  - {weight: 0, get: /}\n"),
        expect![
            "a.yaml:6: `steps[0].choose[0].weight`: a branch of weight 0 is never chosen; leave it out"
        ],
    );
    wrong(
        &flow("steps:\n- choose:\n  - {weight: -1, get: /}\n"),
        expect![
            "a.yaml:6: `steps[0].choose[0].weight`: `-1` is no number above 0 and up to 1000000000"
        ],
    );
    wrong(
        &flow("steps:\n- choose: []\n"),
        expect!["a.yaml:5: `steps[0].choose`: nothing to choose from"],
    );
    wrong(
        &flow("steps:\n- loop: 0\n  steps: [GET /]\n"),
        expect!["a.yaml:5: `steps[0].loop`: `0` is no whole number from 1 to 1000000000"],
    );
    wrong(
        &flow("steps:\n- loop: often\n  steps: [GET /]\n"),
        expect!["a.yaml:5: `steps[0].loop`: `often` is neither a number nor `forever`"],
    );
    wrong(
        &flow("steps:\n- loop: {from: 3, to: 2}\n  steps: [GET /]\n"),
        expect!["a.yaml:5: `steps[0].loop`: `from` is more than `to`"],
    );
}

#[test]
fn finds_undefined_variables() {
    wrong(
        &flow("steps: ['GET /{{ id }}']"),
        expect!["a.yaml:4: `steps[0]`: undefined variable `id`"],
    );
    wrong(
        &flow("env: {token: SHOP_TOKEN}\nsteps: ['GET /{{ tokn }}']"),
        expect!["a.yaml:5: `steps[0]`: undefined variable `tokn`; did you mean `token`?"],
    );
    wrong(
        &flow("data: {user: users.csv}\nsteps: ['GET /{{ user.nam }}']"),
        expect!["a.yaml:5: `steps[0]`: undefined variable `user.nam`; did you mean `user.name`?"],
    );
    wrong(
        &flow("steps:\n- GET /{{ id }}\n- get: /\n  extract: {id: $.id}\n"),
        expect![
            "a.yaml:5: `steps[0]`: undefined variable `id`: it is extracted in line 7, which not every user has done by then"
        ],
    );
    wrong(
        &flow(
            "steps:\n- choose:\n  - {get: /, extract: {id: $.id}}\n  - GET /other\n- GET /{{ id }}\n",
        ),
        expect![
            "a.yaml:8: `steps[1]`: undefined variable `id`: it is extracted in line 6, which not every user has done by then"
        ],
    );
    wrong(
        &flow(
            "steps:\n- choose:\n  - {get: /, extract: {id: $.id}}\n  - steps: [GET /, leave]\n- GET /{{ id }}\n",
        ),
        expect!["nothing"],
    );
    wrong(
        &flow(
            "steps:\n- loop: {from: 0, to: 1}\n  steps:\n  - {get: /, extract: {id: $.id}}\n- GET /{{ id }}\n",
        ),
        expect![
            "a.yaml:8: `steps[1]`: undefined variable `id`: it is extracted in line 7, which not every user has done by then"
        ],
    );
    wrong(
        &flow("env: {token: NO_SUCH}\nsteps: [GET /]"),
        expect![
            "a.yaml:4: `env.token`: the environment has no `NO_SUCH`, and there is no `default`"
        ],
    );
    wrong(
        &flow("variables: {a: '{{ b }}'}\nsteps: [GET /]"),
        expect!["a.yaml:4: `variables.a`: undefined variable `b`"],
    );
    wrong(
        &flow("variables: {a: '{{ $uuid }}'}\nsteps: [GET /]"),
        expect!["a.yaml:4: `variables.a`: must be known before the run"],
    );
}

#[test]
fn finds_what_is_wrong_with_data() {
    let with =
        |data: &str| flow(&format!("data: {{row: {data}}}\nsteps: ['GET /{{{{ row.name }}}}']"));
    wrong(&with("empty.csv"), expect!["empty.csv: no rows: `data.row` needs at least one"]);
    wrong(&with("broken.csv"), expect!["broken.csv:2: 2 fields, where the header has 1"]);
    wrong(
        &with("nothing.csv"),
        expect!["a.yaml:4: `data.row`: read `nothing.csv`: entity not found"],
    );
    wrong(
        &with("rates.txt"),
        expect![
            "a.yaml:4: `data.row`: `rates.txt` is neither CSV (.csv) nor JSON lines (.jsonl, .ndjson)"
        ],
    );
    wrong(
        &with("{file: users.csv, pick: any}"),
        expect!["a.yaml:4: `data.row.pick`: `any` is not `sequential`, `random` or `unique`"],
    );
    wrong(
        &with("{file: users.csv, pick: unique}"),
        expect!["a.yaml:1: `row` has 3 rows for 10 users who each need their own"],
    );
    wrong(
        &flow("data: {row: odd.csv}\nsteps: [{get: /, headers: {x: '{{ row.name }}'}}]"),
        expect!["odd.csv:2: `name` goes into a header and has a control character"],
    );
    wrong(
        "target: http://a
data: {row: {file: users.csv, pick: unique}}
scenarios:
  a: {closed: 2, for: 1s, steps: ['GET /{{ row.name }}']}
  b: {closed: 2, for: 1s, steps: ['GET /{{ row.name }}']}
",
        expect![
            "a.yaml:5: `scenarios.b`: the rows of `row` are unique, and `a` takes them already; give each scenario a file of its own"
        ],
    );
}

#[test]
fn rows_are_counted_for_the_schedule_of_the_command_line() {
    let yaml = "target: http://a\nrate: 1/s\nfor: 3s\ndata: {row: {file: users.csv, pick: unique}}\nsteps: ['GET /{{ row.name }}']\n";
    let scenario = read(yaml).unwrap();
    assert!(scenario.plan(&Overrides::default()).is_ok());
    let users = Overrides { users: Some(4), ..Overrides::default() };
    expect!["a.yaml:1: `row` has 3 rows for 4 users who each need their own"]
        .assert_eq(&scenario.plan(&users).unwrap_err().to_string());
}

#[test]
fn thresholds_name_what_is_there() {
    let with = |threshold: &str| {
        let yaml = format!(
            "target: http://a
scenarios:
  shop: {{rate: 1/s, for: 1s, steps: [{{get: /, name: buy}}, GET /]}}
thresholds:
- {threshold}
"
        );
        match read(&yaml) {
            Ok(scenario) => format!("{}\n", scenario.thresholds()[0]),
            Err(error) => format!("{error}\n"),
        }
    };
    let said: String = [
        "p99 < 50ms",
        "buy: p99 < 50ms",
        "'buy: p99 < 50ms'",
        "shop/GET /: errors == 0",
        "shop: rate > 1/s",
        "bye: p99 < 50ms",
        "p99 < 50",
        "{a: p99 < 5ms, b: p99 < 5ms}",
    ]
    .into_iter()
    .map(with)
    .collect();
    expect![[r#"
        p99 < 50ms
        buy: p99 < 50ms
        buy: p99 < 50ms
        shop/GET /: errors == 0
        shop: rate > 1/s
        a.yaml:5: `thresholds[0]`: there is no flow and no step `bye`
        a.yaml:5: `thresholds[0]`: `p99` is compared with a duration: `50` has no unit; write `50s` or `50ms`
        a.yaml:5: `thresholds[0]`: write one threshold an item
    "#]].assert_eq(&said);
}

proptest! {
    #[test]
    fn nothing_panics(
        key in "(steps|target|rate|for|data|check|extract|think|loop|x|scenarios)",
        value in "[a-z0-9/{}\\[\\]:, $.-]{0,40}",
    ) {
        drop(read(&flow(&format!("steps: [GET /]\n{key}: {value}\n"))));
        drop(read(&flow(&format!("steps:\n- get: /\n  {key}: {value}\n"))));
        drop(read(&flow(&format!("steps:\n- {value}\n"))));
    }
}
