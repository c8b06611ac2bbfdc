//! What connects devices: port and MMIO dispatch, interrupt lines, message-signalled interrupts,
//! and the trait every device has.
//!
//! *Invariants*: an access never fails. What nobody claims reads as all ones, is ignored when
//! written, and is counted. A device sees offsets, never where it is mapped. A device's lock is a
//! leaf: under it a device may set a line or send an MSI, never call a bus.
//!
//! What this crate may not know: engines, threads, guest memory.

mod dispatch;
mod line;

pub use dispatch::{AddressSpace, Mapping};
pub use line::{Line, LineSink, MsiSink, NoMsi};
pub use statecodec::{Saved, Section, SectionError, saved_form};

/// A part of the board that answers at addresses.
///
/// Lengths are those of CPU accesses: 1, 2, 4 or 8 bytes, and any alignment. A device decides
/// itself what an odd access means; it may not panic, block or allocate by what it is told.
pub trait BusDevice: Send + Sync {
    /// Reads at `offset` from the start of the device's mapping. `data` is all ones on entry.
    fn read(&self, offset: u64, data: &mut [u8]);
    /// Writes at `offset` from the start of the device's mapping.
    fn write(&self, offset: u64, data: &[u8]);
}

/// A part of the board that has state.
pub trait Device: Send + Sync {
    /// Back to the state after power-up.
    fn reset(&self);
    /// The state, while the VM stands still.
    fn save(&self) -> Section;
    /// Puts state into a built device, while the VM stands still. Lines and timers follow.
    ///
    /// # Errors
    /// When the section is not such a device's, or says what cannot be. The device is then as it
    /// was.
    fn restore(&self, section: &Section) -> Result<(), SectionError>;
}
