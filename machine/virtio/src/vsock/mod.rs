//! The socket device (5.10): streams between programs of the guest and the host.
//!
//! Connections are the back-end's. They are not saved: a guest that is restored is told, by the
//! event of 5.10.6.7, that all it had are over.

mod spec;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, OnceLock};

use ::vsock::{BUFFER, HEADER_SIZE, Header, Host};
use bus::{Section, SectionError};

use crate::runner::lock;
use crate::{Broken, Chain, DeviceType, Handle, Outcome, VirtioDevice};
use spec::*;
use state::VsockState;

/// Descriptors of a queue.
const QUEUE_SIZE: u16 = 256;

/// A socket device.
pub struct Vsock {
    // Wiring.
    host: Arc<Host>,
    handle: OnceLock<Handle>,
    // State.
    state: Mutex<State>,
    /// Where packets are put together, one buffer a direction, so that none needs memory of its own.
    received: Mutex<Box<[u8]>>,
    sent: Mutex<Box<[u8]>>,
}

struct State {
    /// The guest is to be told that its connections are over.
    reset_due: bool,
}

impl Vsock {
    /// A device for the guest of `host`.
    pub fn new(host: Arc<Host>) -> Arc<Self> {
        let buffer = || Mutex::new(vec![0; BUFFER].into_boxed_slice());
        let state = Mutex::new(State { reset_due: false });
        let (received, sent) = (buffer(), buffer());
        Arc::new_cyclic(|weak: &std::sync::Weak<Self>| {
            let device = weak.clone();
            host.attach(Box::new(move || {
                if let Some(device) = device.upgrade() {
                    device.kick(RECEIVE);
                }
            }));
            Self { host, handle: OnceLock::new(), state, received, sent }
        })
    }

    fn kick(&self, queue: usize) {
        if let Some(handle) = self.handle.get() {
            handle.kick(queue);
        }
    }

    /// A packet for the guest.
    fn receive(&self, chain: &Chain<'_>) -> Result<Outcome, Broken> {
        let room = chain.writable.size().checked_sub(HEADER_SIZE as u64);
        let room = room.ok_or(Broken("gave the socket device a buffer shorter than a header"))?;
        let mut data = lock(&self.received);
        let room = room.min(data.len() as u64) as usize;
        let Some(header) = self.host.next(&mut data[..room]) else { return Ok(Outcome::Wait) };
        let wild = |_| Broken("gave the socket device a buffer that is not RAM");
        chain.writable.write(0, &header.to_bytes()).map_err(wild)?;
        chain.writable.write(HEADER_SIZE as u64, &data[..header.len as usize]).map_err(wild)?;
        Ok(Outcome::Done(HEADER_SIZE as u32 + header.len))
    }

    /// A packet of the guest's.
    fn transmit(&self, chain: &Chain<'_>) -> Result<Outcome, Broken> {
        let mut bytes = [0; HEADER_SIZE];
        let wild = |_| Broken("sent a packet that is short or not in RAM");
        chain.readable.read(0, &mut bytes).map_err(wild)?;
        let header = Header::from_bytes(&bytes);
        let mut data = lock(&self.sent);
        // A longer one is beyond any credit: its connection ends for want of the data.
        let size = usize::try_from(header.len).ok().filter(|size| *size <= data.len()).unwrap_or(0);
        chain.readable.read(HEADER_SIZE as u64, &mut data[..size]).map_err(wild)?;
        let has_packet = self.host.receive(&header, &data[..size]);
        drop(data);
        if has_packet {
            self.kick(RECEIVE);
        }
        Ok(Outcome::Done(0))
    }

    fn event(&self, chain: &Chain<'_>) -> Result<Outcome, Broken> {
        let mut state = lock(&self.state);
        if !state.reset_due {
            return Ok(Outcome::Wait);
        }
        let wild = |_| Broken("gave an event a buffer that is short or not RAM");
        chain.writable.write(0, &TRANSPORT_RESET.to_le_bytes()).map_err(wild)?;
        state.reset_due = false;
        Ok(Outcome::Done(TRANSPORT_RESET.to_le_bytes().len() as u32))
    }
}

impl VirtioDevice for Vsock {
    fn device_type(&self) -> DeviceType {
        DeviceType::Vsock
    }

    fn features(&self) -> u64 {
        0
    }

    fn queue_sizes(&self) -> &[u16] {
        &[QUEUE_SIZE; 3]
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        let cid = self.host.guest_cid().to_le_bytes();
        let from = usize::try_from(offset).ok().and_then(|at| cid.get(at..)).unwrap_or_default();
        for (to, byte) in data.iter_mut().zip(from) {
            *to = *byte;
        }
    }

    fn attach(&self, handle: Handle) {
        let attached = self.handle.set(handle);
        assert!(attached.is_ok(), "a socket device is attached once");
    }

    fn start(&self, _features: u64) {}

    fn handle(&self, queue: usize, chain: &Chain<'_>) -> Result<Outcome, Broken> {
        match queue {
            RECEIVE => self.receive(chain),
            TRANSMIT => self.transmit(chain),
            _ => self.event(chain),
        }
    }

    fn reset(&self) {
        let State { reset_due } = &mut *lock(&self.state);
        *reset_due = false;
        self.host.reset();
    }

    fn save(&self) -> Section {
        // Whoever restores this has no connection of these any more.
        let State { reset_due: _ } = &*lock(&self.state);
        Section::encode(&VsockState { guest_cid: self.host.guest_cid(), reset_due: true })
    }

    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        let VsockState { guest_cid, reset_due: _ } = section.decode()?;
        if guest_cid != self.host.guest_cid() {
            let reason = format!("CID {guest_cid}, but this VM has {}", self.host.guest_cid());
            return Err(VsockState::impossible(reason));
        }
        self.host.reset();
        lock(&self.state).reset_due = true;
        Ok(())
    }
}
