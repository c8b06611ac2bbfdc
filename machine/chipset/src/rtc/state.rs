//! The RTC's state, and its saved form.

use bus::{Saved, SectionError};
use minicbor::{Decode, Encode};

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

#[derive(Encode, Decode)]
#[cbor(map)]
pub(super) struct SavedRtc {
    #[n(0)]
    index: u8,
    #[n(1)]
    index_high: u8,
    #[cbor(n(2), with = "minicbor::bytes")]
    cmos: Vec<u8>,
    #[n(3)]
    flags: u8,
    #[n(4)]
    epoch_ns: i64,
    #[n(5)]
    seen_ns: u64,
}

impl Saved for SavedRtc {
    const KIND: &'static str = "rtc";
    const VERSION: u16 = 1;
}

impl From<&State> for SavedRtc {
    fn from(state: &State) -> Self {
        let State { index, index_high, cmos, flags, epoch_ns, seen_ns } = state.clone();
        Self { index, index_high, cmos: cmos.to_vec(), flags, epoch_ns, seen_ns }
    }
}

impl TryFrom<SavedRtc> for State {
    type Error = SectionError;

    fn try_from(saved: SavedRtc) -> Result<Self, SectionError> {
        let SavedRtc { index, index_high, cmos, flags, epoch_ns, seen_ns } = saved;
        let cmos = <[u8; CMOS_SIZE]>::try_from(cmos).map_err(|cmos| SectionError::Impossible {
            kind: SavedRtc::KIND,
            reason: format!("{} bytes of CMOS", cmos.len()),
        })?;
        Ok(Self {
            index: index & 0x7f,
            index_high: index_high & 0x7f,
            cmos,
            flags: flags & (C_PF | C_AF | C_UF),
            epoch_ns,
            seen_ns,
        })
    }
}
