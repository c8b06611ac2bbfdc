//! The legacy devices of the board: what a PC has below PCI.
//!
//! Each device is a folder of one shape: `mod.rs` (the device), `spec.rs` (registers and bits by
//! their datasheet's names), `state.rs` (saved form), `tests.rs`. Each implements
//! [`bus::BusDevice`] and [`bus::Device`]; the board decides where it is mapped and what its
//! lines are wired to. A device that answers at several port ranges lists them as `PORTS` for
//! [`map_ports`].
//!
//! *Invariants*: no guest access panics, blocks or allocates without bound. All time is
//! [`machine_clock`]'s; a device arms a timer only for an interrupt that the guest can see, so an
//! idle guest is left alone. Ticks missed (the host was late) are merged into one.
//!
//! *Locks*: one a device, held while it drives its line. Their order is that of the wires: PIT and
//! RTC before HPET before PIC and IOAPIC before the socket.
//!
//! *Restoring and resetting*: first the devices, then what their lines drive: the PIC and the
//! IOAPIC last. A device drives its line at the level it had and leaves what was due to its timer;
//! the controllers then take back the levels and edges they had, whatever was driven meanwhile.
//!
//! What this crate may not know: engines, KVM, threads, sockets, files, the wall clock.

pub mod debug_exit;
pub mod debugcon;
pub mod fw_cfg;
pub mod hotplug;
pub mod hpet;
pub mod i8042;
pub mod ioapic;
pub mod pflash;
pub mod pic;
pub mod pit;
pub mod pm;
pub mod reset_control;
pub mod rtc;
pub mod testdev;
pub mod uart;

mod irq_lines;
mod ports;
mod power;
mod time;

pub use debug_exit::DebugExit;
pub use debugcon::DebugCon;
pub use fw_cfg::{FwCfg, FwCfgError, FwCfgItems};
pub use hotplug::{Hotplug, HotplugConfig, HotplugSink};
pub use hpet::Hpet;
pub use i8042::{I8042, Key, Motion};
pub use ioapic::{IoApic, RouteSink};
pub use irq_lines::{IrqLines, PciLines};
pub use pflash::{Flash, FlashArray, FlashSink, NotKept};
pub use pic::Pic;
pub use pit::Pit;
pub use pm::{Pm, TimerWidth};
pub use ports::{PortRange, map_ports};
pub use power::{PowerEvent, PowerSink};
pub use reset_control::ResetControl;
pub use rtc::{Rtc, RtcConfig};
pub use testdev::{PageUnmapSink, TestDevice};
pub use uart::{ByteSink, Uart};

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Something to be told, without details.
pub type Callback = Box<dyn Fn() + Send + Sync>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod fakes;
