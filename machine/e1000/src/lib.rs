//! Intel's 82540EM network card, for guests and firmware without virtio drivers.
//!
//! [`E1000`] is the card as a PCI function. Frames go between its rings and a [`net::Network`] on an
//! event loop, or inside register writes where there is none.
//!
//! *Invariants*: the guest is hostile. What it says about memory is checked where it is used; a turn
//! looks at a bounded number of descriptors, and a frame grows to [`net::FRAME_MAX`] at most. A frame
//! is taken from the network only when the ring has descriptors. While paused, nothing in guest
//! memory changes.
//!
//! *Locks*: the card's one lock, then the pin's or what the network has.
//!
//! *Deviations*: interrupts are not delayed (ITR, RDTR, TIDV are only kept); the check sequence
//! behind received frames is zero; the EEPROM cannot be written; loopback, flow control, wake-up,
//! UDP segmentation and the flash are not there; the link is always at 1 Gbit/s.
//!
//! What this crate may not know: engines, the board, where frames come from.
//!
//! Follows Intel's "PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual"
//! (317453); section numbers are of that document.

mod card;
mod eeprom;
mod filter;
mod offload;
mod phy;
mod receive;
mod registers;
mod spec;
mod state;
mod transmit;

pub use card::{E1000, E1000Wiring};

#[cfg(test)]
mod tests;
