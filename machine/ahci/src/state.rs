//! What the controller remembers, and its saved form.

use bus::{Saved, saved_form};

use crate::spec::*;

/// Generic registers.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostState {
    pub(crate) ghc: u32,
    pub(crate) is: u32,
    pub(crate) ports: Vec<PortState>,
}

/// A port, and what the device behind it remembers.
#[derive(Debug, Clone, Default)]
pub(crate) struct PortState {
    pub(crate) clb: u64,
    pub(crate) fb: u64,
    pub(crate) is: u32,
    pub(crate) ie: u32,
    pub(crate) cmd: u32,
    /// Status in the low byte, error above it.
    pub(crate) tfd: u32,
    pub(crate) sig: u32,
    pub(crate) sctl: u32,
    pub(crate) serr: u32,
    pub(crate) sact: u32,
    pub(crate) ci: u32,
    /// An error has stopped the list until the driver starts it again.
    pub(crate) halted: bool,
    /// The signature has not been received yet.
    pub(crate) signature_waits: bool,
    /// A software reset has begun.
    pub(crate) resetting: bool,
    /// Sectors of READ and WRITE MULTIPLE.
    pub(crate) multiple: u8,
    /// The write cache is off.
    pub(crate) write_through: bool,
    /// Tag and error register of the queued command that failed last.
    pub(crate) ncq_error: (u8, u8),
    /// Registers a command without data answers in.
    pub(crate) lba: u64,
    pub(crate) count: u8,
    pub(crate) cd: Cd,
}

/// A CD-ROM drive.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cd {
    /// Key, code and qualifier of what went wrong last.
    pub(crate) sense: (u8, u8, u8),
    /// The disc is new, which the next command shall learn.
    pub(crate) changed: bool,
    /// The same, for who asks for events.
    pub(crate) inserted: bool,
    pub(crate) locked: bool,
    pub(crate) ejected: bool,
}

saved_form! {
    /// Version 1.
    pub(crate) struct SavedHost: HostState {
        #[n(0)] ghc: u32, loaded ghc & GHC_IE | GHC_AE;
        #[n(1)] is: u32;
        #[n(2)] ports: Vec<SavedPort>, saved ports.iter().map(SavedPort::from).collect(),
            loaded ports.into_iter().map(PortState::try_from).collect::<Result<_, _>>()?;
    }
}

impl Saved for SavedHost {
    const KIND: &'static str = "ahci";
    const VERSION: u16 = 1;
}

saved_form! {
    /// Version 1.
    pub(crate) struct SavedPort: PortState {
        #[n(0)] clb: u64, loaded clb & !0x3ff;
        #[n(1)] fb: u64, loaded fb & !0xff;
        #[n(2)] is: u32;
        #[n(3)] ie: u32, loaded ie & IE_WRITABLE;
        #[n(4)] cmd: u32;
        #[n(5)] tfd: u32, loaded tfd & 0xffff;
        #[n(6)] sig: u32;
        #[n(7)] sctl: u32;
        #[n(8)] serr: u32;
        #[n(9)] sact: u32;
        #[n(10)] ci: u32;
        #[n(11)] halted: bool;
        #[n(12)] signature_waits: bool;
        #[n(13)] resetting: bool;
        #[n(14)] multiple: u8;
        #[n(15)] write_through: bool;
        #[n(16)] ncq_error: (u8, u8);
        #[n(17)] lba: u64;
        #[n(18)] count: u8;
        #[n(19)] cd: SavedCd, saved SavedCd::from(&cd), loaded Cd::try_from(cd)?;
    }
}

saved_form! {
    /// Version 1.
    pub(crate) struct SavedCd: Cd {
        #[n(0)] sense: (u8, u8, u8);
        #[n(1)] changed: bool;
        #[n(2)] inserted: bool;
        #[n(3)] locked: bool;
        #[n(4)] ejected: bool;
    }
}
