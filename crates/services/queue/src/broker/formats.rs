//! Data folders as every release wrote them: they must open, with nothing lost. How they were made
//! stands in `tests/fixtures/README.md`.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use expect_test::{Expect, expect};
use runtime::{Clock, Tasks};

use super::*;
use crate::{
    disk::{Disk as _, simulated::Simulated},
    message::{NewMessage, NodeId},
};

/// How long anything may take that is expected soon; long, for a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// Puts what is in a folder of the machine into one of the disk.
fn load(disk: &Simulated, from: &Path, to: &Path) {
    disk.create_folder(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            load(disk, &entry.path(), &to);
        } else {
            disk.put(&to, &fs::read(entry.path()).unwrap());
        }
    }
}

fn committed(version: u32) -> Simulated {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let disk = Simulated::new(1);
    load(&disk, &fixtures.join(format!("format-{version}")), Path::new("/data"));
    disk
}

async fn open(disk: &Simulated, at: &str) -> Result<Broker, OpenError> {
    open_holding(disk, at, false).await
}

async fn open_holding(
    disk: &Simulated,
    at: &str,
    hold_new_topics: bool,
) -> Result<Broker, OpenError> {
    let config = Config { hold_new_topics, ..Config::new(NodeId::new(7).unwrap()) };
    let clock = Clock::following_tokio(at.parse().unwrap());
    Broker::open(config, disk.arc(), PathBuf::from("/data"), clock, Tasks::default()).await
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// What is told of everything.
fn shown(broker: &Broker) -> String {
    let mut shown = String::new();
    for topic in broker.topics() {
        let TopicStats { name, depth, paused, first, next, .. } = topic.stats();
        let kept = first.until(next);
        writeln!(shown, "{name}: {kept} kept, depth {depth}, paused {paused}").unwrap();
        for channel in topic.channels() {
            let ChannelStats { name, depth, deferred, paused, options, .. } = channel.stats();
            writeln!(shown, "  {name}: depth {depth}, deferred {deferred}, paused {paused}")
                .unwrap();
            if options != ChannelOptions::default() {
                writeln!(shown, "    {options:?}").unwrap();
            }
        }
    }
    shown
}

/// Consumes what there is: bodies, and the attempt each was.
async fn consumed(broker: &Broker, topic: &str, channel: &str, count: usize) -> String {
    let topic = broker.existing_topic(&name(topic)).unwrap();
    let channel = topic.channel(&name(channel)).unwrap();
    let subscription = channel.subscribe(ClientId(1), Duration::from_mins(1), None).unwrap();
    subscription.ready(100);
    let mut seen = Vec::new();
    while seen.len() < count {
        let mut out = Vec::new();
        let next = subscription.next(&mut out);
        tokio::time::timeout(SOON, next).await.expect("nothing more is delivered");
        for Delivery { message, id, attempts } in out {
            subscription.finish(id).unwrap();
            let body: String = String::from_utf8_lossy(&message.body).chars().take(20).collect();
            seen.push(format!("{body} {attempts}"));
        }
    }
    let left = channel.stats();
    assert_eq!((left.depth, left.in_flight), (0, 0), "more is there: {seen:?}");
    seen.join(", ")
}

async fn check(broker: &Broker, place: (&str, &str), count: usize, expected: Expect) {
    expected.assert_eq(&consumed(broker, place.0, place.1, count).await);
}

#[tokio::test]
async fn format_1_opens() {
    let disk = committed(1);
    let broker = open(&disk, "2026-11-22T02:00:00Z").await.unwrap();
    expect![[r#"
        alone: 3 kept, depth 3, paused false
        orders: 12 kept, depth 0, paused false
          audit: depth 5, deferred 2, paused false
          billing: depth 12, deferred 0, paused false
            ChannelOptions { attempts_max: Some(3), dead_letter_topic: Some(`orders_dead`), ordered_by_key: true }
        paused: 2 kept, depth 1, paused true
          c: depth 1, deferred 0, paused true
    "#]].assert_eq(&shown(&broker));
    check(
        &broker,
        ("orders", "audit"),
        5,
        expect!["order 1 3, order 4 2, order 5 2, batch 0 2, batch 2 2"],
    )
    .await;
    check(&broker, ("orders", "billing"), 11, expect!["before 1, order 0 1, order 1 1, order 2 1, order 3 1, order 4 1, order 5 1, batch 0 1, batch 1 1, batch 2 1, after 1"]).await;
    check(
        &broker,
        ("alone", "new"),
        3,
        expect!["1 in alone 1, 2 in alone 1, xxxxxxxxxxxxxxxxxxxx 1"],
    )
    .await;
    let paused = broker.existing_topic(&name("paused")).unwrap();
    paused.pause(false);
    paused.existing_channel(&name("c")).unwrap().pause(false);
    check(&broker, ("paused", "c"), 2, expect!["1 in paused 1, 2 in paused 1"]).await;
    // Where the torn one was, publishing goes on; what is deferred comes when it is due.
    let orders = broker.existing_topic(&name("orders")).unwrap();
    let new = NewMessage::new("new".into());
    orders.publish(&[new]).unwrap().committed().await.unwrap();
    check(&broker, ("orders", "audit"), 1, expect!["new 1"]).await;
    broker.close().await.unwrap();
    let broker = open(&disk.killed(), "2026-11-22T03:00:00Z").await.unwrap();
    check(&broker, ("orders", "audit"), 2, expect!["order 3 2, deferred 1"]).await;
    check(&broker, ("orders", "billing"), 2, expect!["deferred 1, new 1"]).await;
}

#[tokio::test]
async fn format_2_opens() {
    let disk = committed(2);
    let broker = open_holding(&disk, "2026-11-22T05:07:30Z", true).await.unwrap();
    expect![[r#"
        held: 1 kept, depth 1, paused false
          early: depth 0, deferred 0, paused false
        long: 19 kept, depth 0, paused false
          done: depth 1, deferred 0, paused false
        orders: 7 kept, depth 0, paused false
          audit: depth 3, deferred 2, paused false
          billing: depth 7, deferred 0, paused false
            ChannelOptions { attempts_max: Some(3), dead_letter_topic: Some(`orders_dead`), ordered_by_key: true }
    "#]]
    .assert_eq(&shown(&broker));
    let held = broker.existing_topic(&name("held")).unwrap();
    assert!(held.is_held(), "nobody has said which channels it has elsewhere");
    held.release();
    check(&broker, ("held", "early"), 1, expect!["1 in held 1"]).await;
    check(&broker, ("orders", "audit"), 3, expect!["order 0 2, order 3 3, after 2"]).await;
    check(
        &broker,
        ("orders", "billing"),
        6,
        expect!["before 1, order 0 1, order 1 1, order 2 1, order 3 1, after 1"],
    )
    .await;
    // From the finished segment, which has an index, into the one behind it.
    let long = broker.existing_topic(&name("long")).unwrap();
    let options = ChannelOptions::default();
    long.create_channel(&name("replay"), options, Start::Beginning).unwrap();
    check(&broker, ("long", "replay"), 19, expect!["long 00 xxxxxxxxxxxx 1, long 01 xxxxxxxxxxxx 1, long 02 xxxxxxxxxxxx 1, long 03 xxxxxxxxxxxx 1, long 04 xxxxxxxxxxxx 1, long 05 xxxxxxxxxxxx 1, long 06 xxxxxxxxxxxx 1, long 07 xxxxxxxxxxxx 1, long 08 xxxxxxxxxxxx 1, long 09 xxxxxxxxxxxx 1, long 10 xxxxxxxxxxxx 1, long 11 xxxxxxxxxxxx 1, long 12 xxxxxxxxxxxx 1, long 13 xxxxxxxxxxxx 1, long 14 xxxxxxxxxxxx 1, long 15 xxxxxxxxxxxx 1, long 16 xxxxxxxxxxxx 1, long 17 xxxxxxxxxxxx 1, after the index 1"]).await;
    check(&broker, ("long", "done"), 1, expect!["after the index 1"]).await;
    broker.close().await.unwrap();
    let broker = open(&disk.killed(), "2026-11-22T07:00:00Z").await.unwrap();
    check(&broker, ("orders", "audit"), 2, expect!["order 2 2, deferred 1"]).await;
    check(&broker, ("orders", "billing"), 1, expect!["deferred 1"]).await;
}

#[tokio::test]
async fn format_3_opens() {
    let disk = committed(3);
    let broker = open(&disk, "2026-11-22T05:40:00Z").await.unwrap();
    expect![[r#"
        emptied: 5 kept, depth 1, paused true
          behind: depth 2, deferred 0, paused false
          done: depth 0, deferred 0, paused false
          late: depth 0, deferred 0, paused false
    "#]]
    .assert_eq(&shown(&broker));
    broker.existing_topic(&name("emptied")).unwrap().pause(false);
    check(&broker, ("emptied", "behind"), 3, expect!["1 given 1, 2 given 1, 5 after 1"]).await;
    check(&broker, ("emptied", "done"), 1, expect!["5 after 1"]).await;
    check(&broker, ("emptied", "late"), 1, expect!["5 after 1"]).await;
}

/// Makes the newest file of the folder with this ending one of `version`.
fn newer(disk: &Simulated, ending: &str, header: usize, version: u32) -> PathBuf {
    let files = disk.files();
    let (path, bytes) = files.iter().rfind(|it| it.0.to_string_lossy().ends_with(ending)).unwrap();
    let mut bytes = bytes.clone();
    bytes[8..12].copy_from_slice(&version.to_le_bytes());
    let sum = crc32fast::hash(&bytes[..header - 4]);
    bytes[header - 4..header].copy_from_slice(&sum.to_le_bytes());
    disk.put(path, &bytes);
    path.clone()
}

#[tokio::test]
async fn a_newer_format_is_refused_by_its_number() {
    for (ending, header, version) in [(".log", 64, 2), (".journal", 24, 4)] {
        let disk = committed(1);
        let path = newer(&disk, ending, header, version);
        let before = disk.files().remove(&path);
        let error = open(&disk, "2026-11-22T02:00:00Z").await.unwrap_err();
        let told = crate::chain(&error);
        let file = path.file_name().unwrap().to_string_lossy();
        let format = format!("has format {version}, this");
        assert!(told.contains(&*file) && told.contains(&format), "{told}");
        assert_eq!(disk.files().remove(&path), before);
    }
}
