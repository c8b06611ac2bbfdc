//! Message-signalled interrupts with a table (PCI Local Bus 3.0, 6.8.2).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bus::{BusDevice, MsiSink};
use x86_state::Msi;

use crate::spec::{
    MSIX_CONTROL_ENABLE, MSIX_CONTROL_FUNCTION_MASK, MSIX_ENTRY_SIZE, MSIX_VECTOR_CONTROL,
    MSIX_VECTOR_MASKED, MSIX_VECTORS_MAX,
};

/// The vectors of one function: its table, its pending bits, and the way out.
///
/// *Lock*: a leaf but for sending.
pub struct Msix {
    // Wiring.
    sink: Arc<dyn MsiSink>,
    // State.
    state: Mutex<State>,
}

#[derive(Clone)]
pub(crate) struct State {
    /// The table as the guest sees it.
    pub(crate) table: Vec<u8>,
    /// The pending bits as the guest sees them, whole 64-bit words.
    pub(crate) pending: Vec<u8>,
    enabled: bool,
    function_masked: bool,
    /// Without bus mastering, messages wait as if masked.
    bus_master: bool,
}

impl State {
    fn at_reset(vectors: usize) -> Self {
        let mut table = vec![0; vectors * MSIX_ENTRY_SIZE];
        for entry in table.chunks_mut(MSIX_ENTRY_SIZE) {
            entry[MSIX_VECTOR_CONTROL] = MSIX_VECTOR_MASKED;
        }
        Self {
            table,
            pending: vec![0; vectors.div_ceil(64) * 8],
            enabled: false,
            function_masked: false,
            bus_master: false,
        }
    }

    fn vectors(&self) -> usize {
        self.table.len() / MSIX_ENTRY_SIZE
    }

    fn entry(&self, vector: usize) -> &[u8] {
        &self.table[vector * MSIX_ENTRY_SIZE..][..MSIX_ENTRY_SIZE]
    }

    fn message(&self, vector: usize) -> Msi {
        let dword = |at: usize| {
            let e = &self.entry(vector)[at..];
            u32::from_le_bytes([e[0], e[1], e[2], e[3]])
        };
        Msi { address: u64::from(dword(0) & !3) | u64::from(dword(4)) << 32, data: dword(8) }
    }

    fn open(&self, vector: usize) -> bool {
        self.enabled
            && self.bus_master
            && !self.function_masked
            && self.entry(vector)[MSIX_VECTOR_CONTROL] & MSIX_VECTOR_MASKED == 0
    }

    fn is_pending(&self, vector: usize) -> bool {
        self.pending[vector / 8] & 1 << (vector % 8) != 0
    }

    /// Sends what waits and may go.
    fn sync(&mut self, sink: &dyn MsiSink) {
        if self.pending.iter().all(|byte| *byte == 0) {
            return;
        }
        for vector in 0..self.vectors() {
            if self.is_pending(vector) && self.open(vector) {
                self.pending[vector / 8] &= !(1 << (vector % 8));
                sink.send_msi(self.message(vector));
            }
        }
    }
}

impl Msix {
    /// `vectors` vectors that send to `sink`.
    ///
    /// # Panics
    /// When there are none or more than 2048: the board's mistake.
    pub fn new(vectors: u16, sink: Arc<dyn MsiSink>) -> Arc<Self> {
        assert!((1..=MSIX_VECTORS_MAX).contains(&vectors), "{vectors} MSI-X vectors");
        Arc::new(Self { sink, state: Mutex::new(State::at_reset(usize::from(vectors))) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many vectors.
    pub fn vectors(&self) -> u16 {
        self.state().vectors() as u16 // at most 2048
    }

    /// Sends the vector's message, or remembers it while masked. Nothing happens for a vector
    /// that is not there, or while MSI-X is off.
    pub fn notify(&self, vector: u16) {
        let vector = usize::from(vector);
        let mut state = self.state();
        if vector >= state.vectors() || !state.enabled {
        } else if state.open(vector) {
            let message = state.message(vector);
            self.sink.send_msi(message);
        } else {
            state.pending[vector / 8] |= 1 << (vector % 8);
        }
    }

    /// The message `vector` sends now, for a path that bypasses [`Msix::notify`]; `None` while it
    /// would wait.
    pub fn message(&self, vector: u16) -> Option<Msi> {
        let state = self.state();
        let vector = usize::from(vector);
        (vector < state.vectors() && state.open(vector)).then(|| state.message(vector))
    }

    /// Bytes of the table.
    pub fn table_size(&self) -> u64 {
        self.state().table.len() as u64
    }

    /// Bytes of the pending-bit array.
    pub fn pending_size(&self) -> u64 {
        self.state().pending.len() as u64
    }

    /// The table, as a BAR shows it.
    pub fn read_table(&self, offset: u64, data: &mut [u8]) {
        read_bytes(&self.state().table, offset, data);
    }

    /// The pending bits, as a BAR shows them. They cannot be written.
    pub fn read_pending(&self, offset: u64, data: &mut [u8]) {
        read_bytes(&self.state().pending, offset, data);
    }

    /// A write to the table. What the new message or mask lets through is sent.
    pub fn write_table(&self, offset: u64, data: &[u8]) {
        let mut state = self.state();
        let Ok(offset) = usize::try_from(offset) else { return };
        for (at, byte) in (offset..state.table.len()).zip(data) {
            state.table[at] = match at % MSIX_ENTRY_SIZE {
                MSIX_VECTOR_CONTROL => byte & MSIX_VECTOR_MASKED,
                13.. => 0, // reserved bits of vector control
                _ => *byte,
            };
        }
        state.sync(&*self.sink);
    }

    /// The capability's control register is now `control`.
    pub(crate) fn set_control(&self, control: u16) {
        let mut state = self.state();
        state.enabled = control & MSIX_CONTROL_ENABLE != 0;
        state.function_masked = control & MSIX_CONTROL_FUNCTION_MASK != 0;
        state.sync(&*self.sink);
    }

    pub(crate) fn set_bus_master(&self, on: bool) {
        let mut state = self.state();
        state.bus_master = on;
        state.sync(&*self.sink);
    }

    pub(crate) fn reset(&self) {
        let mut state = self.state();
        *state = State::at_reset(state.vectors());
    }

    /// Table and pending bits.
    pub(crate) fn save(&self) -> (Vec<u8>, Vec<u8>) {
        let state = self.state();
        (state.table.clone(), state.pending.clone())
    }

    /// Takes over saved bytes; false when they are not for so many vectors.
    pub(crate) fn restore(&self, table: &[u8], pending: &[u8]) -> bool {
        let mut state = self.state();
        let fits = table.len() == state.table.len() && pending.len() == state.pending.len();
        if fits {
            *state = State::at_reset(state.vectors());
            state.table.copy_from_slice(table);
            for entry in state.table.chunks_mut(MSIX_ENTRY_SIZE) {
                entry[MSIX_VECTOR_CONTROL] &= MSIX_VECTOR_MASKED;
                entry[MSIX_VECTOR_CONTROL + 1..].fill(0);
            }
            state.pending.copy_from_slice(pending);
        }
        fits
    }
}

fn read_bytes(bytes: &[u8], offset: u64, data: &mut [u8]) {
    let from = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
    for (to, byte) in data.iter_mut().zip(from) {
        *to = *byte;
    }
}

/// A BAR that holds nothing but table (from 0) and pending bits (from the middle).
pub struct MsixBar(pub Arc<Msix>, pub u64);

impl BusDevice for MsixBar {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match offset.checked_sub(self.1) {
            Some(pending) => self.0.read_pending(pending, data),
            None => self.0.read_table(offset, data),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if offset < self.1 {
            self.0.write_table(offset, data);
        }
    }
}
