//! All connections of one guest.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use evloop::{EventLoop, Interest, Registration};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use crate::connection::{Connection, Stage, Wanted};
use crate::packet::*;
use crate::socket::{Listener, VsockError};
use crate::{CONNECTIONS_MAX, HOST_CID, Header};

/// Sockets looked at before others of the thread have their turn.
const BATCH: usize = 32;
/// Programs let in at once.
const ACCEPTS: usize = 16;
/// Answers to packets of no connection. What a guest sends beyond that has none.
const RESETS_MAX: usize = 1024;
/// Ports the host's programs get; below are those they can be reached at.
const FIRST_PORT: u32 = 1 << 30;
/// The listener's place in the epoll; connections have their serial numbers.
const LISTENER: u64 = 0;

/// Tells that there is a packet for the guest.
type OnPacket = Box<dyn Fn() + Send + Sync>;

/// The host's end of a guest's sockets.
pub struct Host {
    // Fixed configuration.
    guest_cid: u64,
    // Wiring.
    listener: Listener,
    epoll: Arc<OwnedFd>,
    on_packet: OnceLock<OnPacket>,
    served: OnceLock<Registration>,
    // State.
    table: Mutex<Table>,
}

/// The host's port and the guest's.
type Ports = (u32, u32);

#[derive(Default)]
struct Table {
    /// By serial number, so that what epoll says of a connection is not taken for one after it.
    connections: BTreeMap<u64, Placed>,
    by_ports: BTreeMap<Ports, u64>,
    /// Those with packets for the guest, each once.
    waiting: VecDeque<u64>,
    is_waiting: BTreeSet<u64>,
    resets: VecDeque<Header>,
    next_serial: u64,
    next_port: u32,
}

struct Placed {
    connection: Connection,
    ports: Option<Ports>,
    /// What the epoll was told to wait for; `None` when the socket has hung up.
    awaited: Option<Wanted>,
}

impl Host {
    /// Listens at `path` for programs of the host.
    ///
    /// # Errors
    /// When the path is taken, or the host refuses.
    pub fn new(guest_cid: u64, path: &Path) -> Result<Arc<Self>, VsockError> {
        let listener = Listener::bind(path)?;
        let failed =
            |e: rustix::io::Errno| VsockError::Bind { path: path.into(), source: e.into() };
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(failed)?;
        let data = EventData::new_u64(LISTENER);
        epoll::add(&epoll, &listener.socket, data, EventFlags::IN).map_err(failed)?;
        let table = Table { next_serial: LISTENER + 1, next_port: FIRST_PORT, ..Table::default() };
        let (on_packet, served) = (OnceLock::new(), OnceLock::new());
        let (epoll, table) = (Arc::new(epoll), Mutex::new(table));
        Ok(Arc::new(Self { guest_cid, listener, epoll, on_packet, served, table }))
    }

    /// The guest's address.
    pub fn guest_cid(&self) -> u64 {
        self.guest_cid
    }

    /// Says whom to tell of packets for the guest, once, before all else.
    pub fn attach(&self, on_packet: OnPacket) {
        let attached = self.on_packet.set(on_packet);
        assert!(attached.is_ok(), "a host's end is attached once");
    }

    /// Serves the sockets on a loop.
    ///
    /// # Errors
    /// When the host has no memory for it.
    pub fn serve(self: &Arc<Self>, of: &EventLoop) -> io::Result<()> {
        let host = Arc::downgrade(self);
        let look = move || {
            if let Some(host) = host.upgrade() {
                host.look();
            }
        };
        let served = self.served.set(of.add(self.epoll.clone(), Interest::Read, look)?);
        assert!(served.is_ok(), "a host's end is served by one loop");
        Ok(())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks what has happened on the sockets.
    pub(crate) fn look(&self) {
        let mut ready = Vec::with_capacity(BATCH);
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let spare = rustix::buffer::spare_capacity(&mut ready);
        if epoll::wait(&self.epoll, spare, Some(&now)).is_err() {
            return;
        }
        let mut table = self.table();
        for event in &ready {
            match event.data.u64() {
                LISTENER => self.let_in(&mut table),
                serial => self.happened(&mut table, serial, event.flags),
            }
        }
        let has_packet = table.has_packet();
        drop(table);
        if has_packet && let Some(on_packet) = self.on_packet.get() {
            on_packet();
        }
    }

    fn let_in(&self, table: &mut Table) {
        for _ in 0..ACCEPTS {
            match self.listener.accept() {
                // One too many is turned away: it is closed here.
                Ok(_) if table.connections.len() >= CONNECTIONS_MAX => {}
                Ok(socket) => {
                    self.add(table, Connection::from_host(socket), None);
                }
                Err(_) => return,
            }
        }
    }

    /// Adds a connection, unless the host has no memory for it.
    fn add(&self, table: &mut Table, connection: Connection, ports: Option<Ports>) -> bool {
        let serial = table.next_serial;
        table.next_serial += 1;
        let wanted = connection.wanted();
        let data = EventData::new_u64(serial);
        if epoll::add(&self.epoll, &connection.socket, data, flags(wanted)).is_err() {
            return false;
        }
        table.connections.insert(serial, Placed { connection, ports, awaited: Some(wanted) });
        if let Some(ports) = ports {
            table.by_ports.insert(ports, serial);
        }
        self.settle(table, serial);
        true
    }

    fn happened(&self, table: &mut Table, serial: u64, flags: EventFlags) {
        let Some(placed) = table.connections.get_mut(&serial) else { return };
        let connection = &mut placed.connection;
        if flags.contains(EventFlags::OUT) {
            connection.drain();
        }
        if flags.intersects(EventFlags::HUP | EventFlags::ERR) {
            // It is said again and again. What is there can be read without being told.
            let _ = epoll::delete(&self.epoll, &connection.socket);
            placed.awaited = None;
            connection.hung_up();
        }
        if connection.stage == Stage::Greeting {
            if let Some(port) = connection.greeted() {
                table.give_ports(serial, port);
            }
        } else if flags.contains(EventFlags::IN) {
            connection.readable();
        }
        self.settle(table, serial);
    }

    /// After a connection has changed: it is waited for as it wants to be, and has its turn if it
    /// has a packet. One that the guest has not heard of is forgotten when it is over.
    fn settle(&self, table: &mut Table, serial: u64) {
        let Some(placed) = table.connections.get_mut(&serial) else { return };
        if placed.connection.stage == Stage::Over && placed.ports.is_none() {
            table.forget(serial);
            return;
        }
        let wanted = placed.connection.wanted();
        if placed.awaited.is_some_and(|awaited| awaited != wanted) {
            let data = EventData::new_u64(serial);
            // It was added, so it can be changed.
            let _ = epoll::modify(&self.epoll, &placed.connection.socket, data, flags(wanted));
            placed.awaited = Some(wanted);
        }
        if placed.connection.has_packet() && table.is_waiting.insert(serial) {
            table.waiting.push_back(serial);
        }
    }

    /// A packet of the guest's. Says whether there are packets for it.
    pub fn receive(&self, header: &Header, data: &[u8]) -> bool {
        let mut table = self.table();
        if header.src_cid != self.guest_cid {
            // Whom should it be answered to.
            return table.has_packet();
        }
        let ports = (header.dst_port, header.src_port);
        let is_ours = header.dst_cid == HOST_CID && header.kind == STREAM;
        let found = table.by_ports.get(&ports).copied().filter(|_| is_ours);
        match (header.op, found) {
            (RST, Some(serial)) => table.forget(serial),
            (RST, None) => {}
            (REQUEST, None) if is_ours => self.request(&mut table, header, ports),
            (_, Some(serial)) => {
                if let Some(placed) = table.connections.get_mut(&serial) {
                    placed.connection.packet(header, data, ports.0);
                }
                self.settle(&mut table, serial);
            }
            (_, None) => table.refuse(header),
        }
        table.has_packet()
    }

    fn request(&self, table: &mut Table, header: &Header, ports: Ports) {
        let has_room = table.connections.len() < CONNECTIONS_MAX;
        let socket = has_room.then(|| self.listener.connect(ports.0).ok()).flatten();
        let connection = socket.map(|socket| Connection::from_guest(socket, header));
        if !connection.is_some_and(|connection| self.add(table, connection, Some(ports))) {
            table.refuse(header);
        }
    }

    /// The next packet for the guest, with bytes in `data`.
    pub fn next(&self, data: &mut [u8]) -> Option<Header> {
        let mut table = self.table();
        if let Some(reset) = table.resets.pop_front() {
            return Some(reset);
        }
        while let Some(serial) = table.waiting.pop_front() {
            table.is_waiting.remove(&serial);
            let Some(placed) = table.connections.get_mut(&serial) else { continue };
            let packet = placed.connection.next(data);
            let (Some((op, flags, size)), Some((src_port, dst_port))) = (packet, placed.ports)
            else {
                self.settle(&mut table, serial);
                continue;
            };
            let (src_cid, dst_cid) = (HOST_CID, self.guest_cid);
            let (len, kind) = (size as u32, STREAM);
            let own = Header {
                src_cid,
                dst_cid,
                src_port,
                dst_port,
                len,
                kind,
                op,
                flags,
                ..Header::default()
            };
            let mut header = own;
            placed.connection.tell(&mut header);
            if op == RST {
                table.forget(serial);
            } else {
                self.settle(&mut table, serial);
            }
            return Some(header);
        }
        None
    }

    /// Ends all connections.
    pub fn reset(&self) {
        let mut table = self.table();
        let Table {
            connections,
            by_ports,
            waiting,
            is_waiting,
            resets,
            next_serial: _,
            next_port: _,
        } = &mut *table;
        connections.clear();
        by_ports.clear();
        waiting.clear();
        is_waiting.clear();
        resets.clear();
    }

    /// Connections there are.
    pub fn connections(&self) -> usize {
        self.table().connections.len()
    }
}

impl Table {
    fn has_packet(&self) -> bool {
        !self.resets.is_empty() || !self.waiting.is_empty()
    }

    fn forget(&mut self, serial: u64) {
        if let Some(Placed { ports: Some(ports), .. }) = self.connections.remove(&serial) {
            self.by_ports.remove(&ports);
        }
    }

    /// Gives a connection of the host's its own port: one that no other has with the guest's.
    fn give_ports(&mut self, serial: u64, guest_port: u32) {
        let taken = |table: &Self| table.by_ports.contains_key(&(table.next_port, guest_port));
        // There are fewer connections than ports.
        while taken(self) {
            self.next_port = self.next_port.wrapping_add(1).max(FIRST_PORT);
        }
        let ports = (self.next_port, guest_port);
        self.next_port = self.next_port.wrapping_add(1).max(FIRST_PORT);
        if let Some(placed) = self.connections.get_mut(&serial) {
            placed.ports = Some(ports);
            self.by_ports.insert(ports, serial);
        }
    }

    /// Answers a packet of no connection.
    fn refuse(&mut self, header: &Header) {
        if self.resets.len() < RESETS_MAX {
            self.resets.push_back(Header {
                src_cid: header.dst_cid,
                dst_cid: header.src_cid,
                src_port: header.dst_port,
                dst_port: header.src_port,
                kind: header.kind,
                op: RST,
                ..Header::default()
            });
        }
    }
}

fn flags(wanted: Wanted) -> EventFlags {
    let mut flags = EventFlags::empty();
    flags.set(EventFlags::IN, wanted.read);
    flags.set(EventFlags::OUT, wanted.write);
    flags
}
