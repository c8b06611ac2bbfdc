//! The network card (5.1): frames go to a network and come from it as they are, with their
//! headers, which are the driver's own.
//!
//! *Locks*: a pair's buffer, then the state; both before what the network has.

mod filter;
mod spec;
mod state;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use bus::{Section, SectionError};
use net::{FRAME_MAX, HEADER_SIZE, Mac, Network, Offloads, Ready, Sent};

use crate::runner::lock;
use crate::{Broken, Chain, DeviceType, Handle, Outcome, VirtioDevice};
use filter::{Filter, TABLE_MAX, Table};
use spec::*;
use state::NetState;

/// Descriptors of a queue of frames, and of the control queue.
const QUEUE_SIZE: u16 = 256;
const CONTROL_SIZE: u16 = 64;
/// Most pairs: with the control queue they are all the transport has.
const PAIRS_MAX: u16 = 32;
/// Frames for others that are thrown away before others of the thread have their turn.
const STRANGERS_MAX: usize = 64;
/// The shortest frame: a header of Ethernet.
const ETHERNET_SIZE: usize = 14;

/// Offloads of frames the guest sends, and receives, by their features.
const FROM_GUEST: [(Offloads, u64); 5] = [
    (Offloads::CHECKSUM, F_CSUM),
    (Offloads::TSO4, F_HOST_TSO4),
    (Offloads::TSO6, F_HOST_TSO6),
    (Offloads::ECN, F_HOST_ECN),
    (Offloads::UFO, F_HOST_UFO),
];
const TO_GUEST: [(Offloads, u64); 5] = [
    (Offloads::CHECKSUM, F_GUEST_CSUM),
    (Offloads::TSO4, F_GUEST_TSO4),
    (Offloads::TSO6, F_GUEST_TSO6),
    (Offloads::ECN, F_GUEST_ECN),
    (Offloads::UFO, F_GUEST_UFO),
];

/// Fixed configuration of a network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetConfig {
    /// Its address.
    pub mac: Mac,
    /// The guest may take another address.
    pub mac_changes: bool,
}

/// What a network card has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NetCounters {
    /// Frames and bytes the guest has sent.
    pub sent: (u64, u64),
    /// Frames and bytes it has received.
    pub received: (u64, u64),
    /// Frames lost: too short or too long, the link down, or a buffer too small.
    pub lost: u64,
    /// Frames that came for somebody else.
    pub filtered: u64,
    /// Control commands refused.
    pub refused: u64,
}

/// A network card.
pub struct Net {
    // Fixed configuration.
    config: NetConfig,
    features: u64,
    queue_sizes: Vec<u16>,
    // Wiring.
    network: Arc<dyn Network>,
    handle: OnceLock<Handle>,
    // State.
    agreed: AtomicU64,
    pairs: AtomicU16,
    link_up: AtomicBool,
    filter: Mutex<Filter>,
    buffers: Box<[Buffers]>,
    // Counters.
    counters: Counters,
}

/// Frames of one pair on their way through the card.
struct Buffers {
    sending: Mutex<Box<[u8]>>,
    receiving: Mutex<Received>,
}

/// A frame the guest has no buffers for yet: so many bytes, or none.
struct Received {
    frame: Box<[u8]>,
    size: usize,
}

#[derive(Default)]
struct Counters {
    sent: [AtomicU64; 2],
    received: [AtomicU64; 2],
    lost: AtomicU64,
    filtered: AtomicU64,
    refused: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

fn count_frame([frames, bytes]: &[AtomicU64; 2], size: usize) {
    count(frames);
    bytes.fetch_add((size - HEADER_SIZE) as u64, Ordering::Relaxed);
}

/// What a queue is for.
enum Role {
    Receive(usize),
    Send(usize),
    Control,
}

fn features(config: &NetConfig, network: &dyn Network, pairs: u16) -> u64 {
    let info = network.info();
    let always = F_MAC | F_MRG_RXBUF | F_STATUS | F_CTRL_VQ | F_CTRL_RX | F_CTRL_RX_EXTRA;
    let mut features = always;
    for (offloads, table) in [(info.from_guest, FROM_GUEST), (info.to_guest, TO_GUEST)] {
        let offered = table.iter().filter(|(offload, _)| offloads.contains(*offload));
        features |= offered.fold(0, |all, (_, feature)| all | feature);
    }
    if pairs > 1 {
        features |= F_MQ;
    }
    if config.mac_changes {
        features |= F_CTRL_MAC_ADDR;
    }
    features
}

impl Net {
    /// A card on `network`, with as many queues as it has.
    pub fn new(network: Arc<dyn Network>, config: NetConfig) -> Arc<Self> {
        let pairs = network.info().pairs.clamp(1, PAIRS_MAX);
        let buffer = || vec![0; FRAME_MAX].into_boxed_slice();
        let buffers = |_| Buffers {
            sending: Mutex::new(buffer()),
            receiving: Mutex::new(Received { frame: buffer(), size: 0 }),
        };
        let mut queue_sizes = vec![QUEUE_SIZE; 2 * usize::from(pairs)];
        queue_sizes.push(CONTROL_SIZE);
        Arc::new(Self {
            config,
            features: features(&config, &*network, pairs),
            queue_sizes,
            network,
            handle: OnceLock::new(),
            agreed: AtomicU64::new(0),
            pairs: AtomicU16::new(1),
            link_up: AtomicBool::new(true),
            filter: Mutex::new(Filter::new(config.mac)),
            buffers: (0..pairs).map(buffers).collect(),
            counters: Counters::default(),
        })
    }

    /// What it has done.
    pub fn counters(&self) -> NetCounters {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { sent, received, lost, filtered, refused } = &self.counters;
        NetCounters {
            sent: (get(&sent[0]), get(&sent[1])),
            received: (get(&received[0]), get(&received[1])),
            lost: get(lost),
            filtered: get(filtered),
            refused: get(refused),
        }
    }

    /// Plugs the cable in or pulls it out.
    pub fn set_link(&self, up: bool) {
        if self.link_up.swap(up, Ordering::AcqRel) == up {
            return;
        }
        if let Some(handle) = self.handle.get() {
            handle.config_changed();
            (0..self.buffers.len()).for_each(|pair| handle.kick(2 * pair));
        }
    }

    /// With multi-queue the control queue is the last; without it, it comes after the first pair
    /// (5.1.2).
    fn role(&self, queue: usize) -> Option<Role> {
        let mq = self.agreed.load(Ordering::Acquire) & F_MQ != 0;
        let control = if mq { 2 * self.buffers.len() } else { 2 };
        match queue {
            _ if queue == control => Some(Role::Control),
            _ if queue > control => None,
            _ if queue.is_multiple_of(2) => Some(Role::Receive(queue / 2)),
            _ => Some(Role::Send(queue / 2)),
        }
    }

    fn send(&self, pair: usize, chain: &Chain<'_>) -> Result<Outcome, Broken> {
        let done = Ok(Outcome::Done(0));
        let size = chain.readable.size();
        let shortest = (HEADER_SIZE + ETHERNET_SIZE) as u64;
        let up = self.link_up.load(Ordering::Acquire);
        if !up || !(shortest..=FRAME_MAX as u64).contains(&size) {
            count(&self.counters.lost);
            return done;
        }
        let mut sending = lock(&self.buffers[pair].sending);
        let frame = &mut sending[..size as usize];
        // A copy, because the guest may change its own while the network looks at it.
        let wild = |_| Broken("sent the network card a buffer that is not RAM");
        chain.readable.read(0, frame).map_err(wild)?;
        if self.network.send(pair, frame) == Sent::Later {
            return Ok(Outcome::Wait);
        }
        count_frame(&self.counters.sent, frame.len());
        done
    }

    fn receive(&self, pair: usize, chain: &Chain<'_>) -> Result<Outcome, Broken> {
        let received = &mut *lock(&self.buffers[pair].receiving);
        for _ in 0..STRANGERS_MAX {
            if received.size == 0 {
                match self.network.receive(pair, &mut received.frame) {
                    None => return Ok(Outcome::Wait),
                    Some(size) => received.size = size,
                }
            }
            let Received { frame, size } = received;
            if !self.wants(&frame[..*size]) {
                *size = 0;
                continue;
            }
            let fits = *size as u64 <= chain.writable.size();
            if !fits && self.agreed.load(Ordering::Acquire) & F_MRG_RXBUF != 0 {
                return Ok(Outcome::More);
            }
            let frame = &mut frame[..std::mem::take(size)];
            if !fits {
                count(&self.counters.lost);
                continue;
            }
            frame[NUM_BUFFERS..HEADER_SIZE].copy_from_slice(&chain.requests.to_le_bytes());
            let wild = |_| Broken("gave the network card a buffer that is not RAM");
            chain.writable.write(0, frame).map_err(wild)?;
            count_frame(&self.counters.received, frame.len());
            return Ok(Outcome::Done(frame.len() as u32)); // at most FRAME_MAX
        }
        Ok(Outcome::Again)
    }

    /// Whether the guest is to see a frame.
    fn wants(&self, frame: &[u8]) -> bool {
        let up = self.link_up.load(Ordering::Acquire);
        let to = frame.get(HEADER_SIZE..HEADER_SIZE + 6).and_then(|to| to.try_into().ok());
        let Some(to) = to.map(Mac).filter(|_| up) else {
            count(&self.counters.lost);
            return false;
        };
        let passes = lock(&self.filter).passes(to);
        if !passes {
            count(&self.counters.filtered);
        }
        passes
    }

    fn control(&self, chain: &Chain<'_>) -> Result<Outcome, Broken> {
        let mut head = [0; 2];
        let read = chain.readable.read(0, &mut head);
        read.map_err(|_| Broken("sent a control command without class and command"))?;
        let ok = self.command(head, chain).is_some();
        if !ok {
            count(&self.counters.refused);
        }
        let ack = [if ok { ctrl::OK } else { ctrl::ERR }];
        let no_ack = Broken("sent a control command without room for its answer");
        chain.writable.write(0, &ack).map_err(|_| no_ack)?;
        Ok(Outcome::Done(1))
    }

    /// Does a command, if it is one.
    fn command(&self, [class, command]: [u8; 2], chain: &Chain<'_>) -> Option<()> {
        let (data, at) = (&chain.readable, 2);
        match (class, command) {
            (ctrl::RX, command) => lock(&self.filter).set_mode(command, data, at),
            (ctrl::MAC, ctrl::MAC_TABLE_SET) => lock(&self.filter).set_tables(data, at),
            (ctrl::MAC, ctrl::MAC_ADDR_SET) if self.config.mac_changes => {
                lock(&self.filter).set_mac(data, at)
            }
            (ctrl::MQ, ctrl::MQ_VQ_PAIRS_SET) => {
                let mut pairs = [0; 2];
                data.read(at, &mut pairs).ok()?;
                let pairs = u16::from_le_bytes(pairs);
                let mq = self.agreed.load(Ordering::Acquire) & F_MQ != 0;
                if !mq || !(1..=self.buffers.len()).contains(&usize::from(pairs)) {
                    return None;
                }
                self.pairs.store(pairs, Ordering::Release);
                self.configure();
                Some(())
            }
            _ => None,
        }
    }

    /// Tells the network what the guest has agreed to.
    fn configure(&self) {
        let agreed = self.agreed.load(Ordering::Acquire);
        let taken = TO_GUEST.iter().filter(|(_, feature)| agreed & feature != 0);
        let offloads = taken.fold(Offloads::empty(), |all, (offload, _)| all | *offload);
        self.network.configure(offloads, self.pairs.load(Ordering::Acquire));
    }
}

impl VirtioDevice for Net {
    fn device_type(&self) -> DeviceType {
        DeviceType::Net
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0; CONFIG_SIZE];
        config[MAC..STATUS].copy_from_slice(&lock(&self.filter).mac.0);
        let status = if self.link_up.load(Ordering::Acquire) { S_LINK_UP } else { 0 };
        config[STATUS..MAX_VIRTQUEUE_PAIRS].copy_from_slice(&status.to_le_bytes());
        let pairs = self.buffers.len() as u16; // at most PAIRS_MAX
        config[MAX_VIRTQUEUE_PAIRS..].copy_from_slice(&pairs.to_le_bytes());
        let from = usize::try_from(offset).ok().and_then(|at| config.get(at..)).unwrap_or_default();
        for (to, byte) in data.iter_mut().zip(from) {
            *to = *byte;
        }
    }

    fn attach(&self, handle: Handle) {
        let attached = self.handle.set(handle.clone());
        assert!(attached.is_ok(), "a network card is attached once");
        self.network.attach(Arc::new(move |ready| {
            handle.kick(match ready {
                Ready::Receive(pair) => 2 * pair,
                Ready::Send(pair) => 2 * pair + 1,
            });
        }));
    }

    fn start(&self, features: u64) {
        self.agreed.store(features, Ordering::Release);
        self.configure();
    }

    fn handle(&self, queue: usize, chain: &Chain<'_>) -> Result<Outcome, Broken> {
        match self.role(queue) {
            Some(Role::Receive(pair)) => self.receive(pair, chain),
            Some(Role::Send(pair)) => self.send(pair, chain),
            Some(Role::Control) => self.control(chain),
            None => Err(Broken("used a queue of the network card that it did not agree on")),
        }
    }

    fn reset(&self) {
        self.agreed.store(0, Ordering::Release);
        self.pairs.store(1, Ordering::Release);
        *lock(&self.filter) = Filter::new(self.config.mac);
        for Buffers { sending: _, receiving } in &self.buffers {
            lock(receiving).size = 0;
        }
        self.configure();
    }

    fn save(&self) -> Section {
        let Filter { mac, modes, unicast, multicast } = lock(&self.filter).clone();
        let bytes = |table: &Table| table.addresses.iter().map(|mac| mac.0).collect();
        Section::encode(&NetState {
            features: self.agreed.load(Ordering::Acquire),
            mac: mac.0,
            link_up: self.link_up.load(Ordering::Acquire),
            pairs: self.pairs.load(Ordering::Acquire),
            modes,
            unicast: bytes(&unicast),
            multicast: bytes(&multicast),
            unicast_overflow: unicast.overflow,
            multicast_overflow: multicast.overflow,
        })
    }

    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        let saved: NetState = section.decode()?;
        if !(1..=self.buffers.len()).contains(&usize::from(saved.pairs)) {
            return Err(NetState::impossible(format!(
                "it uses {} queues each way, but the network has {}",
                saved.pairs,
                self.buffers.len()
            )));
        }
        if saved.unicast.len().max(saved.multicast.len()) > TABLE_MAX {
            return Err(NetState::impossible("its table of addresses is too large".into()));
        }
        let table = |addresses: Vec<[u8; 6]>, overflow| Table {
            addresses: addresses.into_iter().map(Mac).collect(),
            overflow,
        };
        *lock(&self.filter) = Filter {
            mac: Mac(saved.mac),
            modes: saved.modes,
            unicast: table(saved.unicast, saved.unicast_overflow),
            multicast: table(saved.multicast, saved.multicast_overflow),
        };
        self.agreed.store(saved.features, Ordering::Release);
        self.pairs.store(saved.pairs, Ordering::Release);
        self.link_up.store(saved.link_up, Ordering::Release);
        for Buffers { sending: _, receiving } in &self.buffers {
            lock(receiving).size = 0;
        }
        self.configure();
        Ok(())
    }
}
