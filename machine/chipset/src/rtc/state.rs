//! The RTC's state, and its saved form.

use bus::{Saved, SectionError, saved_form};

use super::spec::*;

/// What changes while the guest runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub index: u8,
    pub index_high: u8,
    /// Memory. Clock registers in it are used only while the guest sets the time, alarm registers
    /// and registers A and B always.
    pub cmos: [u8; CMOS_SIZE],
    /// The flags of register C, without IRQF.
    pub flags: u8,
    /// Wall time at machine time 0, in nanoseconds since 1970.
    pub epoch_ns: i64,
    /// Machine time up to which events are in `flags`.
    pub seen_ns: u64,
}

saved_form! {
    pub(super) struct SavedRtc: State {
        #[n(0)] index: u8, loaded index & 0x7f;
        #[n(1)] index_high: u8, loaded index_high & 0x7f;
        #[cbor(n(2), with = "minicbor::bytes")]
        cmos: Vec<u8>, saved cmos.into(), loaded cmos_of(&cmos)?;
        #[n(3)] flags: u8, loaded flags & (C_PF | C_AF | C_UF);
        #[n(4)] epoch_ns: i64;
        #[n(5)] seen_ns: u64;
    }
}

impl Saved for SavedRtc {
    const KIND: &'static str = "rtc";
    const VERSION: u16 = 1;
}

fn cmos_of(bytes: &[u8]) -> Result<[u8; CMOS_SIZE], SectionError> {
    bytes.try_into().map_err(|_| SectionError::Impossible {
        kind: SavedRtc::KIND,
        reason: format!("{} bytes of CMOS", bytes.len()),
    })
}
