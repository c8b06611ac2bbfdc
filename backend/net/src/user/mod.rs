//! A network of one guest, inside this process: unprivileged, with address translation.
//!
//! ```text
//!   guest 10.0.2.15 ── gateway 10.0.2.2 (the host, its loopback too), name server 10.0.2.3
//!   guest fec0::…   ── gateway fec0::2,                               name server fec0::3
//! ```
//!
//! The guest's TCP ends in the library stack and goes on as connections of the host's; UDP and
//! pings are sockets of the host's; DHCP and router advertisements are answered here. One thread
//! does all of it; frames cross to and from it in two bounded queues.
//!
//! *Locks*: each queue's is a leaf; nobody is called under one.

mod device;
mod dhcp;
mod dns;
mod forward;
mod icmp;
mod router;
mod spec;
mod stack;
#[cfg(test)]
mod stack_tests;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;
mod wire;

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::Instant;

use evloop::Event;

use crate::{Mac, NetError, Network, NetworkInfo, Offloads, OnReady, Ready, Sent, lock};
pub use dns::keep_resolver;
pub use forward::{Forward, Protocol};
use stack::Stack;

/// Frames in each queue. At 64 KiB each that is 8 MiB a direction at most.
const QUEUE_MAX: usize = 128;
/// The stack's thread: parsers with little state.
const STACK_BYTES: usize = 256 << 10;

/// What a user-mode network is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserConfig {
    /// The guest's card.
    pub mac: Mac,
    /// Ports of the host that lead into the guest.
    pub forwards: Vec<Forward>,
}

/// What could not be done for a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UserCounters {
    /// Frames that are no protocol this network knows, or under a strange address.
    pub frames_lost: u64,
    /// Connections beyond the bound.
    pub connections_refused: u64,
    /// Datagrams the host refused.
    pub datagrams_lost: u64,
    /// Pings the host refused.
    pub pings_lost: u64,
}

/// Host sockets of forwards, and where in the guest they lead.
#[derive(Default)]
struct Listening {
    tcp: Vec<(TcpListener, SocketAddr)>,
    udp: Vec<(UdpSocket, SocketAddr)>,
}

/// A user-mode network.
pub struct UserNetwork {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the stack's thread and the guest's side share.
struct Shared {
    // Wiring.
    event: Event,
    on_ready: OnceLock<OnReady>,
    // State.
    stop: AtomicBool,
    inward: Mutex<Inward>,
    outward: Mutex<Outward>,
    /// The guest has begun anew.
    restart: Mutex<Option<Offloads>>,
    // Counters.
    counters: Mutex<UserCounters>,
}

/// Frames from the guest.
#[derive(Default)]
struct Inward {
    frames: Vec<Vec<u8>>,
    /// A frame was refused.
    full: bool,
}

/// Frames to the guest.
#[derive(Default)]
struct Outward {
    frames: VecDeque<Vec<u8>>,
    /// The guest has asked in vain.
    empty: bool,
    /// The stack could not put all it has.
    full: bool,
}

impl UserNetwork {
    /// A network, with its forwards open.
    ///
    /// # Errors
    /// When a forward's port is taken, or the host has no descriptor or thread left.
    pub fn new(config: &UserConfig) -> Result<Arc<Self>, NetError> {
        let host = |operation| move |source| NetError::Host { operation, source };
        let mut listening = Listening::default();
        for forward in &config.forwards {
            forward.open(&mut listening)?;
        }
        let shared = Arc::new(Shared {
            event: Event::new().map_err(host("make an event"))?,
            on_ready: OnceLock::new(),
            stop: AtomicBool::new(false),
            inward: Mutex::default(),
            outward: Mutex::default(),
            restart: Mutex::default(),
            counters: Mutex::default(),
        });
        let (of, mac) = (shared.clone(), config.mac);
        let thread = std::thread::Builder::new()
            .name("net".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || of.run(mac, listening))
            .map_err(host("start a thread for a network"))?;
        Ok(Arc::new(Self { shared, thread: Some(thread) }))
    }

    /// What could not be done.
    pub fn counters(&self) -> UserCounters {
        *lock(&self.shared.counters)
    }
}

impl Drop for UserNetwork {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.event.signal();
        if let Some(thread) = self.thread.take() {
            // One that has panicked has nothing left to end.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self, mac: Mac, listening: Listening) {
        let mut stack = Stack::new(mac, listening, Instant::now());
        while !self.stop.load(Ordering::SeqCst) {
            let incoming = stack.wait(self.event.as_fd(), Instant::now());
            self.event.clear();
            if let Some(offloads) = lock(&self.restart).take() {
                stack.restart(offloads);
            }
            // A guest that sends and does not receive waits in the end.
            let behind = stack.is_behind();
            let (frames, was_full) = match &mut *lock(&self.inward) {
                _ if behind => (Vec::new(), false),
                inward => (std::mem::take(&mut inward.frames), std::mem::take(&mut inward.full)),
            };
            if was_full {
                self.call(Ready::Send(0));
            }
            let room = QUEUE_MAX - lock(&self.outward).frames.len().min(QUEUE_MAX);
            let out = stack.turn(frames.into_iter(), room, incoming, Instant::now());
            let full = out.len() == room;
            let wake = {
                let mut outward = lock(&self.outward);
                outward.full |= full;
                let wake = outward.empty && !out.is_empty();
                outward.frames.extend(out);
                outward.empty &= !wake;
                wake
            };
            if wake {
                self.call(Ready::Receive(0));
            }
            if behind && !stack.is_behind() {
                self.event.signal();
            }
            *lock(&self.counters) = stack.counters();
        }
    }

    fn call(&self, ready: Ready) {
        if let Some(on_ready) = self.on_ready.get() {
            on_ready(ready);
        }
    }
}

impl Network for UserNetwork {
    fn info(&self) -> NetworkInfo {
        NetworkInfo { pairs: 1, from_guest: Offloads::all(), to_guest: Offloads::all() }
    }

    fn attach(&self, on_ready: OnReady) {
        assert!(self.shared.on_ready.set(on_ready).is_ok(), "a network is attached once");
    }

    fn configure(&self, to_guest: Offloads, _pairs: u16) {
        let Shared { event, inward, outward, restart, .. } = &*self.shared;
        *lock(restart) = Some(to_guest);
        *lock(inward) = Inward::default();
        *lock(outward) = Outward { empty: true, ..Outward::default() };
        event.signal();
    }

    fn send(&self, _pair: usize, frame: &[u8]) -> Sent {
        let mut inward = lock(&self.shared.inward);
        if inward.frames.len() >= QUEUE_MAX {
            inward.full = true;
            return Sent::Later;
        }
        let first = inward.frames.is_empty();
        inward.frames.push(frame.to_vec());
        drop(inward);
        if first {
            self.shared.event.signal();
        }
        Sent::Taken
    }

    fn receive(&self, _pair: usize, frame: &mut [u8]) -> Option<usize> {
        let mut outward = lock(&self.shared.outward);
        let next = outward.frames.pop_front();
        // Half a queue at a time: the stack is not woken for each frame.
        let room = outward.full && outward.frames.len() <= QUEUE_MAX / 2;
        outward.full &= !room;
        outward.empty |= next.is_none();
        drop(outward);
        if room {
            self.shared.event.signal();
        }
        let next = next?;
        let to = frame.get_mut(..next.len())?;
        to.copy_from_slice(&next);
        Some(next.len())
    }
}
