//! One 8259A, without its surroundings.

use super::spec::*;

/// Which word an initialising chip waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Phase {
    /// Since power-up, no ICW1 has come.
    #[default]
    Off,
    Icw2,
    Icw3,
    Icw4,
    Ready,
}

/// The state of one chip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Chip {
    /// Levels of the inputs.
    pub lines: u8,
    /// Rising edges not yet acknowledged.
    pub edges: u8,
    pub isr: u8,
    pub imr: u8,
    /// Inputs that are level-triggered.
    pub elcr: u8,
    pub icw1: u8,
    pub icw4: u8,
    pub phase: Phase,
    /// Bits 3 to 7 of the vectors.
    pub base: u8,
    /// The input of the lowest priority.
    pub lowest: u8,
    pub special_mask: bool,
    pub rotate_in_aeoi: bool,
    /// The next read is a poll.
    pub poll: bool,
    /// The even port reads as ISR.
    pub read_isr: bool,
}

impl Chip {
    /// The state after power-up. ELCR is the board's, and the levels are the wires'.
    pub fn at_reset(lines: u8) -> Self {
        Self { lines, lowest: 7, ..Self::default() }
    }

    fn level_triggered(&self) -> u8 {
        if self.icw1 & ICW1_LTIM != 0 { 0xff } else { self.elcr }
    }

    /// Interrupt request register.
    pub fn irr(&self) -> u8 {
        let level = self.level_triggered();
        self.edges & !level | self.lines & level
    }

    /// Drives an input. An edge stays latched when the line falls before the acknowledge, so that
    /// a pulse is enough (the datasheet wants the line high until then); that of the cascade,
    /// which stands for another chip's requests, does not.
    pub fn set_line(&mut self, input: u8, level: bool, keep_edge: bool) {
        let bit = 1 << input;
        if level {
            self.edges |= bit & !self.lines;
            self.lines |= bit;
        } else {
            self.lines &= !bit;
            if !keep_edge {
                self.edges &= !bit;
            }
        }
    }

    /// The set bit of the highest priority.
    fn highest(&self, bits: u8) -> Option<u8> {
        (1..=8).map(|i| (self.lowest + i) & 7).find(|input| bits & (1 << input) != 0)
    }

    fn priority(&self, input: u8) -> u8 {
        input.wrapping_sub(self.lowest + 1) & 7
    }

    /// The input whose request drives INT.
    pub fn request(&self, is_master: bool) -> Option<u8> {
        if self.phase != Phase::Ready {
            return None;
        }
        let mut serving = self.isr;
        if self.special_mask {
            serving &= !self.imr;
        }
        if is_master && self.icw4 & ICW4_SFNM != 0 {
            serving &= !(1 << CASCADE); // the slave orders its own requests
        }
        let wanted = self.highest(self.irr() & !self.imr)?;
        let blocked =
            self.highest(serving).is_some_and(|s| self.priority(s) <= self.priority(wanted));
        (!blocked).then_some(wanted)
    }

    /// The first INTA cycle: takes the request, or makes up a spurious one.
    pub fn acknowledge(&mut self, is_master: bool) -> u8 {
        let Some(input) = self.request(is_master) else { return SPURIOUS };
        let bit = 1 << input;
        self.edges &= !bit;
        if self.icw4 & ICW4_AEOI == 0 {
            self.isr |= bit;
        } else if self.rotate_in_aeoi {
            self.lowest = input;
        }
        input
    }

    pub fn vector(&self, input: u8) -> u8 {
        self.base | input
    }

    /// Reads the even (`false`) or the odd port.
    pub fn read(&mut self, odd: bool, is_master: bool) -> u8 {
        if std::mem::take(&mut self.poll) {
            return match self.request(is_master) {
                Some(_) => POLL_I | self.acknowledge(is_master),
                None => 0,
            };
        }
        match (odd, self.read_isr) {
            (true, _) => self.imr,
            (false, true) => self.isr,
            (false, false) => self.irr(),
        }
    }

    pub fn write(&mut self, odd: bool, value: u8) {
        match (odd, self.phase) {
            (false, _) if value & ICW1 != 0 => self.begin(value),
            (false, _) if value & OCW3 != 0 => self.ocw3(value),
            (false, _) => self.ocw2(value),
            (true, Phase::Icw2) => {
                self.base = value & 0xf8;
                self.phase =
                    if self.icw1 & ICW1_SNGL == 0 { Phase::Icw3 } else { self.after_icw3() };
            }
            // ICW3 says where the cascade is; the board has wired it.
            (true, Phase::Icw3) => self.phase = self.after_icw3(),
            (true, Phase::Icw4) => {
                self.icw4 = value;
                self.phase = Phase::Ready;
            }
            (true, Phase::Off | Phase::Ready) => self.imr = value,
        }
    }

    fn after_icw3(&self) -> Phase {
        if self.icw1 & ICW1_IC4 != 0 { Phase::Icw4 } else { Phase::Ready }
    }

    /// ICW1. Lines, ELCR and vectors stay.
    fn begin(&mut self, icw1: u8) {
        let Self { lines, elcr, base, .. } = *self;
        *self = Self { elcr, base, icw1, phase: Phase::Icw2, ..Self::at_reset(lines) };
    }

    fn ocw2(&mut self, value: u8) {
        let level = value & 7;
        let rotate = value & OCW2_R != 0;
        match (value & OCW2_EOI != 0, value & OCW2_SL != 0) {
            (true, specific) => {
                let masked = if self.special_mask { self.imr } else { 0 };
                let ended = if specific { Some(level) } else { self.highest(self.isr & !masked) };
                if let Some(input) = ended {
                    self.isr &= !(1 << input);
                    if rotate {
                        self.lowest = input;
                    }
                }
            }
            (false, true) if rotate => self.lowest = level,
            (false, true) => {}
            (false, false) => self.rotate_in_aeoi = rotate,
        }
    }

    fn ocw3(&mut self, value: u8) {
        self.poll = value & OCW3_P != 0;
        if value & OCW3_RR != 0 {
            self.read_isr = value & OCW3_RIS != 0;
        }
        if value & OCW3_ESMM != 0 {
            self.special_mask = value & OCW3_SMM != 0;
        }
    }
}
