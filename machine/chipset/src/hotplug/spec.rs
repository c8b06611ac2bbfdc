//! Registers of the hot-plug controller: our own, as every board's is. The tables' AML is their only
//! driver (`boot`'s `acpi::hotplug`).
//!
//! Each is a set of 32: slots of the PCI bus, CPUs or blocks of memory. All accesses have 32 bits.

/// Bytes of the registers.
pub const SIZE: u64 = 0x20;

/// PCI slots where a device has come. Written ones are taken off.
pub const PCI_UP: u64 = 0x00;
/// PCI slots whose device is asked to go. Written ones are taken off.
pub const PCI_DOWN: u64 = 0x04;
/// A written one takes the slot's device away. Reads as slots with a device that can go.
pub const PCI_EJECT: u64 = 0x08;
/// CPUs that are there.
pub const CPU_PRESENT: u64 = 0x0c;
/// CPUs that have come. Written ones are taken off.
pub const CPU_NEW: u64 = 0x10;
/// Blocks of memory that are there.
pub const MEMORY_PRESENT: u64 = 0x14;
/// Blocks that have come. Written ones are taken off.
pub const MEMORY_NEW: u64 = 0x18;

/// General-purpose event: look at the registers. There is one for all of them, because systems
/// reach the board four times for each as they start.
pub const GPE: u8 = 1;
