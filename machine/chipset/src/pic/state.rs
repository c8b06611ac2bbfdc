//! Saved form.

use bus::{Saved, SectionError};
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

#[derive(Encode, Decode)]
#[cbor(map)]
struct SavedChip {
    #[n(0)]
    lines: u8,
    #[n(1)]
    edges: u8,
    #[n(2)]
    isr: u8,
    #[n(3)]
    imr: u8,
    #[n(4)]
    elcr: u8,
    #[n(5)]
    icw1: u8,
    #[n(6)]
    icw4: u8,
    #[n(7)]
    phase: u8,
    #[n(8)]
    base: u8,
    #[n(9)]
    lowest: u8,
    #[n(10)]
    special_mask: bool,
    #[n(11)]
    rotate_in_aeoi: bool,
    #[n(12)]
    poll: bool,
    #[n(13)]
    read_isr: bool,
}

const PHASES: [Phase; 5] = [Phase::Off, Phase::Icw2, Phase::Icw3, Phase::Icw4, Phase::Ready];

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

impl From<&Chip> for SavedChip {
    fn from(chip: &Chip) -> Self {
        let Chip {
            lines,
            edges,
            isr,
            imr,
            elcr,
            icw1,
            icw4,
            phase,
            base,
            lowest,
            special_mask,
            rotate_in_aeoi,
            poll,
            read_isr,
        } = *chip;
        let phase = phase as u8;
        Self {
            lines,
            edges,
            isr,
            imr,
            elcr,
            icw1,
            icw4,
            phase,
            base,
            lowest,
            special_mask,
            rotate_in_aeoi,
            poll,
            read_isr,
        }
    }
}

impl TryFrom<SavedChip> for Chip {
    type Error = SectionError;

    fn try_from(saved: SavedChip) -> Result<Self, SectionError> {
        let SavedChip {
            lines,
            edges,
            isr,
            imr,
            elcr,
            icw1,
            icw4,
            phase,
            base,
            lowest,
            special_mask,
            rotate_in_aeoi,
            poll,
            read_isr,
        } = saved;
        let phase = *PHASES.get(usize::from(phase)).ok_or_else(|| SectionError::Impossible {
            kind: SavedPic::KIND,
            reason: format!("initialisation phase {phase}"),
        })?;
        Ok(Self {
            lines,
            edges,
            isr,
            imr,
            elcr,
            icw1,
            icw4,
            phase,
            base: base & 0xf8,
            lowest: lowest & 7,
            special_mask,
            rotate_in_aeoi,
            poll,
            read_isr,
        })
    }
}
