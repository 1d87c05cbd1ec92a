//! Bytes through real sockets under random faults that come and go: all arrive, once and in order.

use crate::support::{self, Rig};
use proptest::{
    collection::vec,
    prelude::{ProptestConfig, Strategy, any, prop_assert, prop_oneof, proptest},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// A line that says a fault which loses nothing.
fn harmless() -> impl Strategy<Value = String> {
    let direction = prop_oneof!["client->server", "server->client", "both"];
    let kind = prop_oneof![
        (0..10_u32, 0..10_u32)
            .prop_map(|(delay, jitter)| format!("latency D delay={delay}ms jitter={jitter}ms")),
        (100..10_000_u32).prop_map(|rate| format!("bandwidth D rate={rate}kB/s")),
        (1..5000_u32).prop_map(|size| format!("slicer D size={size}B delay=10us")),
        (0..10_u32).prop_map(|delay| format!("slow_close D delay={delay}ms")),
    ];
    (kind, direction).prop_map(|(kind, direction)| kind.replace('D', &direction))
}

/// Sends `bytes` in pieces of these sizes, over and over, and then the end.
async fn send(mut stream: impl tokio::io::AsyncWrite + Unpin, bytes: &[u8], sizes: &[usize]) {
    let mut rest = bytes;
    for size in sizes.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at(rest.len().min(*size));
        stream.write_all(piece).await.unwrap();
        rest = after;
    }
    stream.shutdown().await.unwrap();
}

async fn exchange(client: TcpStream, server: TcpStream, sizes: &[usize], length: usize) -> bool {
    let mut random = fastrand::Rng::with_seed(length as u64);
    let there: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length).collect();
    let back: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(length / 2).collect();
    let (mut client_reads, client_writes) = client.into_split();
    let (mut server_reads, server_writes) = server.into_split();
    let (mut at_server, mut at_client) = (Vec::new(), Vec::new());
    let (read_there, read_back, (), ()) = tokio::join!(
        server_reads.read_to_end(&mut at_server),
        client_reads.read_to_end(&mut at_client),
        send(client_writes, &there, sizes),
        send(server_writes, &back, sizes),
    );
    read_there.unwrap();
    read_back.unwrap();
    at_server == there && at_client == back
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn bytes_arrive_intact(
        faults in vec((harmless(), any::<bool>()), 0..6),
        sizes in vec(1..20_000_usize, 1..8),
        length in 0..400_000_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let intact = runtime.block_on(async {
            let rig = Rig::start().await;
            let (client, server) = rig.connect().await;
            let changes = async {
                for (fault, clear) in &faults {
                    rig.set(fault);
                    tokio::time::sleep(std::time::Duration::from_millis(3)).await;
                    if *clear {
                        rig.handle.clear_faults(support::NAME).unwrap();
                    }
                }
            };
            let (intact, ()) = tokio::join!(exchange(client, server, &sizes, length), changes);
            rig.until(|it| it.open == 0).await;
            let seen = rig.statistics();
            rig.stop().await;
            intact && seen.upstream.delivered_bytes == length as u64 && seen.resets == 0
        });
        prop_assert!(intact);
    }
}
