//! Tests of the registry: what the original's own tests say, and that entries are counted right.

use proptest::prelude::*;

use super::*;

const LIFETIMES: Lifetimes =
    Lifetimes { inactive: Duration::from_secs(300), tombstone: Duration::from_secs(45) };

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

/// So many seconds after the beginning.
fn at(start: Instant, seconds: u64) -> Moment {
    let instant = start + Duration::from_secs(seconds);
    Moment { instant, wall: Nanos(i64::try_from(seconds).unwrap() * 1_000_000_000) }
}

fn info(host: &str) -> PeerInfo {
    PeerInfo {
        broadcast_address: host.to_owned(),
        hostname: host.to_owned(),
        tcp_port: 4150,
        http_port: 4151,
        version: "1.3.0".to_owned(),
        ..PeerInfo::default()
    }
}

struct World {
    registry: Registry,
    start: Instant,
}

impl World {
    fn new() -> Self {
        Self { registry: Registry::new(LIFETIMES), start: Instant::now() }
    }

    fn joins(&mut self, host: &str, source: Source) -> ProducerId {
        let id = ProducerId::new(&format!("{host}:{source:?}"));
        self.registry.identify(&id, info(host), source, at(self.start, 0));
        id
    }

    fn registers(&mut self, host: &str) -> ProducerId {
        self.joins(host, Source::Registered(IpAddr::from([10, 0, 0, 1])))
    }

    fn producers(&self, topic: &str, seconds: u64) -> Vec<String> {
        let found = self.registry.lookup(topic, at(self.start, seconds)).unwrap();
        found.producers.into_iter().map(|it| it.broadcast_address).collect()
    }
}

#[test]
fn a_topic_outlives_its_producers() {
    let mut world = World::new();
    let id = world.registers("a");
    world.registry.register(&id, &name("t"), Some(&name("c"))).unwrap();
    assert_eq!(world.producers("t", 0), ["a"]);
    assert_eq!(world.registry.channels("t"), [name("c")]);
    world.registry.leave(&id);
    assert!(world.producers("t", 0).is_empty());
    assert_eq!(world.registry.channels("t"), [name("c")]);
    assert_eq!(world.registry.lookup("u", at(world.start, 0)), None);
}

#[test]
fn what_was_deleted_is_not_learnt_again_at_once() {
    let mut world = World::new();
    let (found, registered) = (world.joins("a", Source::Found), world.registers("b"));
    let (topic, channels) = (name("t"), [name("c"), name("d")]);
    let has = Topics::from([(topic.clone(), channels.clone().into())]);
    let (then, soon, later) =
        (at(world.start, 0), at(world.start, 4), at(world.start, DELETED_FOR.as_secs()));
    let registry = &mut world.registry;
    registry.replace(&found, &has, then).unwrap();
    assert!(registry.delete_channel(&topic, &channels[0], then));
    registry.replace(&found, &has, soon).unwrap();
    assert_eq!(registry.channels("t"), channels[1..]);
    registry.delete_topic("t", then);
    registry.replace(&found, &has, soon).unwrap();
    assert!(registry.topics().is_empty() && registry.channels("t").is_empty());
    // Who says so itself is believed.
    registry.register(&registered, &topic, None).unwrap();
    assert_eq!(registry.topics(), std::slice::from_ref(&topic));
    registry.delete_topic("t", then);
    registry.replace(&found, &has, later).unwrap();
    assert_eq!((registry.topics(), registry.channels("t")), (vec![topic.clone()], channels.into()));
    registry.delete_topic("t", later);
    registry.create_topic(&topic).unwrap();
    registry.replace(&found, &has, later).unwrap();
    let found = registry.lookup("t", later).unwrap();
    assert_eq!((found.producers.len(), found.channels.len()), (1, 2));
}

#[test]
fn what_is_ephemeral_goes_with_its_last_producer() {
    let mut world = World::new();
    let (a, b) = (world.registers("a"), world.registers("b"));
    let (topic, channel) = (name("t"), name("c#ephemeral"));
    world.registry.register(&a, &topic, Some(&channel)).unwrap();
    world.registry.register(&b, &topic, Some(&channel)).unwrap();
    world.registry.unregister(&a, &topic, Some(&channel));
    assert_eq!(world.registry.channels("t").len(), 1);
    world.registry.unregister(&b, &topic, Some(&channel));
    assert!(world.registry.channels("t").is_empty());
    assert_eq!(world.producers("t", 0), ["a", "b"]);
    let topic = name("u#ephemeral");
    world.registry.register(&a, &topic, None).unwrap();
    world.registry.unregister(&a, &topic, None);
    assert_eq!(world.registry.topics(), [name("t")]);
}

#[test]
fn to_unregister_a_topic_is_to_unregister_its_channels() {
    let mut world = World::new();
    let id = world.registers("a");
    world.registry.register(&id, &name("t"), Some(&name("c"))).unwrap();
    world.registry.unregister(&id, &name("t"), None);
    assert!(world.producers("t", 0).is_empty());
    assert_eq!(world.registry.debug().keys().collect::<Vec<_>>(), ["client::"]);
}

#[test]
fn a_tombstone_hides_for_a_while_and_for_one_topic() {
    let mut world = World::new();
    let id = world.registers("a");
    world.registry.register(&id, &name("t"), None).unwrap();
    world.registry.register(&id, &name("u"), None).unwrap();
    world.registry.tombstone("t", "a:4150", at(world.start, 10));
    assert_eq!(world.producers("t", 10), ["a"], "that is not its HTTP");
    world.registry.tombstone("t", "a:4151", at(world.start, 10));
    assert!(world.producers("t", 54).is_empty());
    assert_eq!(world.producers("u", 54), ["a"]);
    let nodes = world.registry.nodes(at(world.start, 54));
    assert_eq!(nodes[0].tombstones, [true, false]);
    assert_eq!(world.producers("t", 55), ["a"]);
    // Registered anew, the tombstone is gone.
    world.registry.tombstone("t", "a:4151", at(world.start, 60));
    world.registry.unregister(&id, &name("t"), None);
    world.registry.register(&id, &name("t"), None).unwrap();
    assert_eq!(world.producers("t", 60), ["a"]);
}

#[test]
fn a_silent_producer_is_not_given_out() {
    let mut world = World::new();
    let id = world.registers("a");
    world.registry.register(&id, &name("t"), None).unwrap();
    assert_eq!(world.producers("t", 300), ["a"]);
    assert!(world.producers("t", 301).is_empty());
    assert!(world.registry.nodes(at(world.start, 301)).is_empty());
    world.registry.ping(&id, at(world.start, 301));
    assert_eq!(world.producers("t", 601), ["a"]);
}

#[test]
fn a_star_is_every_topic() {
    let mut world = World::new();
    let (a, b) = (world.registers("a"), world.registers("b"));
    world.registry.register(&a, &name("t"), Some(&name("c"))).unwrap();
    world.registry.register(&a, &name("u"), Some(&name("c"))).unwrap();
    world.registry.register(&b, &name("u"), None).unwrap();
    assert_eq!(world.producers("*", 0), ["a", "b"]);
    assert_eq!(world.registry.channels("*"), [name("c"), name("c")]);
    world.registry.delete_topic("*", at(world.start, 0));
    assert_eq!(world.registry.lookup("*", at(world.start, 0)), None);
    assert!(world.registry.channels("*").is_empty());
}

#[test]
fn one_that_was_found_is_not_shown_beside_itself() {
    let mut world = World::new();
    let found = world.joins("10.0.0.1", Source::Found);
    world.registry.register(&found, &name("t"), None).unwrap();
    assert_eq!(world.producers("t", 0), ["10.0.0.1"]);
    // The same nsqd, which calls itself by a name.
    let registered = world.registers("pod-a");
    world.registry.register(&registered, &name("t"), None).unwrap();
    assert_eq!(world.producers("t", 0), ["pod-a"]);
    assert_eq!(world.registry.nodes(at(world.start, 0)).len(), 1);
    world.registry.leave(&registered);
    assert_eq!(world.producers("t", 0), ["10.0.0.1"]);
}

/// What a producer may do.
#[derive(Clone, Debug)]
enum Move {
    Register(usize, usize, Option<usize>),
    Unregister(usize, usize, Option<usize>),
    Replace(usize, Vec<(usize, usize)>),
    Leave(usize),
    DeleteTopic(usize),
    DeleteChannel(usize, usize),
    Create(usize, usize),
}

fn any_move() -> impl Strategy<Value = Move> {
    let (id, topic, channel) = (0..3_usize, 0..3_usize, 0..3_usize);
    let perhaps = proptest::option::of(channel.clone());
    let pairs = proptest::collection::vec((topic.clone(), channel.clone()), 0..4);
    prop_oneof![
        (id.clone(), topic.clone(), perhaps.clone()).prop_map(|(a, b, c)| Move::Register(a, b, c)),
        (id.clone(), topic.clone(), perhaps).prop_map(|(a, b, c)| Move::Unregister(a, b, c)),
        (id.clone(), pairs).prop_map(|(a, b)| Move::Replace(a, b)),
        id.prop_map(Move::Leave),
        topic.clone().prop_map(Move::DeleteTopic),
        (topic.clone(), channel.clone()).prop_map(|(a, b)| Move::DeleteChannel(a, b)),
        (topic, channel).prop_map(|(a, b)| Move::Create(a, b)),
    ]
}

proptest! {
    #[test]
    fn entries_are_counted(moves in proptest::collection::vec(any_move(), 0..60)) {
        let topics = [name("a"), name("b"), name("c#ephemeral")];
        let channels = [name("x"), name("y"), name("z#ephemeral")];
        let mut world = World::new();
        let of_registered = ["1", "2"].map(|it| world.registers(it));
        let [one, two] = of_registered;
        let ids = [one, two, world.joins("3", Source::Found)];
        let registry = &mut world.registry;
        for (step, it) in (1..).zip(moves) {
            // What was deleted in the step before may be learnt again.
            let now = at(world.start, step * DELETED_FOR.as_secs());
            match it {
                Move::Register(id, topic, channel) => {
                    let channel = channel.map(|it| &channels[it]);
                    registry.register(&ids[id], &topics[topic], channel).unwrap();
                }
                Move::Unregister(id, topic, channel) => {
                    let channel = channel.map(|it| &channels[it]);
                    registry.unregister(&ids[id], &topics[topic], channel);
                }
                Move::Replace(id, wanted) => {
                    let mut all = Topics::new();
                    for (topic, channel) in wanted {
                        let of_topic = all.entry(topics[topic].clone()).or_default();
                        of_topic.insert(channels[channel].clone());
                    }
                    registry.replace(&ids[id], &all, now).unwrap();
                    let mut has = Topics::new();
                    for (topic, _) in registry.topics.iter().filter(|it| it.1.contains_key(&ids[id])) {
                        has.entry(topic.clone()).or_default();
                    }
                    for ((topic, it), _) in registry.channels.iter().filter(|it| it.1.contains_key(&ids[id])) {
                        has.entry(topic.clone()).or_default().insert(it.clone());
                    }
                    prop_assert_eq!(has, all);
                }
                Move::Leave(id) => registry.leave(&ids[id]),
                Move::DeleteTopic(topic) => registry.delete_topic(topics[topic].as_str(), now),
                Move::DeleteChannel(topic, channel) => {
                    registry.delete_channel(&topics[topic], &channels[channel], now);
                }
                Move::Create(topic, channel) => {
                    registry.create_channel(&topics[topic], &channels[channel]).unwrap();
                }
            }
            let maps = registry.topics.values().chain(registry.channels.values());
            prop_assert_eq!(registry.entries, maps.map(|it| 1 + it.len()).sum::<usize>());
        }
    }
}
