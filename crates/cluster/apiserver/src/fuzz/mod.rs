//! Bytes that no client should send, and objects that no client could have stored: the corpus in the
//! folder `corpus` as it is, and changed in all ways. Nothing panics, and what is accepted keeps its
//! laws.
//!
//! A file of the corpus is one input; what has broken something once is kept there. `PROPTEST_CASES`
//! asks for more changes than the usual ones, and `cargo xtask soak fuzz` for very many.

mod objects;
mod patches;
mod protobuf;
mod texts;

use std::{fmt, fs, path::Path};

use proptest::{
    collection::vec,
    prelude::*,
    sample::Index,
    test_runner::{TestError, TestRunner},
};
use serde_json::{Map, Value, json};

/// How bytes are changed on their way.
#[derive(Clone, Debug)]
enum Change {
    Flip(Index, u8),
    Cut(Index),
    Remove(Index, usize),
    Insert(Index, Vec<u8>),
    Repeat(Index, usize),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let at = |it: &Index| it.index(bytes.len() + 1);
        match self {
            Self::Flip(place, with) if !bytes.is_empty() => {
                let at = place.index(bytes.len());
                bytes[at] ^= with;
            }
            Self::Flip(..) => {}
            Self::Cut(place) => bytes.truncate(at(place)),
            Self::Remove(place, count) => {
                let at = at(place);
                bytes.drain(at..(at + count).min(bytes.len()));
            }
            Self::Insert(place, what) => {
                let at = at(place);
                bytes.splice(at..at, what.iter().copied());
            }
            Self::Repeat(place, count) => {
                let at = at(place);
                let what = bytes[at..(at + count).min(bytes.len())].to_vec();
                bytes.splice(at..at, what);
            }
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let place = any::<Index>;
    let words = prop_oneof![
        Just("null"),
        Just("{}"),
        Just("[]"),
        Just("\"\""),
        Just("-1"),
        Just("1e999"),
        Just("$patch"),
        Just("~1"),
        Just("\\ud800"),
        Just("&a "),
        Just("*a"),
        Just("<<: "),
        Just("\n"),
    ];
    let words = words.prop_map(|it| it.as_bytes().to_vec());
    prop_oneof![
        4 => (place(), 1..=255_u8).prop_map(|(place, with)| Change::Flip(place, with)),
        1 => place().prop_map(Change::Cut),
        2 => (place(), 1..20_usize).prop_map(|(place, count)| Change::Remove(place, count)),
        1 => (place(), vec(any::<u8>(), 1..8)).prop_map(|(place, it)| Change::Insert(place, it)),
        2 => (place(), words).prop_map(|(place, it)| Change::Insert(place, it)),
        2 => (place(), 1..40_usize).prop_map(|(place, count)| Change::Repeat(place, count)),
    ]
}

/// How a value is changed: what stands at a place becomes something else, or goes.
#[derive(Clone, Debug)]
struct Twist(Index, Option<Value>);

impl Twist {
    fn apply(&self, value: &mut Value) {
        let mut places = Vec::new();
        pointers(value, &mut String::new(), &mut places);
        let place = &places[self.0.index(places.len())];
        match (&self.1, place.rsplit_once('/')) {
            (Some(new), _) => *value.pointer_mut(place).unwrap() = new.clone(),
            (None, Some((parent, key))) => match value.pointer_mut(parent) {
                Some(Value::Object(members)) => {
                    members.remove(&key.replace("~1", "/").replace("~0", "~"));
                }
                Some(Value::Array(items)) => drop(items.remove(key.parse().unwrap())),
                _ => {}
            },
            (None, None) => *value = Value::Null,
        }
    }
}

fn pointers(value: &Value, path: &mut String, places: &mut Vec<String>) {
    places.push(path.clone());
    let length = path.len();
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                *path += &format!("/{index}");
                pointers(item, path, places);
                path.truncate(length);
            }
        }
        Value::Object(members) => {
            for (key, member) in members {
                *path += &format!("/{}", key.replace('~', "~0").replace('/', "~1"));
                pointers(member, path, places);
                path.truncate(length);
            }
        }
        _ => {}
    }
}

fn twist() -> impl Strategy<Value = Twist> {
    let odd = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop_oneof![Just(0), Just(-1), Just(i64::MAX), Just(i64::MIN), any::<i64>()]
            .prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z0-9./%:*\\-é]{0,12}|[0-9]{1,30}[a-zA-Z]{0,2}".prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        Just(json!([null])),
        Just(json!([[], {}, "a", "a"])),
        Just(json!({"": null, "name": "a", "key": {}})),
        Just(Value::Object(Map::new())),
    ];
    (any::<Index>(), prop::option::weighted(0.8, odd)).prop_map(|(place, new)| Twist(place, new))
}

/// The inputs of a folder of the corpus, by name.
fn corpus(folder: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(folder);
    let files = fs::read_dir(&folder).unwrap().map(|it| it.unwrap().path());
    let name = |it: &Path| it.file_name().unwrap().to_str().unwrap().to_owned();
    let mut all: Vec<_> = files.map(|it| (name(&it), fs::read(&it).unwrap())).collect();
    all.sort();
    assert!(!all.is_empty(), "{}", folder.display());
    all
}

/// Gives a test every input of the corpus, and then changed ones.
#[track_caller]
fn hold(folder: &str, test: impl Fn(&[u8]) -> Result<(), TestCaseError>) {
    let corpus = corpus(folder);
    for (name, input) in &corpus {
        if let Err(error) = test(input) {
            panic!("{folder}/{name}: {error}");
        }
    }
    let case = (any::<Index>(), vec(change(), 1..6)).prop_map(move |(which, changes)| {
        let (_, mut input) = which.get(&corpus).clone();
        changes.iter().for_each(|it| it.apply(&mut input));
        Bytes(input)
    });
    property(&case, |input| test(&input.0));
}

/// Tries a property. The smallest input that breaks it is told.
#[track_caller]
fn property<S>(case: &S, test: impl Fn(S::Value) -> Result<(), TestCaseError>)
where
    S: Strategy,
    S::Value: fmt::Debug,
{
    // Without a file of what failed: the input is printed, and belongs into the corpus.
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    match TestRunner::new(config).run(case, test) {
        Ok(()) => {}
        Err(TestError::Fail(reason, input)) => panic!("{reason}\nby {input:?}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

/// Bytes that are shown as a literal.
struct Bytes(Vec<u8>);

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}
