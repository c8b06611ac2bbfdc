//! One counter of the 8254, in ticks of its clock.
//!
//! Nothing counts: the counter remembers when its counting element was loaded and derives the
//! rest. The clock that loads is accounted for, so a count written at tick `t` is loaded at
//! `t + 1`.

use super::spec::*;

/// The counting element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Element {
    /// What it was loaded with; 0: with nothing yet.
    pub count: u32,
    /// When it was loaded, or while held, how many ticks it has counted.
    pub at: u64,
    /// Held by the gate.
    pub held: bool,
}

/// The state of one counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counter {
    /// RW, mode and BCD, as written.
    pub control: u8,
    /// The count register; 0: nothing written since the control word.
    pub register: u32,
    pub element: Element,
    /// When the register will be loaded, if it waits for the end of a period.
    pub reload_at: Option<u64>,
    pub gate: bool,
    /// The first byte of a count of two.
    pub written_low: Option<u8>,
    /// The next byte read is the second of two.
    pub read_high: bool,
    pub latched_count: Option<u16>,
    pub latched_status: Option<u8>,
}

impl Counter {
    /// Undefined by the datasheet; a square wave that nobody started has OUT high, so that
    /// programming counter 0 makes no edge.
    pub fn at_reset(gate: bool) -> Self {
        Self { gate, control: (RW_LSB | RW_MSB) << RW_SHIFT | 3 << M_SHIFT, ..Self::default() }
    }

    fn mode(&self) -> u8 {
        let mode = self.control >> M_SHIFT & 7;
        if mode > 5 { mode & 3 } else { mode }
    }

    fn rw(&self) -> u8 {
        self.control >> RW_SHIFT & 3
    }

    fn bcd(&self) -> bool {
        self.control & BCD != 0
    }

    /// Ticks between two rising edges of OUT, of a mode that repeats.
    pub fn period(&self) -> Option<u64> {
        matches!(self.mode(), 2 | 3).then(|| self.length())
    }

    /// The length of a period. A count of 1 is illegal in periodic modes and taken as 2.
    fn length(&self) -> u64 {
        u64::from(self.element.count.max(2))
    }

    /// Ticks since the element was loaded.
    fn elapsed(&self, now: u64) -> u64 {
        if self.element.held { self.element.at } else { now.saturating_sub(self.element.at) }
    }

    /// Loads what was waiting for the end of a period.
    pub fn settle(&mut self, now: u64) {
        if let Some(at) = self.reload_at.filter(|at| *at <= now) {
            self.element = Element { count: self.register, at, held: false };
            self.reload_at = None;
        }
    }

    fn load(&mut self, now: u64) {
        self.element = Element { count: self.register, at: now.saturating_add(1), held: false };
        self.reload_at = None;
    }

    /// OUT, after [`Counter::settle`].
    pub fn out(&self, now: u64) -> bool {
        let Element { count, held, .. } = self.element;
        let elapsed = self.elapsed(now);
        let done = elapsed >= u64::from(count);
        match self.mode() {
            0 => count != 0 && done,
            _ if count == 0 => true,
            1 => done,
            2 => held || elapsed % self.length() != self.length() - 1,
            3 => held || elapsed % self.length() < self.length().div_ceil(2),
            _ => elapsed != u64::from(count),
        }
    }

    /// The first rising edge of OUT after tick `after`.
    pub fn next_rise(&self, after: u64) -> Option<u64> {
        let Element { count, at, held } = self.element;
        if count == 0 || held {
            return None;
        }
        let rise = match self.mode() {
            0 | 1 => at.saturating_add(u64::from(count)),
            2 | 3 => {
                let periods = after.saturating_sub(at) / self.length() + 1;
                at.saturating_add(periods.saturating_mul(self.length()))
            }
            _ => at.saturating_add(u64::from(count) + 1),
        };
        (rise > after).then_some(rise)
    }

    /// The count, as the guest reads it.
    fn count(&self, now: u64) -> u16 {
        let modulus: u64 = if self.bcd() { 10_000 } else { 0x1_0000 };
        let count = u64::from(self.element.count);
        let elapsed = self.elapsed(now);
        let value = match self.mode() {
            _ if count == 0 => 0,
            2 => count.saturating_sub(elapsed % self.length()),
            // Counts down by two, twice in a period; an odd count is loaded as an even one.
            3 => {
                let half = self.length().div_ceil(2);
                let done = elapsed % self.length() % half;
                (count & !1).saturating_sub(2 * done)
            }
            _ => (count % modulus + modulus - elapsed % modulus) % modulus,
        };
        let value = (value % modulus) as u16;
        if self.bcd() { to_bcd(value) } else { value }
    }

    fn status(&self, now: u64) -> u8 {
        let out = if self.out(now) { STATUS_OUT } else { 0 };
        let waits = self.element.count == 0
            || self.reload_at.is_some()
            || !self.element.held && now < self.element.at;
        out | if waits { STATUS_NULL_COUNT } else { 0 } | self.control & 0x3f
    }

    pub fn latch_count(&mut self, now: u64) {
        if self.latched_count.is_none() {
            self.latched_count = Some(self.count(now));
        }
    }

    pub fn latch_status(&mut self, now: u64) {
        if self.latched_status.is_none() {
            self.latched_status = Some(self.status(now));
        }
    }

    /// A control word for this counter, not a latch command.
    pub fn set_control(&mut self, value: u8) {
        *self = Self { control: value & 0x3f, gate: self.gate, ..Self::default() };
    }

    pub fn read(&mut self, now: u64) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let [low, high] = self.latched_count.unwrap_or_else(|| self.count(now)).to_le_bytes();
        let both = self.rw() == RW_LSB | RW_MSB;
        let wants_high = if both { self.read_high } else { self.rw() == RW_MSB };
        if both {
            self.read_high = !self.read_high;
        }
        if wants_high || !both {
            self.latched_count = None;
        }
        if wants_high { high } else { low }
    }

    pub fn write(&mut self, value: u8, now: u64) {
        match (self.rw(), self.written_low.take()) {
            (RW_LSB, _) => self.set_count(u16::from(value), now),
            (RW_MSB, _) => self.set_count(u16::from(value) << 8, now),
            (_, Some(low)) => self.set_count(u16::from_le_bytes([low, value]), now),
            (_, None) => {
                self.written_low = Some(value);
                if self.mode() == 0 {
                    self.element = Element::default(); // the first byte stops the count
                }
            }
        }
    }

    fn set_count(&mut self, raw: u16, now: u64) {
        self.register = match (raw, self.bcd()) {
            (0, false) => 0x1_0000,
            (0, true) => 10_000,
            (raw, false) => u32::from(raw),
            (raw, true) => from_bcd(raw),
        };
        match self.mode() {
            0 | 4 => {
                self.load(now);
                if !self.gate {
                    self.element = Element { at: 0, held: true, ..self.element };
                }
            }
            2 | 3 if self.element.count == 0 && self.gate => self.load(now),
            2 | 3 if !self.element.held => self.reload_at = self.next_rise(now),
            _ => {} // waits for the gate
        }
    }

    pub fn set_gate(&mut self, gate: bool, now: u64) {
        let before = std::mem::replace(&mut self.gate, gate);
        match (before, gate) {
            (false, true) => self.gate_rises(now),
            (true, false) => self.gate_falls(now),
            _ => {}
        }
    }

    fn gate_rises(&mut self, now: u64) {
        match self.mode() {
            0 | 4 if self.element.held => {
                let at = now.saturating_sub(self.element.at);
                self.element = Element { at, held: false, ..self.element };
            }
            0 | 4 => {}
            _ if self.register != 0 => self.load(now),
            _ => {}
        }
    }

    fn gate_falls(&mut self, now: u64) {
        if !matches!(self.mode(), 1 | 5) && self.element.count != 0 {
            self.element = Element { at: self.elapsed(now), held: true, ..self.element };
            self.reload_at = None;
        }
    }
}

fn to_bcd(value: u16) -> u16 {
    [1000, 100, 10, 1].iter().fold(0, |bcd, unit| (bcd << 4) | (value / unit % 10))
}

fn from_bcd(bcd: u16) -> u32 {
    [12, 8, 4, 0].iter().fold(0, |value, shift| value * 10 + u32::from(bcd >> shift & 0xf))
}
