//! What users do, one after the other and in numbers.

use std::sync::Arc;

use expect_test::expect;

use super::{behaviour, check, check_each, flow, read, walk};
use crate::plan::Next;

#[test]
fn sends_requests_in_turn() {
    check(
        &flow(
            "steps:\n- GET /\n- think: 1s\n- post: /x y\n  name: put it there\n  body: text\n- method: PURGE\n  path: /",
        ),
        "",
        expect![[r#"
            [GET /] GET http://a:80/
            think 1s
            [put it there] POST http://a:80/x%20y | text
            [PURGE /] PURGE http://a:80/
            leave"#]],
    );
}

#[test]
fn fills_in_variables() {
    check(
        "target: http://a/api/
env: {token: SHOP_TOKEN, mode: {from: NO_SUCH, default: fast}}
variables: {size: 5, place: \"{{ mode }} lane\"}
data: {user: users.csv, item: items.jsonl}
defaults:
  headers: {accept: text/html, x-token: \"{{ token }}\"}
rate: 1/s
for: 10s
steps:
- get: /{{ place }}?a=b
  query: {q: \"a&{{ place }}\", size: \"{{ size }}\", many: [1, 2]}
- post: /login
  form: {user: \"{{ user.name }}\", password: \"{{ user.password }}\"}
  headers: {accept: \"*/*\", x-user: \"{{ user.name }}\"}
- put: /items/{{ item.id }}
  json: {id: \"{{ item.id }}\", tags: \"{{ item.tags }}\", text: \"{{ item.id }}!\", n: [1, null, true], size: \"{{ size }}\"}
- patch: /x
  body: {file: body.bin}
- get: http://b:81/elsewhere
- get: https://c?x
",
        "",
        expect![[r#"
            [GET /{{ place }}?a=b] GET http://a:80/api/fast%20lane?a=b&q=a%26fast%20lane&size=5&many=1&many=2 accept: text/html x-token: secret
            [POST /login] POST http://a:80/api/login x-token: secret accept: */* content-type: application/x-www-form-urlencoded x-user: ann | user=ann&password=a%26b
            [PUT /items/{{ item.id }}] PUT http://a:80/api/items/7 accept: text/html x-token: secret content-type: application/json | {"id":7,"tags":[1],"text":"7!","n":[1,null,true],"size":5}
            [PATCH /x] PATCH http://a:80/api/x accept: text/html x-token: secret | bytes
            [GET http://b:81/elsewhere] GET http://b:81/elsewhere accept: text/html x-token: secret
            [GET https://c?x] GET https://c:443/?x accept: text/html x-token: secret
            leave"#]],
    );
}

#[test]
fn takes_values_from_answers() {
    check(
        &flow(
            "steps:
- get: /
  extract:
    id: $.items[-1].id
    any: {json: '$.items[*].id', pick: random}
    csrf: {regex: 'csrf=(\\w+)'}
    kind: {header: content-type}
    part: {header: content-type, regex: '/(.*)'}
    gone: {json: $.gone, default: 0}
- get: /items/{{ id }}/{{ any }}
  headers: {x-kind: '{{ kind }}', x-csrf: '{{ csrf }}', x-part: '{{ part }}'}
- post: /
  json: {id: '{{ id }}', gone: '{{ gone }}'}
",
        ),
        "200 | content-type: text/json | {\"items\": [{\"id\": 1}, {\"id\": 2}], \"x\": \"csrf=abc\"}",
        expect![[r#"
            [GET /] GET http://a:80/
            [GET /items/{{ id }}/{{ any }}] GET http://a:80/items/2/2 x-kind: text/json x-csrf: abc x-part: json
            [POST /] POST http://a:80/ content-type: application/json | {"id":2,"gone":0}
            leave"#]],
    );
}

/// Answers with a value, without one, none at all, a failure, and a value that no header may have.
const WITH_AND_WITHOUT_A_VALUE: [&str; 5] =
    ["200 | {\"id\": 5}", "200 | no json", "timeout", "500", "200 | {\"id\": \"a\\nb\"}"];

#[test]
fn a_user_without_a_value_leaves() {
    let steps = "steps:\n- {get: /, extract: {id: $.id}}\n- GET /{{ id }}\n";
    check_each(
        &flow(steps),
        &WITH_AND_WITHOUT_A_VALUE,
        expect![[r#"
        200 | {"id": 5}
            [GET /] GET http://a:80/
            [GET /{{ id }}] GET http://a:80/5
            leave
        200 | no json
            [GET /] GET http://a:80/ -> extract id
            leave
        timeout
            [GET /] GET http://a:80/
            leave
        500
            [GET /] GET http://a:80/ -> status 500 -> extract id
            leave
        200 | {"id": "a\nb"}
            [GET /] GET http://a:80/
            [GET /{{ id }}] GET http://a:80/a%0Ab
            leave
    "#]],
    );
}

#[test]
fn a_user_with_a_default_stays() {
    let steps = "steps:\n- {get: /, extract: {id: {json: $.id, default: none}}}\n- GET /{{ id }}\n";
    check_each(
        &flow(steps),
        &WITH_AND_WITHOUT_A_VALUE,
        expect![[r#"
        200 | {"id": 5}
            [GET /] GET http://a:80/
            [GET /{{ id }}] GET http://a:80/5
            leave
        200 | no json
            [GET /] GET http://a:80/
            [GET /{{ id }}] GET http://a:80/none
            leave
        timeout
            [GET /] GET http://a:80/
            [GET /{{ id }}] GET http://a:80/none
            leave
        500
            [GET /] GET http://a:80/ -> status 500
            [GET /{{ id }}] GET http://a:80/none
            leave
        200 | {"id": "a\nb"}
            [GET /] GET http://a:80/
            [GET /{{ id }}] GET http://a:80/a%0Ab
            leave
    "#]],
    );
}

#[test]
fn a_user_leaves_over_a_value_that_fits_no_header() {
    let steps = "steps:\n- {get: /, extract: {id: $.id}}\n- {get: /, headers: {x: '{{ id }}'}}\n";
    check_each(
        &flow(steps),
        &WITH_AND_WITHOUT_A_VALUE,
        expect![[r#"
        200 | {"id": 5}
            [GET /] GET http://a:80/
            [GET /] GET http://a:80/ x: 5
            leave
        200 | no json
            [GET /] GET http://a:80/ -> extract id
            leave
        timeout
            [GET /] GET http://a:80/
            leave
        500
            [GET /] GET http://a:80/ -> status 500 -> extract id
            leave
        200 | {"id": "a\nb"}
            [GET /] GET http://a:80/ -> extract id
            leave
    "#]],
    );
}

#[test]
fn checks_answers() {
    let steps = "steps:
- get: /
  check:
    status: [200, 3xx]
    header: {content-type: text/json, x-id: {matches: '^[0-9]+$'}, x-no: {exists: false}}
    contains: thank you
    matches: 'order \\d+'
    json: {$.ok: true, $.n: 1.0, $.list: {equals: [1, 2]}, $.text: {contains: than}, $.name: '{{ who }}'}
variables: {who: ann}
";
    let good = "{\"ok\": true, \"n\": 1, \"list\": [1, 2], \"text\": \"thank you, order 7\", \"name\": \"ann\"}";
    let with = |body: &str| format!("200 | content-type: text/json | x-id: 7 | {body}");
    let answers = [
        with(good),
        with(&good.replace("true", "false")),
        with(&good.replace("[1, 2]", "[2, 1]")),
        with(&good.replace("ann", "bob")),
        with(&good.replace("order 7", "order x")),
        with(""),
        "404".to_owned(),
        "200".to_owned(),
    ];
    check_each(
        &flow(steps),
        &answers.each_ref().map(String::as_str),
        expect![[r#"
        200 | content-type: text/json | x-id: 7 | {"ok": true, "n": 1, "list": [1, 2], "text": "thank you, order 7", "name": "ann"}
            [GET /] GET http://a:80/
            leave
        200 | content-type: text/json | x-id: 7 | {"ok": false, "n": 1, "list": [1, 2], "text": "thank you, order 7", "name": "ann"}
            [GET /] GET http://a:80/ -> $.ok is true
            leave
        200 | content-type: text/json | x-id: 7 | {"ok": true, "n": 1, "list": [2, 1], "text": "thank you, order 7", "name": "ann"}
            [GET /] GET http://a:80/ -> $.list is [1,2]
            leave
        200 | content-type: text/json | x-id: 7 | {"ok": true, "n": 1, "list": [1, 2], "text": "thank you, order 7", "name": "bob"}
            [GET /] GET http://a:80/ -> $.name is `{{ who }}`
            leave
        200 | content-type: text/json | x-id: 7 | {"ok": true, "n": 1, "list": [1, 2], "text": "thank you, order x", "name": "ann"}
            [GET /] GET http://a:80/ -> body matches `order \d+`
            leave
        200 | content-type: text/json | x-id: 7 | 
            [GET /] GET http://a:80/ -> header x-id matches `^[0-9]+$`
            leave
        404
            [GET /] GET http://a:80/ -> status is 200 or 3xx
            leave
        200
            [GET /] GET http://a:80/ -> header content-type is `text/json`
            leave
    "#]],
    );
}

#[test]
fn says_whether_a_status_is_right() {
    let answers = ["500\n404", "404\n200", "timeout", "200 | y"];
    check_each(
        &flow("steps: [GET /, GET /]"),
        &answers,
        expect![[r#"
        500; 404
            [GET /] GET http://a:80/ -> status 500
            [GET /] GET http://a:80/ -> status 404
            leave
        404; 200
            [GET /] GET http://a:80/ -> status 404
            [GET /] GET http://a:80/
            leave
        timeout
            [GET /] GET http://a:80/
            [GET /] GET http://a:80/
            leave
        200 | y
            [GET /] GET http://a:80/
            [GET /] GET http://a:80/
            leave
    "#]],
    );
    let checked = "steps: [{get: /, check: 404}, {get: /, check: 404}]";
    check_each(
        &flow(checked),
        &answers,
        expect![[r#"
        500; 404
            [GET /] GET http://a:80/ -> status is 404
            [GET /] GET http://a:80/
            leave
        404; 200
            [GET /] GET http://a:80/
            [GET /] GET http://a:80/ -> status is 404
            leave
        timeout
            [GET /] GET http://a:80/
            [GET /] GET http://a:80/ -> status is 404
            leave
        200 | y
            [GET /] GET http://a:80/ -> status is 404
            [GET /] GET http://a:80/ -> status is 404
            leave
    "#]],
    );
}

#[test]
fn a_user_leaves_on_a_failure_if_told_to() {
    let answers = ["500\n404", "404\n200", "timeout", "200 | y"];
    let leaving = "defaults: {on_failure: leave}\nsteps: [GET /, GET /]";
    check_each(
        &flow(leaving),
        &answers,
        expect![[r#"
        500; 404
            [GET /] GET http://a:80/ -> status 500
            leave
        404; 200
            [GET /] GET http://a:80/ -> status 404
            leave
        timeout
            [GET /] GET http://a:80/
            leave
        200 | y
            [GET /] GET http://a:80/
            [GET /] GET http://a:80/
            leave
    "#]],
    );
    let named =
        "steps: [{get: /, on_failure: leave, check: [{name: is there, contains: x}]}, GET /]";
    check_each(
        &flow(named),
        &answers,
        expect![[r#"
        500; 404
            [GET /] GET http://a:80/ -> status 500 -> is there
            leave
        404; 200
            [GET /] GET http://a:80/ -> status 404 -> is there
            leave
        timeout
            [GET /] GET http://a:80/
            leave
        200 | y
            [GET /] GET http://a:80/ -> is there
            leave
    "#]],
    );
}

#[test]
fn keeps_cookies() {
    let steps = "steps:\n- GET /\n- {get: /shop, extract: {sid: {cookie: sid}}}\n- GET /{{ sid }}\n- think: 1m\n- GET /\n";
    let answers = "200 | set-cookie: sid=1; Max-Age=60 | set-cookie: secret=1; Secure
                   200 | set-cookie: sid=2; Path=/; Max-Age=60 | set-cookie: theme=dark";
    check(
        &flow(steps),
        answers,
        expect![[r#"
        [GET /] GET http://a:80/
        [GET /shop] GET http://a:80/shop cookie: sid=1
        [GET /{{ sid }}] GET http://a:80/2 cookie: sid=2; theme=dark
        think 1m
        [GET /] GET http://a:80/ cookie: theme=dark
        leave"#]],
    );
    check(
        &flow("defaults: {cookies: false}\nsteps: [GET /, GET /]"),
        answers,
        expect![[r#"
        [GET /] GET http://a:80/
        [GET /] GET http://a:80/
        leave"#]],
    );
}

#[test]
fn follows_redirects() {
    let steps = "defaults: {redirects: 2}\nsteps:\n- post: /login\n  auth: {user: ann, password: pw}\n  form: {a: b}\n  check: {contains: welcome}\n- GET http://b/\n";
    check(
        &flow(steps),
        "303 | location: home | set-cookie: sid=1
         307 | location: http://b/there?x
         200 | welcome",
        expect![[r#"
            [POST /login] POST http://a:80/login content-type: application/x-www-form-urlencoded authorization: Basic YW5uOnB3 | a=b
            [POST /login] GET http://a:80/home authorization: Basic YW5uOnB3 cookie: sid=1
            [POST /login] GET http://b:80/there?x
            [GET http://b/] GET http://b:80/
            leave"#]],
    );
    check(
        &flow(steps),
        "302 | location: /1
         302 | location: /2
         302 | location: /3",
        expect![[r#"
            [POST /login] POST http://a:80/login content-type: application/x-www-form-urlencoded authorization: Basic YW5uOnB3 | a=b
            [POST /login] GET http://a:80/1 authorization: Basic YW5uOnB3
            [POST /login] GET http://a:80/2 authorization: Basic YW5uOnB3 -> at most 2 redirects
            [GET http://b/] GET http://b:80/
            leave"#]],
    );
    check(
        &flow(steps),
        "302 | location: http://elsewhere/",
        expect![[r#"
        [POST /login] POST http://a:80/login content-type: application/x-www-form-urlencoded authorization: Basic YW5uOnB3 | a=b -> redirect stays at the scenario's servers
        [GET http://b/] GET http://b:80/
        leave"#]],
    );
    check(
        &flow("steps: [GET /]"),
        "302 | location: /1",
        expect![[r#"
        [GET /] GET http://a:80/
        leave"#]],
    );
}

#[test]
fn authenticates() {
    check(
        &flow(
            "data: {user: users.csv}\ndefaults: {auth: {user: '{{ user.name }}', password: '{{ user.password }}'}}\nsteps:\n- GET /\n- {get: /, auth: {user: a, password: b}}\n",
        ),
        "",
        expect![[r#"
            [GET /] GET http://a:80/ authorization: Basic YW5uOmEmYg==
            [GET /] GET http://a:80/ authorization: Basic YTpi
            leave"#]],
    );
}

#[test]
fn loops_and_chooses() {
    check(
        &flow(
            "steps:
- loop: 2
  steps:
  - GET /outer
  - loop: {from: 0, to: 2}
    steps: [GET /inner]
- choose:
  - {weight: 3, get: /often}
  - {weight: 1, steps: [GET /seldom, GET /more]}
  - GET /default
- think: {from: 1s, to: 3s}
- think: {mean: 2s}
- loop: forever
  steps:
  - GET /on
  - choose:
    - {weight: 9, think: 1s}
    - leave
",
        ),
        "",
        expect![[r#"
            [GET /outer] GET http://a:80/outer
            [GET /inner] GET http://a:80/inner
            [GET /outer] GET http://a:80/outer
            [GET /seldom] GET http://a:80/seldom
            [GET /more] GET http://a:80/more
            think 1.019359766s
            think 3.038103213s
            [GET /on] GET http://a:80/on
            think 1s
            [GET /on] GET http://a:80/on
            think 1s
            [GET /on] GET http://a:80/on
            think 1s
            [GET /on] GET http://a:80/on
            think 1s
            [GET /on] GET http://a:80/on
            think 1s
            [GET /on] GET http://a:80/on
            think 1s
            [GET /on] GET http://a:80/on
            think 1s
            [GET /on] GET http://a:80/on
            think 1s
            [GET /on] GET http://a:80/on
            think 1s
            [GET /on] GET http://a:80/on
            think 1s
            [GET /on] GET http://a:80/on
            think 1s
            [GET /on] GET http://a:80/on
            think 1s
            [GET /on] GET http://a:80/on
            think 1s
            [GET /on] GET http://a:80/on
            think 1s
            [GET /on] GET http://a:80/on
            think 1s
            [GET /on] GET http://a:80/on
            think 1s
            [GET /on] GET http://a:80/on
            ..."#]],
    );
}

#[test]
fn rows_belong_to_users() {
    let row = |pick: &str, closed: bool, numbers: &[u64]| {
        let arrival = if closed { "closed: 3\nfor: 10s" } else { "rate: 1/s\nfor: 3s" };
        let yaml = format!(
            "target: http://a\n{arrival}\ndata: {{user: {{file: users.csv, pick: {pick}}}}}\nsteps: ['GET /{{{{ user.name }}}}']\n"
        );
        let behaviour = behaviour(&read(&yaml).unwrap());
        let mut rows = Vec::new();
        for number in numbers {
            match behaviour.arrive(*number, 100 + number).next() {
                Next::Send(_, request) => {
                    rows.push(String::from_utf8_lossy(&request.path).into_owned());
                }
                other => rows.push(format!("{other:?}")),
            }
        }
        rows.join(" ")
    };
    expect!["/ann /bob /cy /ann /bob"].assert_eq(&row("sequential", false, &[0, 1, 2, 3, 4]));
    expect!["/cy /cy /ann /bob /cy /ann /bob /bob"].assert_eq(&row(
        "random",
        false,
        &[0, 1, 2, 3, 4, 5, 6, 7],
    ));
    expect!["/ann /bob /cy Leave"].assert_eq(&row("unique", false, &[0, 1, 2, 3]));
    expect!["/ann /bob /cy /ann /bob"].assert_eq(&row("unique", true, &[0, 1, 2, 3, 4]));
}

#[test]
fn a_request_without_variables_is_only_cloned() {
    let scenario = read(&flow("steps: [{get: /, headers: {a: b}, json: {c: [d]}}]")).unwrap();
    let behaviour = behaviour(&scenario);
    let mut sent = Vec::new();
    for number in 0..2 {
        match behaviour.arrive(number, number).next() {
            Next::Send(_, request) => sent.push(request),
            other => panic!("{other:?}"),
        }
    }
    assert!(Arc::ptr_eq(&sent[0].headers, &sent[1].headers));
    assert!(Arc::ptr_eq(&sent[0].origin, &sent[1].origin));
    assert_eq!(sent[0].body.as_ptr(), sent[1].body.as_ptr());
    assert_eq!(sent[0].path.as_ptr(), sent[1].path.as_ptr());
    assert!(!sent[0].keep.headers && !sent[0].keep.body);
}

#[test]
fn same_seed_same_choices() {
    let scenario = read(
        &flow("steps:\n- loop: 5\n  steps:\n  - choose: [GET /a, GET /b]\n  - think: {mean: 1s}\n  - GET /{{ $uuid }}\n"),
    )
    .unwrap();
    let behaviour = behaviour(&scenario);
    let walked = |seed| walk(&*behaviour, &mut *behaviour.arrive(0, seed), "");
    assert_eq!(walked(1), walked(1));
    assert_ne!(walked(1), walked(2));
}

#[test]
fn weights_are_respected() {
    const USERS: u32 = 10_000;
    let steps = "steps:\n- choose:\n  - {weight: 1, get: /a}\n  - {weight: 2.5, get: /b}\n  - {weight: 6.5, get: /c}\n";
    let behaviour = behaviour(&read(&flow(steps)).unwrap());
    let mut counts = [0u32; 3];
    for seed in 0..USERS {
        if let Next::Send(step, _) = behaviour.arrive(0, seed.into()).next() {
            counts[step.0] += 1;
        }
    }
    for (count, share) in counts.iter().zip([0.1, 0.25, 0.65]) {
        // Five standard deviations.
        let deviation = (f64::from(USERS) * share * (1.0 - share)).sqrt();
        let expected = f64::from(USERS) * share;
        assert!((f64::from(*count) - expected).abs() < 5.0 * deviation, "{counts:?}");
    }
}

#[test]
fn thinking_has_its_mean() {
    const USERS: u32 = 10_000;
    for (think, mean) in [("{mean: 2s}", 2.0), ("{from: 1s, to: 3s}", 2.0), ("2s", 2.0)] {
        let steps = format!("steps:\n- think: {think}\n- GET /\n");
        let behaviour = behaviour(&read(&flow(&steps)).unwrap());
        let mut sum = 0.0;
        for seed in 0..USERS {
            if let Next::Think(duration) = behaviour.arrive(0, seed.into()).next() {
                sum += duration.as_secs_f64();
            }
        }
        // The deviation of the mean of the widest of them, an exponential law, is 0.02 s.
        assert!((sum / f64::from(USERS) - mean).abs() < 0.1, "{think}: {sum}");
    }
}

#[test]
fn nothing_of_an_answer_is_kept_in_vain() {
    let keep = |steps: &str| {
        let behaviour = behaviour(&read(&flow(steps)).unwrap());
        match behaviour.arrive(0, 0).next() {
            Next::Send(_, request) => (request.keep.headers, request.keep.body),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(keep("steps: [GET /]"), (false, false));
    assert_eq!(keep("steps: [{get: /, check: 200}]"), (false, false));
    assert_eq!(keep("steps: [GET /, GET /]"), (true, false));
    assert_eq!(keep("defaults: {cookies: false}\nsteps: [GET /, GET /]"), (false, false));
    assert_eq!(keep("steps: [{get: /, check: {contains: a}}]"), (false, true));
    assert_eq!(keep("steps: [{get: /, extract: {a: {header: etag}}}]"), (true, false));
    assert_eq!(keep("defaults: {redirects: 1}\nsteps: [GET /]"), (true, false));
}
