//! Message-signalled interrupts without a table (PCI Local Bus 3.0, 6.8.1): one vector, 64-bit.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bus::MsiSink;
use x86_state::Msi;

/// Message control: enabled.
pub(crate) const CONTROL_ENABLE: u16 = 1;
/// Message control: addresses have 64 bits.
const CONTROL_64: u16 = 1 << 7;
/// Message control, address, data.
pub(crate) const BODY_SIZE: usize = 12;

/// The message of a function that has one.
///
/// *Lock*: a leaf but for sending.
pub struct MsiVector {
    // Wiring.
    sink: Arc<dyn MsiSink>,
    // State.
    state: Mutex<State>,
}

/// What the function's registers say.
#[derive(Default)]
struct State {
    message: Option<Msi>,
    bus_master: bool,
}

impl MsiVector {
    /// A message to `sink`.
    pub fn new(sink: Arc<dyn MsiSink>) -> Arc<Self> {
        Arc::new(Self { sink, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends it, if the guest has turned it on.
    pub fn notify(&self) {
        let state = self.state();
        if let (Some(message), true) = (state.message, state.bus_master) {
            self.sink.send_msi(message);
        }
    }

    /// The capability's body and which of its bits can be written.
    pub(crate) fn capability() -> ([u8; BODY_SIZE], [u8; BODY_SIZE]) {
        let (mut body, mut writable) = ([0; BODY_SIZE], [0xff; BODY_SIZE]);
        body[..2].copy_from_slice(&CONTROL_64.to_le_bytes());
        writable[..2].copy_from_slice(&CONTROL_ENABLE.to_le_bytes());
        writable[2] = 0xfc;
        writable[10..].fill(0xff);
        // Message data has 16 bits; what follows is reserved.
        (body, writable)
    }

    /// Follows the registers: the capability's body as the guest has left it.
    pub(crate) fn follow(&self, body: &[u8; BODY_SIZE], bus_master: bool) {
        let [c0, c1, a0, a1, a2, a3, a4, a5, a6, a7, d0, d1] = *body;
        let on = u16::from_le_bytes([c0, c1]) & CONTROL_ENABLE != 0;
        let mut state = self.state();
        state.bus_master = bus_master;
        state.message = on.then(|| Msi {
            address: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            data: u16::from_le_bytes([d0, d1]).into(),
        });
    }
}
