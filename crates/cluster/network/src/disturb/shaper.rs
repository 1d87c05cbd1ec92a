//! The thread through which shaped packets go: it takes frames from a link that leads nowhere else, has
//! them wait, and gives them to the links of pods.
//!
//! The link's other end is in a network namespace that only this thread's socket keeps. So when the process
//! dies, however it does, the link goes, and with it every route over it; then packets go as ever.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd as _, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto,
        socket_with, sockopt,
    },
    time::{ClockId, clock_gettime},
};

use super::{
    frame::{self, FRAME_MAX},
    line::{Dice, Fate, Line, Order, Shape, Time},
    plan::MARK_SHIFT,
    queue::{Queue, Waiting},
};
use crate::{
    netlink::{
        Doing, Error, modules,
        route::{Detour, Mac, Routing, Veth},
    },
    pods::{self, End},
    sys::{self, LinkAddress},
    sysctl,
};

/// Name of the link that packets are routed over, and of its other end.
const LINK: &str = "chaos";
const FAR_LINK: &str = "far";
/// Their indices, which must differ, see `make_pair` of pods: this one is beyond those of pods.
const LINK_INDEX: u32 = 0x00C4_A050;
const FAR_LINK_INDEX: u32 = 2;
/// Number of the table of routes for the mark 0; that for any other follows.
const FIRST_TABLE: u32 = 0x00C4_0000;
/// Next hops are addresses that nobody has, of those for a single link (RFC 3927, RFC 4291).
const FIRST_HOP: Ipv4Addr = Ipv4Addr::new(169, 254, 0, 0);
const FIRST_HOP_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);
/// What the frames of shaped packets come from, and with the mark at the end what they go to before the
/// shaper knows better: locally administered addresses.
const MAC: Mac = [0x02, 0xc4, 0xa0, 0x50, 0, 0];

/// The same chance in every process: a run that is repeated is as alike as it can be.
const SEED: u64 = 0xC4A0_5000;
/// Frames that are received before it is looked what is due.
const RECEIVED_AT_ONCE: usize = 64;
/// Longest wait for a frame to be due, so that the kernel can count it.
const WAIT_MAX: Duration = Duration::from_hours(1);
/// Frames that wait for this thread: some milliseconds at a gigabit. Only who is privileged on the host gets
/// it; others have what `net.core.rmem_max` allows.
const RECEIVE_BUFFER: usize = 8 << 20;

/// Gives shaped packets to pods; ends when dropped, and what waits is then sent at once.
#[derive(Debug)]
pub(super) struct Shaper {
    shared: Arc<Shared>,
    /// Nothing only while it is dropped.
    thread: Option<JoinHandle<()>>,
    /// The marks that lead here.
    classes: BTreeSet<u16>,
}

#[derive(Debug)]
struct Shared {
    ways: Mutex<Ways>,
    /// Readable when the thread has to look at the ways.
    wake: OwnedFd,
}

#[derive(Debug, Default)]
struct Ways {
    /// Where packets can go, by address.
    to: BTreeMap<Ipv4Addr, Way>,
    is_changed: bool,
    is_over: bool,
}

#[derive(Debug)]
struct Way {
    end: End,
    /// What happens to packets whose mark has one of the bits.
    lines: Vec<(u16, Line)>,
}

/// What the thread has.
#[derive(Debug)]
struct Worker {
    /// Dropped first: while the namespace of its other end goes too, its removal takes longer.
    _link: Pair,
    shared: Arc<Shared>,
    incoming: OwnedFd,
    outgoing: OwnedFd,
    queue: Queue,
    order: Order,
    dice: Dice,
    buffer: Vec<u8>,
}

impl Shaper {
    /// Makes the link and starts the thread. Nothing leads to it yet.
    pub(super) fn start() -> Result<Self, Error> {
        let mut here = Routing::open()?;
        remove(&mut here)?;
        let (netns, incoming, mut far) = namespace()?;
        let link = Pair::make(&mut here, &netns)?;
        here.send_single_packets(LINK_INDEX)?;
        here.set_up(LINK_INDEX, None)?;
        far.set_up(FAR_LINK_INDEX, None)?;
        pods::wait_until_running(&mut here, LINK)?;
        let listening =
            bind(&incoming, &LinkAddress { link: FAR_LINK_INDEX, protocol: frame::ANYTHING });
        listening.doing(|| format!("receive what comes over link `{LINK}`"))?;
        let outgoing = packet_socket()?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let wake = wake.doing(|| "make an eventfd".to_owned())?;
        let shared = Arc::new(Shared { ways: Mutex::default(), wake });
        let worker = Worker {
            _link: link,
            shared: Arc::clone(&shared),
            incoming,
            outgoing,
            queue: Queue::default(),
            order: Order::default(),
            dice: Dice::new(SEED),
            buffer: vec![0; FRAME_MAX],
        };
        let thread = thread::Builder::new().name("shaper".to_owned()).spawn(move || {
            if let Err(error) = worker.run() {
                tracing::warn!(%error, "packets are not shaped any more");
            }
        });
        let thread = Some(thread.doing(|| "start a thread".to_owned())?);
        Ok(Self { shared, thread, classes: BTreeSet::new() })
    }

    /// Whether it has ended by itself.
    pub(super) fn is_broken(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Has packets to these ends be treated so. What waits for an end that is not shaped any more is sent
    /// at once, and what waits for one that is not here is lost.
    pub(super) fn update(
        &self,
        effects: &BTreeMap<Ipv4Addr, Vec<(u16, Shape)>>,
        ends: BTreeMap<Ipv4Addr, End>,
    ) -> Result<(), Error> {
        let mut ways = self.shared.ways();
        let mut before = std::mem::take(&mut ways.to);
        for (address, end) in ends {
            let mut known = before.remove(&address).map(|it| it.lines).unwrap_or_default();
            let shapes = effects.get(&address).into_iter().flatten();
            let lines = shapes.map(|&(bits, shape)| {
                // One that goes on keeps what it has let in.
                let place = known.iter().position(|it| it.1.is_of(shape));
                let line = place.map(|it| known.swap_remove(it).1);
                (bits, line.unwrap_or_else(|| Line::new(shape)))
            });
            let lines = lines.collect();
            ways.to.insert(address, Way { end, lines });
        }
        ways.is_changed = true;
        // Before the thread can see that, so that it finds both together.
        let woken = self.shared.wake();
        drop(ways);
        woken.doing(|| "wake the shaper".to_owned())
    }

    /// Has packets with these marks come here, of the families of what local senders use.
    pub(super) fn lead(
        &mut self,
        classes: &BTreeSet<u16>,
        sources: &[IpAddr],
    ) -> Result<(), Error> {
        let mut routing = Routing::open()?;
        for class in classes {
            if self.classes.contains(class) {
                continue;
            }
            let [high, low] = class.to_be_bytes();
            let [a, b, c, d, ..] = MAC;
            let number = u32::from(*class);
            for &source in sources {
                let via = match source {
                    IpAddr::V4(_) => Ipv4Addr::from_bits(FIRST_HOP.to_bits() + number).into(),
                    IpAddr::V6(_) => {
                        Ipv6Addr::from_bits(FIRST_HOP_V6.to_bits() + u128::from(number)).into()
                    }
                };
                routing.add_detour(Detour {
                    mark: number << MARK_SHIFT,
                    table: FIRST_TABLE + number,
                    link: LINK_INDEX,
                    via,
                    mac: [a, b, c, d, high, low],
                    source,
                })?;
            }
            self.classes.insert(*class);
        }
        Ok(())
    }

    /// Has packets with other marks than these not come here.
    pub(super) fn lead_no_others(&mut self, classes: &BTreeSet<u16>) -> Result<(), Error> {
        if self.classes.is_subset(classes) {
            return Ok(());
        }
        Routing::open()?.remove_detours(|table| {
            let class = table.checked_sub(FIRST_TABLE).and_then(|it| u16::try_from(it).ok());
            class.is_some_and(|it| classes.contains(&it))
        })?;
        self.classes.retain(|it| classes.contains(it));
        Ok(())
    }
}

impl Drop for Shaper {
    fn drop(&mut self) {
        self.shared.ways().is_over = true;
        if let Err(error) = self.shared.wake() {
            tracing::warn!(%error, "the shaper does not end");
            return;
        }
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::warn!("the shaper panicked");
        }
    }
}

/// Removes what there may be of an earlier process or thread.
pub(super) fn remove(routing: &mut Routing) -> Result<(), Error> {
    routing.remove_link(LINK)?;
    routing.remove_detours(|_| false)
}

impl Shared {
    fn ways(&self) -> MutexGuard<'_, Ways> {
        // Each of its changes is complete before anything can panic.
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) -> io::Result<()> {
        rustix::io::write(&self.wake, &1_u64.to_ne_bytes())?;
        Ok(())
    }
}

/// The link, until this is dropped.
#[derive(Debug)]
struct Pair;

impl Pair {
    fn make(here: &mut Routing, netns: &OwnedFd) -> Result<Self, Error> {
        let indices = Some((LINK_INDEX, FAR_LINK_INDEX));
        let veth = Veth { name: LINK, peer: FAR_LINK, indices };
        let made = here.add_veth(veth, netns.as_fd());
        made.doing_with(modules::VETH, || format!("make the veth pair `{LINK}`"))?;
        Ok(Self)
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if let Err(error) = Routing::open().and_then(|mut it| it.remove_link(LINK)) {
            tracing::warn!(%error, "packets may be lost until the network starts again");
        }
    }
}

/// Another network namespace, a packet socket there and rtnetlink there. It is there as long as one of them.
fn namespace() -> Result<(OwnedFd, OwnedFd, Routing), Error> {
    let make = || {
        sys::enter_new_network().doing(|| "make a network namespace".to_owned())?;
        sysctl::set_for_shaper()?;
        let netns = File::open("/proc/thread-self/ns/net");
        let netns = netns.doing(|| "open the new network namespace".to_owned())?;
        Ok((OwnedFd::from(netns), packet_socket()?, Routing::open()?))
    };
    let maker = thread::Builder::new().name("shaper-network".to_owned()).spawn(make);
    let maker = maker.doing(|| "start a thread".to_owned())?;
    maker.join().unwrap_or_else(|_| {
        let cause = io::Error::other("the thread panicked");
        Err(Error::new("make a network namespace", cause))
    })
}

/// A packet socket of the namespace of the calling thread, which gets nothing before it is bound.
fn packet_socket() -> Result<OwnedFd, Error> {
    let make = || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
        sys::keep_offloads(&socket)?;
        if sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER).is_err() {
            sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER)?;
        }
        io::Result::Ok(socket)
    };
    make().doing(|| "open a packet socket".to_owned())
}

impl Worker {
    fn run(mut self) -> io::Result<()> {
        loop {
            let now = now();
            if self.take_over_changes()? {
                // What waits is not to be lost by the end of what held it up.
                while self.receive()? {}
                self.send_until(Time::MAX);
                return Ok(());
            }
            self.send_until(now);
            let timeout = match self.queue.next_due() {
                None => None,
                Some(due) => Some(timespec(due.saturating_sub(self::now()).min(WAIT_MAX))?),
            };
            let wanted = PollFlags::IN;
            let (incoming, wake) = (&self.incoming, &self.shared.wake);
            let mut both = [PollFd::new(incoming, wanted), PollFd::new(wake, wanted)];
            match poll(&mut both, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            self.receive()?;
        }
    }

    /// Whether it is to end.
    fn take_over_changes(&mut self) -> io::Result<bool> {
        let mut ways = self.shared.ways();
        if ways.is_over {
            return Ok(true);
        }
        if std::mem::take(&mut ways.is_changed) {
            match rustix::io::read(&self.shared.wake, &mut [0; 8]) {
                Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            self.queue.release(|it| ways.to.get(&it).is_none_or(|way| way.lines.is_empty()));
        }
        Ok(false)
    }

    fn send_until(&mut self, now: Time) {
        let ways = self.shared.ways();
        while let Some(Waiting { to, bytes, .. }) = self.queue.pop(now) {
            let Some(way) = ways.to.get(&to) else { continue };
            let Some(protocol) = frame::protocol(&bytes) else { continue };
            let to = LinkAddress { link: way.end.link, protocol };
            // A link that is gone or full: the frame is lost, as frames are.
            if let Err(error) = sendto(&self.outgoing, &bytes, SendFlags::DONTWAIT, &to) {
                tracing::debug!(%error, link = way.end.link, "shaped packet lost");
            }
        }
    }

    /// Whether there may be more.
    fn receive(&mut self) -> io::Result<bool> {
        let mut ways = self.shared.ways();
        for _ in 0..RECEIVED_AT_ONCE {
            let length = match recv(&self.incoming, &mut *self.buffer, RecvFlags::TRUNC) {
                Ok((_, length)) => length,
                Err(Errno::AGAIN) => return Ok(false),
                // A frame that the kernel cannot describe is lost; so is one that comes with a signal.
                Err(Errno::INTR | Errno::INVAL) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let Some(bytes) = self.buffer.get(..length) else { continue };
            let Some(head) = frame::read(bytes) else { continue };
            let Some(way) = ways.to.get_mut(&head.to) else { continue };
            let mut fate = Some(Fate { due: now(), copies: 1, is_corrupt: false });
            for (_, line) in way.lines.iter_mut().filter(|it| it.0 & head.class != 0) {
                fate = fate.and_then(|it| line.pass(it, head.length, &mut self.dice));
            }
            let Some(Fate { due, copies, is_corrupt }) = fate else { continue };
            let mut bytes = bytes.to_vec();
            frame::address(&mut bytes, MAC, way.end.mac);
            if is_corrupt && !frame::corrupt(&mut bytes, &mut self.dice) {
                continue;
            }
            let due = self.order.keep(head.flow, due);
            for _ in 1..copies {
                self.queue.push(due, head.to, bytes.clone());
            }
            self.queue.push(due, head.to, bytes);
        }
        Ok(true)
    }
}

/// Time since the machine began, which no one sets.
fn now() -> Time {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    Time::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default())
}

fn timespec(time: Time) -> io::Result<Timespec> {
    Timespec::try_from(time).map_err(io::Error::other)
}
