//! Named ports (5.3 with MULTIPORT): streams of bytes between programs of the guest and the host.
//!
//! It is a device of its own, apart from the console: a console with ports is told its size by
//! control messages, whose fields Linux and the specification order differently. Port 0, which a
//! driver that knows no ports takes for a console, is never added.

mod port;
mod spec;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use bus::{Section, SectionError};

use crate::{Broken, Chain, DeviceType, Handle, Outcome, VirtioDevice};
use port::Port;
use spec::*;
use state::PortsState;

/// Descriptors of a queue.
const QUEUE_SIZE: u16 = 64;

/// The host's end of a port.
///
/// Called from a queue's service: it may not wait, nor call the device.
pub trait PortPeer: Send + Sync {
    /// Takes bytes the guest sends, and says how many. After less than all, the rest is offered
    /// again when [`Ports::resume`] is called.
    fn take(&self, bytes: &[u8]) -> usize;
    /// [`Ports::input`] has refused bytes, and there is room again.
    fn room(&self);
    /// A program of the guest has opened the port, or closed it.
    fn opened(&self, open: bool);
}

/// What a port is made of.
pub struct PortConfig {
    /// By which the guest's programs find it: `/dev/virtio-ports/NAME`.
    pub name: String,
    /// The host's end.
    pub peer: Arc<dyn PortPeer>,
}

/// A device with named ports, numbered in their order from 0 on. The guest counts from 1.
pub struct Ports {
    // Fixed configuration.
    queue_sizes: Vec<u16>,
    // Wiring.
    handle: OnceLock<Handle>,
    // State.
    ports: Vec<Port>,
}

/// The queues of a port.
const fn receive_queue(port: usize) -> usize {
    FIRST_PORT_QUEUE + 2 * port
}

impl Ports {
    /// A device whose ports nobody has opened.
    pub fn new(ports: Vec<PortConfig>) -> Arc<Self> {
        let queue_sizes = vec![QUEUE_SIZE; receive_queue(ports.len())];
        let ports = ports.into_iter().map(Port::new).collect();
        Arc::new(Self { queue_sizes, handle: OnceLock::new(), ports })
    }

    /// Sends bytes to the guest. Returns how many were taken; the rest is to be offered again after
    /// [`PortPeer::room`]. None are while no program of the guest has the port open.
    pub fn input(&self, port: usize, bytes: &[u8]) -> usize {
        let taken = self.ports[port].input(bytes);
        self.kick(receive_queue(port));
        taken
    }

    /// The host's end takes bytes again.
    pub fn resume(&self, port: usize) {
        self.kick(receive_queue(port) + 1);
    }

    /// A program of the guest has the port open.
    pub fn is_open(&self, port: usize) -> bool {
        self.ports[port].is_open()
    }

    fn kick(&self, queue: usize) {
        if let Some(handle) = self.handle.get() {
            handle.kick(queue);
        }
    }

    /// The next message that is due: ports in their order, messages of a port by their events.
    fn next_message(&self) -> Option<Vec<u8>> {
        (1u32..).zip(&self.ports).find_map(|(id, port)| {
            let (event, value, name) = port.take_due()?;
            let head = [&id.to_le_bytes()[..], &event.to_le_bytes(), &value.to_le_bytes()];
            Some([&head.concat()[..], name.as_bytes()].concat())
        })
    }

    fn send_message(&self, chain: &Chain<'_>) -> Result<Outcome, Broken> {
        let Some(message) = self.next_message() else { return Ok(Outcome::Wait) };
        // A driver whose buffer is too small gets what fits, as from any device.
        let size = chain.writable.size().min(message.len() as u64) as usize;
        let wild = |_| Broken("gave a control message a buffer that is not RAM");
        chain.writable.write(0, &message[..size]).map_err(wild)?;
        Ok(Outcome::Done(size as u32)) // a name and eight bytes
    }

    fn receive_message(&self, chain: &Chain<'_>) -> Result<Outcome, Broken> {
        let mut message = [0; CONTROL_SIZE];
        if chain.readable.size() < CONTROL_SIZE as u64 {
            return Ok(Outcome::Done(0));
        }
        let wild = |_| Broken("sent a control message that is not in RAM");
        chain.readable.read(0, &mut message).map_err(wild)?;
        let [a, b, c, d, event @ .., v, w] = message;
        let (id, event) = (u32::from_le_bytes([a, b, c, d]), u16::from_le_bytes(event));
        let value = u16::from_le_bytes([v, w]);
        let port = (id as usize).checked_sub(1).and_then(|index| self.ports.get(index));
        match (event, value, port) {
            (DEVICE_READY, 1, _) => self.ports.iter().for_each(|port| port.announce(PORT_ADD)),
            (PORT_READY, 1, Some(port)) => {
                port.announce(PORT_NAME);
                port.announce(PORT_OPEN);
            }
            (PORT_OPEN, value, Some(port)) => port.set_open(value != 0),
            _ => {}
        }
        self.kick(CONTROL_RECEIVE);
        Ok(Outcome::Done(0))
    }
}

impl VirtioDevice for Ports {
    fn device_type(&self) -> DeviceType {
        DeviceType::Console
    }

    fn features(&self) -> u64 {
        F_MULTIPORT
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    fn config_read(&self, offset: u64, data: &mut [u8]) {
        let count = (self.ports.len() as u32 + 1).to_le_bytes();
        for (at, byte) in (offset..).zip(data) {
            let index = at.checked_sub(MAX_NR_PORTS);
            let found = index.and_then(|index| count.get(usize::try_from(index).ok()?));
            *byte = found.copied().unwrap_or(0);
        }
    }

    fn attach(&self, handle: Handle) {
        let attached = self.handle.set(handle);
        assert!(attached.is_ok(), "ports are attached once");
    }

    fn start(&self, _features: u64) {}

    fn handle(&self, queue: usize, chain: &Chain<'_>) -> Result<Outcome, Broken> {
        let port = queue.checked_sub(FIRST_PORT_QUEUE).map(|index| &self.ports[index / 2]);
        match (queue, port) {
            (CONTROL_RECEIVE, _) => self.send_message(chain),
            (CONTROL_TRANSMIT, _) => self.receive_message(chain),
            (queue, Some(port)) if queue.is_multiple_of(2) => port.receive(chain),
            (_, Some(port)) => port.transmit(chain),
            // Of a driver that takes port 0 for a console: it is never typed into.
            (0, None) => Ok(Outcome::Wait),
            (_, None) => Ok(Outcome::Done(0)),
        }
    }

    fn reset(&self) {
        self.ports.iter().for_each(Port::reset);
    }

    fn save(&self) -> Section {
        Section::encode(&PortsState { ports: self.ports.iter().map(Port::save).collect() })
    }

    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        let PortsState { ports } = section.decode()?;
        if ports.len() != self.ports.len() {
            let reason = format!("{} ports, but there are {}", ports.len(), self.ports.len());
            return Err(PortsState::impossible(reason));
        }
        let each = || self.ports.iter().zip(&ports);
        each().try_for_each(|(port, saved)| port.check(saved))?;
        each().for_each(|(port, saved)| port.restore(saved));
        Ok(())
    }
}
