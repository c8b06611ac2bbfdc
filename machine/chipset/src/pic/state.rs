//! Saved form.

use bus::{Saved, SectionError, saved_form};
use minicbor::{Decode, Encode};

use super::chip::{Chip, Phase};

#[derive(Encode, Decode)]
#[cbor(map)]
pub(super) struct SavedPic {
    #[n(0)]
    master: SavedChip,
    #[n(1)]
    slave: SavedChip,
}

impl Saved for SavedPic {
    const KIND: &'static str = "pic";
    const VERSION: u16 = 1;
}

saved_form! {
    struct SavedChip: Chip {
        #[n(0)] lines: u8;
        #[n(1)] edges: u8;
        #[n(2)] isr: u8;
        #[n(3)] imr: u8;
        #[n(4)] elcr: u8;
        #[n(5)] icw1: u8;
        #[n(6)] icw4: u8;
        #[n(7)] phase: u8, saved phase as u8, loaded phase_of(phase)?;
        #[n(8)] base: u8, loaded base & 0xf8;
        #[n(9)] lowest: u8, loaded lowest & 7;
        #[n(10)] special_mask: bool;
        #[n(11)] rotate_in_aeoi: bool;
        #[n(12)] poll: bool;
        #[n(13)] read_isr: bool;
    }
}

const PHASES: [Phase; 5] = [Phase::Off, Phase::Icw2, Phase::Icw3, Phase::Icw4, Phase::Ready];

fn phase_of(number: u8) -> Result<Phase, SectionError> {
    PHASES.get(usize::from(number)).copied().ok_or_else(|| SectionError::Impossible {
        kind: SavedPic::KIND,
        reason: format!("initialisation phase {number}"),
    })
}

impl From<&[Chip; 2]> for SavedPic {
    fn from([master, slave]: &[Chip; 2]) -> Self {
        Self { master: master.into(), slave: slave.into() }
    }
}

impl TryFrom<SavedPic> for [Chip; 2] {
    type Error = SectionError;

    fn try_from(saved: SavedPic) -> Result<Self, SectionError> {
        let SavedPic { master, slave } = saved;
        Ok([master.try_into()?, slave.try_into()?])
    }
}
