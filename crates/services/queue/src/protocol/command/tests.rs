//! Every command and every refusal of the parser, and that it does not matter where it is cut.

use bytes::{BufMut as _, Bytes, BytesMut};
use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

const GATE: Gate = Gate { state: State::Init, tls_missing: false, heartbeats: true };
const CONSUMES: Gate = Gate { state: State::Subscribed, ..GATE };

fn options() -> Options {
    Options { max_msg_size: 100, max_body_size: 1000, max_rdy_count: 50, ..Options::default() }
}

/// All commands in `stream`, then what is wrong with it or what is missing at its end.
fn parse(stream: &[u8], gate: Gate) -> String {
    let mut parser = Parser::new(&options());
    let mut input = BytesMut::from(stream);
    let mut told = String::new();
    loop {
        match parser.next(&mut input, gate) {
            Ok(Some(command)) => told += &format!("{command:?}\n"),
            Ok(None) => {
                if let Some(fault) = parser.truncated(input.len()) {
                    told += &format!("then {fault:?}\n");
                }
                return told;
            }
            Err(broken) => return told + &format!("{broken:?}\n"),
        }
    }
}

fn check(stream: &[u8], gate: Gate, expected: Expect) {
    expected.assert_eq(&parse(stream, gate));
}

fn sized(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat()
}

#[test]
fn commands_without_body() {
    check(
        b"SUB t c#ephemeral\r\nNOP\nSUB t c more words\n",
        GATE,
        expect![[r#"
            Sub { topic: `t`, channel: `c#ephemeral` }
            Nop
            Sub { topic: `t`, channel: `c` }
        "#]],
    );
    check(
        b"RDY 5\nRDY\nRDY \nFIN 0123456789abcdef\nREQ 0123456789abcdef 10\nTOUCH 0123456789abcdef\nCLS\n",
        CONSUMES,
        expect![[r#"
            Rdy(5)
            Rdy(1)
            Rdy(0)
            Fin(0123456789abcdef)
            Req(0123456789abcdef, 10ms)
            Touch(0123456789abcdef)
            Cls
        "#]],
    );
    // A requeue that is too long is shortened; after CLS, RDY is ignored whatever it says.
    check(
        b"REQ 0123456789abcdef 99999999999\n",
        CONSUMES,
        expect![[r#"
        Req(0123456789abcdef, 3600s)
    "#]],
    );
    let closing = Gate { state: State::Closing, ..GATE };
    check(
        b"RDY x\n",
        closing,
        expect![[r#"
        Rdy(1)
    "#]],
    );
}

#[test]
fn commands_with_body() {
    let stream = [
        &b"IDENTIFY\n\0\0\0\x02{}AUTH\n\0\0\0\x01s"[..],
        b"PUB t\n\0\0\0\x01aPUB t key=k\n\0\0\0\x01bPUB t whatever\n\0\0\0\x01c",
        b"DPUB t 1500\n\0\0\0\x01d",
        b"MPUB t\n\0\0\0\x0f\0\0\0\x02\0\0\0\x01e\0\0\0\x02fg",
    ];
    check(
        &stream.concat(),
        GATE,
        expect![[r#"
        Identify(b"{}")
        Auth(b"s")
        Publish { verb: Pub, topic: `t`, messages: [NewMessage { body: b"a", delay: 0ns, key: None }] }
        Publish { verb: Pub, topic: `t`, messages: [NewMessage { body: b"b", delay: 0ns, key: Some(b"k") }] }
        Publish { verb: Pub, topic: `t`, messages: [NewMessage { body: b"c", delay: 0ns, key: None }] }
        Publish { verb: Dpub, topic: `t`, messages: [NewMessage { body: b"d", delay: 1.5s, key: None }] }
        Publish { verb: Mpub, topic: `t`, messages: [NewMessage { body: b"e", delay: 0ns, key: None }, NewMessage { body: b"fg", delay: 0ns, key: None }] }
    "#]],
    );
}

#[test]
fn refusals_are_those_of_the_original() {
    let cases: &[(&[u8], Gate)] = &[
        (b"ASDF x\n", GATE),
        (b"\n\n", GATE),
        (b"SUB t\n", GATE),
        (b"SUB t:x c\n", GATE),
        (b"SUB t c\xff\n", GATE),
        (b"SUB t c\n", CONSUMES),
        (b"SUB t c\n", Gate { heartbeats: false, ..GATE }),
        (b"PUB t\n", Gate { tls_missing: true, ..GATE }),
        (b"RDY 1\n", GATE),
        (b"RDY 51\n", CONSUMES),
        (b"RDY -1\n", CONSUMES),
        (b"RDY 18446744073709551615\n", CONSUMES),
        (b"FIN 0123456789abcdef\n", GATE),
        (b"FIN\n", CONSUMES),
        (b"FIN \n", CONSUMES),
        (b"FIN 0123456789abcdef0\n", CONSUMES),
        (b"REQ 0123456789abcdef\n", CONSUMES),
        (b"REQ 0123456789abcdef 1s\n", CONSUMES),
        (b"TOUCH\n", CONSUMES),
        (b"CLS\n", GATE),
        (b"IDENTIFY\n", CONSUMES),
        (b"AUTH\n", CONSUMES),
        (b"AUTH secret\n", GATE),
        (b"PUB\n", GATE),
        (b"PUB bad/name\n", GATE),
        (b"MPUB bad/name\n", GATE),
        (b"DPUB t\n", GATE),
        (b"DPUB t 3600100\n", GATE),
        (b"DPUB t x\n", GATE),
    ];
    let told: String = cases.iter().map(|(stream, gate)| parse(stream, *gate)).collect();
    expect![[r#"
        Fault(E_INVALID invalid command ASDF (fatal: true))
        Fault(E_INVALID invalid command  (fatal: true))
        Fault(E_INVALID SUB insufficient number of parameters (fatal: true))
        Fault(E_BAD_TOPIC SUB topic name "t:x" is not valid (fatal: true))
        Fault(E_BAD_CHANNEL SUB channel name "c\xff" is not valid (fatal: true))
        Fault(E_INVALID cannot SUB in current state (fatal: true))
        Fault(E_INVALID cannot SUB with heartbeats disabled (fatal: true))
        Fault(E_INVALID cannot PUB in current state (TLS required) (fatal: true))
        Fault(E_INVALID cannot RDY in current state (fatal: true))
        Fault(E_INVALID RDY count 51 out of range 0-50 (fatal: true))
        Fault(E_INVALID RDY could not parse count -1 (fatal: true))
        Fault(E_INVALID RDY count -1 out of range 0-50 (fatal: true))
        Fault(E_INVALID cannot FIN in current state (fatal: true))
        Fault(E_INVALID FIN insufficient number of params (fatal: true))
        Fault(E_INVALID invalid message ID (fatal: true))
        Fault(E_INVALID invalid message ID (fatal: true))
        Fault(E_INVALID REQ insufficient number of params (fatal: true))
        Fault(E_INVALID REQ could not parse timeout 1s (fatal: true))
        Fault(E_INVALID TOUCH insufficient number of params (fatal: true))
        Fault(E_INVALID cannot CLS in current state (fatal: true))
        Fault(E_INVALID cannot IDENTIFY in current state (fatal: true))
        Fault(E_INVALID cannot AUTH in current state (fatal: true))
        Fault(E_INVALID AUTH invalid number of parameters (fatal: true))
        Fault(E_INVALID PUB insufficient number of parameters (fatal: true))
        Fault(E_BAD_TOPIC PUB topic name "bad/name" is not valid (fatal: true))
        Fault(E_BAD_TOPIC E_BAD_TOPIC MPUB topic name "bad/name" is not valid (fatal: true))
        Fault(E_INVALID DPUB insufficient number of parameters (fatal: true))
        Fault(E_INVALID DPUB timeout 3600100 out of range 0-3600000 (fatal: true))
        Fault(E_INVALID DPUB could not parse timeout x (fatal: true))
    "#]]
    .assert_eq(&told);
}

#[test]
fn sizes_are_those_of_the_original() {
    let cases: &[&[u8]] = &[
        b"PUB t\n\0\0\0\0",
        b"PUB t\n\0\0\0\x65",
        b"PUB t\n\xff\xff\xff\xff",
        b"PUB t\n\x7f\xff\xff\xff",
        b"DPUB t 1\n\0\0\0\x65",
        b"DPUB t 1\n\0\0\0\0",
        b"IDENTIFY\n\0\0\0\0",
        b"IDENTIFY\n\0\x01\0\0",
        b"AUTH\n\xff\xff\xff\xff",
        b"AUTH\n\0\x01\0\0",
        b"MPUB t\n\0\0\0\0",
        b"MPUB t\n\0\x01\0\0",
        b"MPUB t\n\0\0\0\x0a\0\0\0\0",
        b"MPUB t\n\0\0\0\x0a\0\0\0\xc8",
        b"MPUB t\n\0\0\0\x0a\0\0\0\x02\0\0\0\x01a\0\0\0\0",
        b"MPUB t\n\0\0\0\xff\0\0\0\x02\0\0\0\x01a\0\0\0\x65",
        b"MPUB t\n\0\0\0\x0a\0\0\0\x01\0\0\0\x03",
        // Cut off.
        b"PUB t\n\0\0\0",
        b"PUB t\n\0\0\0\x02a",
        b"IDENTIFY\n",
        b"AUTH\n\0\0\0\x02a",
        b"MPUB t\n\0",
        b"MPUB t\n\0\0\0\x1a\0",
        b"MPUB t\n\0\0\0\x1a\0\0\0\x02\0\0\0\x01a\0",
        b"MPUB t\n\0\0\0\x1a\0\0\0\x02\0\0\0\x02a",
        b"NO",
    ];
    let told: String = cases.iter().map(|stream| parse(stream, GATE)).collect();
    expect![[r#"
        Fault(E_BAD_MESSAGE PUB invalid message body size 0 (fatal: true))
        Fault(E_BAD_MESSAGE PUB message too big 101 > 100 (fatal: true))
        Fault(E_BAD_MESSAGE PUB invalid message body size -1 (fatal: true))
        Fault(E_BAD_MESSAGE PUB message too big 2147483647 > 100 (fatal: true))
        Fault(E_BAD_MESSAGE DPUB message too big 101 > 100 (fatal: true))
        Fault(E_BAD_MESSAGE DPUB invalid message body size 0 (fatal: true))
        Fault(E_BAD_BODY IDENTIFY invalid body size 0 (fatal: true))
        Fault(E_BAD_BODY IDENTIFY body too big 65536 > 1000 (fatal: true))
        Fault(E_BAD_BODY AUTH invalid body size -1 (fatal: true))
        Fault(E_BAD_BODY AUTH body too big 65536 > 1000 (fatal: true))
        Fault(E_BAD_BODY MPUB invalid body size 0 (fatal: true))
        Fault(E_BAD_BODY MPUB body too big 65536 > 1000 (fatal: true))
        Fault(E_BAD_BODY MPUB invalid message count 0 (fatal: true))
        Fault(E_BAD_BODY MPUB invalid message count 200 (fatal: true))
        Fault(E_BAD_MESSAGE MPUB invalid message(1) body size 0 (fatal: true))
        Fault(E_BAD_MESSAGE MPUB message too big 101 > 100 (fatal: true))
        Fault(E_BAD_BODY MPUB messages are larger than the body (fatal: true))
        then E_BAD_MESSAGE PUB failed to read message body size (fatal: true)
        then E_BAD_MESSAGE PUB failed to read message body (fatal: true)
        then E_BAD_BODY IDENTIFY failed to read body size (fatal: true)
        then E_BAD_BODY AUTH failed to read body (fatal: true)
        then E_BAD_BODY MPUB failed to read body size (fatal: true)
        then E_BAD_BODY MPUB failed to read message count (fatal: true)
        then E_BAD_MESSAGE MPUB failed to read message(1) body size (fatal: true)
        then E_BAD_MESSAGE MPUB failed to read message body (fatal: true)
    "#]]
    .assert_eq(&told);
}

#[test]
fn a_line_without_end_is_hung_up_on() {
    let longest = [&vec![b' '; LINE_MAX - 1][..], b"\n"].concat();
    assert!(parse(&longest, GATE).starts_with("Fault(E_INVALID invalid command"));
    assert_eq!(parse(&[b'x'; LINE_MAX], GATE), "Line\n");
    assert_eq!(parse(&[&[b'x'; LINE_MAX][..], b"\n"].concat(), GATE), "Line\n");
    assert_eq!(parse(&[b'x'; LINE_MAX - 1], GATE), "");
}

#[test]
fn bodies_share_the_memory_they_were_read_into() {
    let mut input = BytesMut::from(&b"PUB t\n\0\0\0\x04bodyNOP\n"[..]);
    let memory = input.as_ptr() as usize;
    let command = Parser::new(&options()).next(&mut input, GATE).unwrap();
    let Some(Command::Publish { messages, .. }) = command else { panic!("{command:?}") };
    assert_eq!(messages[0].body.as_ptr() as usize, memory + 10);
}

/// A command as a client writes it.
fn written(command: &Command, stream: &mut BytesMut) {
    match command {
        Command::Identify(body) => stream.put_slice(&[b"IDENTIFY\n", &sized(body)[..]].concat()),
        Command::Auth(body) => stream.put_slice(&[b"AUTH\n", &sized(body)[..]].concat()),
        Command::Sub { topic, channel } => {
            stream.put_slice(format!("SUB {topic} {channel}\n").as_bytes());
        }
        Command::Rdy(count) => stream.put_slice(format!("RDY {count}\n").as_bytes()),
        Command::Fin(id) => stream.put_slice(format!("FIN {id}\n").as_bytes()),
        Command::Req(id, delay) => {
            stream.put_slice(format!("REQ {id} {}\n", delay.as_millis()).as_bytes());
        }
        Command::Touch(id) => stream.put_slice(format!("TOUCH {id}\n").as_bytes()),
        Command::Cls => stream.put_slice(b"CLS\n"),
        Command::Nop => stream.put_slice(b"NOP\n"),
        Command::Publish { verb: Verb::Mpub, topic, messages } => {
            let count = u32::try_from(messages.len()).unwrap().to_be_bytes().to_vec();
            let bodies = messages.iter().map(|it| sized(&it.body));
            let batch: Vec<u8> = std::iter::once(count).chain(bodies).flatten().collect();
            stream.put_slice(format!("MPUB {topic}\n").as_bytes());
            stream.put_slice(&sized(&batch));
        }
        Command::Publish { verb, topic, messages } => {
            let message = &messages[0];
            stream.put_slice(format!("{} {topic}", verb.as_str()).as_bytes());
            if *verb == Verb::Dpub {
                stream.put_slice(format!(" {}", message.delay.as_millis()).as_bytes());
            }
            if let Some(key) = &message.key {
                stream.put_slice(b" key=");
                stream.put_slice(key);
            }
            stream.put_slice(b"\n");
            stream.put_slice(&sized(&message.body));
        }
    }
}

fn any_command() -> impl Strategy<Value = (Command, Gate)> {
    let name = "[a-z._-]{1,20}(#ephemeral)?".prop_map(|it| Name::parse(&it).unwrap());
    let id = any::<[u8; 8]>().prop_map(|it| {
        MessageId(std::array::from_fn(|at| b"0123456789abcdef"[usize::from(it[at / 2] % 16)]))
    });
    let body = proptest::collection::vec(any::<u8>(), 1..100).prop_map(Bytes::from);
    let delay = (0..=3_600_000u64).prop_map(Duration::from_millis);
    let key = proptest::option::of("[a-z0-9]{1,20}".prop_map(Bytes::from));
    let bodies = proptest::collection::vec(body.clone(), 1..5);
    let init = prop_oneof![
        body.clone().prop_map(Command::Identify),
        body.clone().prop_map(Command::Auth),
        (name.clone(), name.clone()).prop_map(|(topic, channel)| Command::Sub { topic, channel }),
        (name.clone(), body.clone(), key).prop_map(|(topic, body, key)| Command::Publish {
            verb: Verb::Pub,
            topic,
            messages: vec![NewMessage { key, ..NewMessage::new(body) }],
        }),
        (name.clone(), body, delay.clone()).prop_map(|(topic, body, delay)| Command::Publish {
            verb: Verb::Dpub,
            topic,
            messages: vec![NewMessage { delay, ..NewMessage::new(body) }],
        }),
        (name, bodies).prop_map(|(topic, bodies)| Command::Publish {
            verb: Verb::Mpub,
            topic,
            messages: bodies.into_iter().map(NewMessage::new).collect(),
        }),
    ];
    let later = prop_oneof![
        (0..=50u32).prop_map(Command::Rdy),
        id.clone().prop_map(Command::Fin),
        (id.clone(), delay).prop_map(|(id, delay)| Command::Req(id, delay)),
        id.prop_map(Command::Touch),
        Just(Command::Cls),
        Just(Command::Nop),
    ];
    prop_oneof![init.prop_map(|it| (it, GATE)), later.prop_map(|it| (it, CONSUMES))]
}

/// What the parser makes of `stream` when it arrives in pieces that end at `cuts`.
fn in_pieces(stream: &[u8], cuts: &[usize], gate: Gate) -> (Vec<Command>, Option<Broken>) {
    let (mut parser, mut input) = (Parser::new(&options()), BytesMut::new());
    let (mut commands, mut from) = (Vec::new(), 0);
    let mut cuts: Vec<usize> = cuts.iter().map(|it| it % (stream.len() + 1)).collect();
    cuts.extend([0, stream.len()]);
    cuts.sort_unstable();
    for cut in cuts {
        input.extend_from_slice(&stream[from..cut]);
        from = cut;
        loop {
            match parser.next(&mut input, gate) {
                Ok(Some(command)) => commands.push(command),
                Ok(None) => break,
                Err(broken) => return (commands, Some(broken)),
            }
        }
    }
    (commands, None)
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        all in proptest::collection::vec(any_command(), 1..10),
        cuts in proptest::collection::vec(any::<usize>(), 0..20),
    ) {
        for gate in [GATE, CONSUMES] {
            let these: Vec<Command> =
                all.iter().filter(|it| it.1.state == gate.state).map(|it| it.0.clone()).collect();
            let mut stream = BytesMut::new();
            these.iter().for_each(|it| written(it, &mut stream));
            prop_assert_eq!(in_pieces(&stream, &cuts, gate), (these, None));
        }
    }

    #[test]
    fn anything_may_come_and_be_cut_anywhere(
        garbage in proptest::collection::vec(prop_oneof![
            any::<Vec<u8>>(),
            any_command().prop_map(|it| {
                let mut stream = BytesMut::new();
                written(&it.0, &mut stream);
                stream.to_vec()
            }),
            "(PUB|MPUB|DPUB|SUB|RDY|FIN|REQ|AUTH|IDENTIFY)[ a0-9]{0,9}\n".prop_map(String::into_bytes),
        ], 0..8),
        cuts in proptest::collection::vec(any::<usize>(), 0..20),
        subscribed in any::<bool>(),
    ) {
        let gate = if subscribed { CONSUMES } else { GATE };
        let stream = garbage.concat();
        prop_assert_eq!(in_pieces(&stream, &cuts, gate), in_pieces(&stream, &[], gate));
    }
}
