//! A tap of the host's kernel, with one queue or several.

mod sys;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};

use evloop::{EventLoop, Interest, Registration};

use crate::{
    FRAME_MAX, HEADER_SIZE, NetError, Network, NetworkInfo, Offloads, OnReady, Ready, Sent, lock,
};
use sys::tun_f;

/// Most queues: one a vCPU is all that helps, and each costs a descriptor.
const PAIRS_MAX: u16 = 32;
/// Names of interfaces of the kernel's choice for bridges.
const BRIDGE_TAP: &str = "trine%d";

/// A tap.
pub struct Tap {
    // Fixed configuration.
    name: String,
    queues: Vec<Arc<File>>,
    // Wiring.
    of: EventLoop,
    us: Weak<Self>,
    on_ready: OnceLock<OnReady>,
    // State.
    /// Those waiting for frames. *Lock*: a leaf.
    waiting: Vec<Mutex<Option<Registration>>>,
    active: Mutex<u16>,
    // Counters.
    lost: AtomicU64,
}

impl Tap {
    /// Opens the tap `name`, which exists, or can be made by this user. `of` waits for frames.
    ///
    /// # Errors
    /// When there is none, another has it, or the host does not let us.
    pub fn open(name: &str, pairs: u16, of: &EventLoop) -> Result<Arc<Self>, NetError> {
        let (name, queues) = Self::open_queues(name, pairs)?;
        Ok(Self::of_queues(name, queues, of))
    }

    /// The same without a loop, for a process that cannot: [`Tap::of_queues`] there. Returns the name, too.
    ///
    /// # Errors
    /// As [`Tap::open`].
    pub fn open_queues(name: &str, pairs: u16) -> Result<(String, Vec<File>), NetError> {
        check_name(name)?;
        let pairs = pairs.clamp(1, PAIRS_MAX);
        // A tap that exists has one queue or can have several, which only it knows.
        let refused = |error: &NetError| {
            matches!(error, NetError::TapBusy { source, .. }
                if source.kind() == ErrorKind::InvalidInput)
        };
        match queues(name, name, (pairs, pairs > 1)) {
            Err(error) if refused(&error) => queues(name, name, (1, pairs == 1)).map_err(|_| error),
            result => result,
        }
    }

    /// Makes a tap on the bridge `bridge`. It goes with this process.
    ///
    /// # Errors
    /// When there is no such bridge, or this user may not.
    pub fn on_bridge(bridge: &str, pairs: u16, of: &EventLoop) -> Result<Arc<Self>, NetError> {
        let (name, queues) = Self::open_on_bridge(bridge, pairs)?;
        Ok(Self::of_queues(name, queues, of))
    }

    /// The same without a loop, as [`Tap::open_queues`].
    ///
    /// # Errors
    /// As [`Tap::on_bridge`].
    pub fn open_on_bridge(bridge: &str, pairs: u16) -> Result<(String, Vec<File>), NetError> {
        check_name(bridge)?;
        if !Path::new("/sys/class/net").join(bridge).join("bridge").is_dir() {
            return Err(NetError::NoBridge { name: bridge.to_owned() });
        }
        let permission = |source| NetError::BridgePermission { name: bridge.to_owned(), source };
        let count = (pairs.clamp(1, PAIRS_MAX), pairs > 1);
        let (name, queues) = queues(BRIDGE_TAP, bridge, count).map_err(|error| match error {
            NetError::TapPermission { source, .. } => permission(source),
            other => other,
        })?;
        let attach = || {
            use rustix::net::{AddressFamily, SocketType, socket};
            let socket = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
            let index = sys::index(socket.as_fd(), &name)?;
            sys::add_to_bridge(socket.as_fd(), bridge, index)?;
            sys::set_up(socket.as_fd(), &name)
        };
        attach().map_err(permission)?;
        Ok((name, queues))
    }

    /// The tap of this name, whose queues these are. `of` waits for frames.
    pub fn of_queues(name: String, queues: Vec<File>, of: &EventLoop) -> Arc<Self> {
        let queues: Vec<_> = queues.into_iter().take(PAIRS_MAX.into()).map(Arc::new).collect();
        Arc::new_cyclic(|us| Self {
            name,
            waiting: queues.iter().map(|_| Mutex::new(None)).collect(),
            active: Mutex::new(queues.len() as u16), // at most PAIRS_MAX
            queues,
            of: of.clone(),
            us: us.clone(),
            on_ready: OnceLock::new(),
            lost: AtomicU64::new(0),
        })
    }

    /// The interface's name on the host.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Frames the kernel has refused: the interface is down, or its queue is full.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Calls when this queue has a frame, once.
    fn wait(&self, pair: usize) {
        let mut waiting = lock(&self.waiting[pair]);
        if waiting.is_some() {
            return;
        }
        let us = self.us.clone();
        let ready = move || {
            let Some(us) = us.upgrade() else { return };
            drop(lock(&us.waiting[pair]).take());
            if let Some(on_ready) = us.on_ready.get() {
                on_ready(Ready::Receive(pair));
            }
        };
        // A host without memory for a registration is asked again with the guest's next buffer.
        *waiting = self.of.add(self.queues[pair].clone(), Interest::Read, ready).ok();
    }
}

impl Network for Tap {
    fn info(&self) -> NetworkInfo {
        let all = Offloads::all();
        // Kernels since 4.14 cannot be relied on to make large UDP.
        NetworkInfo {
            pairs: self.queues.len() as u16, // at most PAIRS_MAX
            from_guest: all,
            to_guest: all - Offloads::UFO,
        }
    }

    fn attach(&self, on_ready: OnReady) {
        assert!(self.on_ready.set(on_ready).is_ok(), "a network is attached once");
    }

    fn configure(&self, to_guest: Offloads, pairs: u16) {
        let table = [
            (Offloads::CHECKSUM, tun_f::CSUM),
            (Offloads::TSO4, tun_f::TSO4),
            (Offloads::TSO6, tun_f::TSO6),
            (Offloads::ECN, tun_f::TSO_ECN),
            (Offloads::UFO, tun_f::UFO),
        ];
        let flags = table.iter().filter(|(offload, _)| to_guest.contains(*offload));
        let flags = flags.fold(0, |all, (_, flag)| all | flag);
        let mut active = lock(&self.active);
        for (pair, queue) in (0u16..).zip(&self.queues) {
            // A kernel that cannot leave work undone does it.
            let _ = sys::set_offload(queue, flags);
            if (pair < pairs) != (pair < *active) {
                let _ = sys::set_queue(queue, pair < pairs);
            }
        }
        *active = pairs;
    }

    fn send(&self, pair: usize, frame: &[u8]) -> Sent {
        let mut queue: &File = &self.queues[pair];
        if queue.write(frame).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        Sent::Taken
    }

    fn receive(&self, pair: usize, frame: &mut [u8]) -> Option<usize> {
        let mut queue: &File = &self.queues[pair];
        let end = frame.len().min(FRAME_MAX);
        match queue.read(&mut frame[..end]) {
            Ok(size) if size > HEADER_SIZE => Some(size),
            _ => {
                self.wait(pair);
                None
            }
        }
    }
}

/// Opens queues of the tap `name`; `what` is for messages.
fn queues(
    name: &str,
    what: &str,
    (pairs, multi): (u16, bool),
) -> Result<(String, Vec<File>), NetError> {
    let mut name = name.to_owned();
    let mut queues = Vec::new();
    for _ in 0..pairs {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
        let file = options
            .open("/dev/net/tun")
            .map_err(|source| NetError::Tun { what: what.to_owned(), source })?;
        name = sys::set_interface(&file, &name, multi)
            .map_err(|source| refused(&name, multi, source))?;
        let host = |operation| move |source| NetError::Host { operation, source };
        sys::set_header(&file, HEADER_SIZE).map_err(host("give a tap's frames headers"))?;
        queues.push(file);
    }
    Ok((name, queues))
}

fn check_name(name: &str) -> Result<(), NetError> {
    let fits = (1..libc::IFNAMSIZ).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_graphic() && !b"/%:".contains(&b))
        && name != "."
        && name != "..";
    if fits { Ok(()) } else { Err(NetError::Name(name.to_owned())) }
}

fn refused(name: &str, multi: bool, source: io::Error) -> NetError {
    let exists = Path::new("/sys/class/net").join(name).exists();
    let name = name.to_owned();
    match source.kind() {
        ErrorKind::PermissionDenied if !exists => NetError::NoTap { name },
        ErrorKind::PermissionDenied => NetError::TapPermission { name, source },
        ErrorKind::ResourceBusy | ErrorKind::InvalidInput => {
            NetError::TapBusy { name, multi, source }
        }
        _ => NetError::Host { operation: "make a tap", source },
    }
}
