//! The high-precision event timer (IA-PC HPET specification 1.0a): a 64-bit counter at 100 MHz
//! and three comparators, each one-shot or periodic, with lines, legacy replacement or messages.
//!
//! In legacy replacement timers 0 and 1 take the PIT's and the RTC's interrupt lines. Both
//! therefore drive the HPET, inputs 0 and 8, which passes them on otherwise.
//!
//! A match sets a status bit (level) or pulses the line (edge); matches missed are merged.

mod comparator;
pub mod spec;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, Weak};

use bus::{BusDevice, Device, LineSink, MsiSink, Section, SectionError};
use machine_clock::{MachineClock, Timer};
use x86_state::Msi;

use crate::lock;
use crate::ports::{answer, number};
use crate::time::WAKE_INTERVAL_NS_MIN;
use comparator::Comparator;
use spec::*;
use state::{SavedHpet, State};

/// The device.
pub struct Hpet {
    // Wiring.
    clock: Arc<MachineClock>,
    irqs: Arc<dyn LineSink>,
    messages: Arc<dyn MsiSink>,
    timer: Timer,
    // State.
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    state: State,
    /// The levels of the lines we drive, a bit each.
    lines: u32,
    /// The levels of the PIT's and the RTC's lines, by IRQ.
    legacy: u32,
}

impl Hpet {
    /// An HPET on `irqs`: ISA IRQs 0 and 8 for legacy replacement, inputs 20 to 23 otherwise.
    pub fn new(
        clock: &Arc<MachineClock>,
        irqs: Arc<dyn LineSink>,
        messages: Arc<dyn MsiSink>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|weak: &Weak<Self>| {
            let hpet = weak.clone();
            let timer = clock.timer(move || {
                if let Some(hpet) = hpet.upgrade() {
                    hpet.sync(&mut lock(&hpet.inner));
                }
            });
            Self { clock: clock.clone(), irqs, messages, timer, inner: Mutex::default() }
        })
    }

    /// Legacy replacement is on: the PIT's and the RTC's interrupts are cut off.
    pub fn replaces_legacy(&self) -> bool {
        lock(&self.inner).state.replaces_legacy()
    }

    /// Delivers the matches since the last time, re-derives lines and the next wake-up.
    fn sync(&self, inner: &mut Inner) {
        if inner.state.runs() {
            let counter = inner.state.counter(CLOCK.ticks(self.clock.now_ns()));
            let seen = std::mem::replace(&mut inner.state.seen, counter);
            for i in 0..TIMERS {
                let timer = &mut inner.state.timers[i];
                let passed = counter.wrapping_sub(seen);
                if timer.ticks_to_match(seen).is_some_and(|distance| distance <= passed) {
                    timer.advance(counter);
                    self.interrupt(inner, i);
                }
            }
        }
        self.drive(inner);
        self.timer.set(inner.state.next_interrupt_ns());
    }

    /// Timer `i` has matched.
    fn interrupt(&self, inner: &mut Inner, i: usize) {
        let timer = &inner.state.timers[i];
        if !timer.has(INT_ENB_CNF) {
            return;
        }
        let irq = inner.state.irq(i);
        match irq {
            None => self
                .messages
                .send_msi(Msi { address: timer.fsb_route >> 32, data: timer.fsb_route as u32 }),
            Some(_) if timer.has(INT_TYPE_CNF) => inner.state.status |= 1 << i,
            Some(irq) => {
                self.irqs.set_line(irq, true);
                self.irqs.set_line(irq, inner.lines & 1 << irq != 0);
            }
        }
    }

    /// Drives the level-triggered lines, where they have changed.
    fn drive(&self, inner: &mut Inner) {
        let lines = inner.state.lines();
        let changed = std::mem::replace(&mut inner.lines, lines) ^ lines;
        for irq in bits(changed) {
            self.irqs.set_line(irq, lines & 1 << irq != 0);
        }
    }

    /// Replaces the state, and drives all lines whatever their levels were. Matches not yet seen
    /// wait for the clock.
    fn replace(&self, state: State) {
        let mut inner = lock(&self.inner);
        let lines = state.lines();
        for irq in bits(lines | inner.lines) {
            self.irqs.set_line(irq, lines & 1 << irq != 0);
        }
        inner.lines = lines;
        self.timer.set(state.next_interrupt_ns());
        self.connect_legacy(&inner, state.replaces_legacy());
        inner.state = state;
    }

    /// Passes the legacy lines on, or cuts them off.
    fn connect_legacy(&self, inner: &Inner, replaced: bool) {
        for irq in [LEGACY_IRQ_0, LEGACY_IRQ_1] {
            self.irqs.set_line(irq, !replaced && inner.legacy & 1 << irq != 0);
        }
    }

    fn write_register(&self, inner: &mut Inner, register: u64, value: u64, written: u64) {
        let now = CLOCK.ticks(self.clock.now_ns());
        let state = &mut inner.state;
        let merge = |old: u64| old & !written | value & written;
        match register {
            CONFIGURATION => {
                let replaced = state.replaces_legacy();
                let counter = state.counter(now);
                state.configuration = merge(state.configuration) & (ENABLE_CNF | LEG_RT_CNF);
                state.set_counter(counter, now);
                let replaces = state.replaces_legacy();
                if replaces != replaced {
                    self.connect_legacy(inner, replaces);
                }
            }
            STATUS => state.status &= !(value & written),
            // While the counter runs its value is undefined by the specification; it is set.
            COUNTER => {
                let counter = merge(state.counter(now));
                state.set_counter(counter, now);
            }
            _ => {
                if let Some((timer, register)) = timer_of(register) {
                    state.timers[timer].write(register, value, written);
                    if !state.timers[timer].has(INT_TYPE_CNF) {
                        state.status &= !(1 << timer);
                    }
                }
            }
        }
    }
}

/// The set bits' numbers.
fn bits(mask: u32) -> impl Iterator<Item = u32> {
    (0..u32::BITS).filter(move |bit| mask & 1 << bit != 0)
}

/// Which comparator an offset belongs to, and its register.
fn timer_of(offset: u64) -> Option<(usize, u64)> {
    let offset = offset.checked_sub(TIMER_BASE)?;
    let timer = (offset / TIMER_STRIDE) as usize;
    (timer < TIMERS).then_some((timer, offset % TIMER_STRIDE))
}

impl State {
    fn runs(&self) -> bool {
        self.configuration & ENABLE_CNF != 0
    }

    fn replaces_legacy(&self) -> bool {
        self.configuration & LEG_RT_CNF != 0
    }

    fn counter(&self, now: u64) -> u64 {
        self.counter_base.wrapping_add(if self.runs() { now } else { 0 })
    }

    fn set_counter(&mut self, counter: u64, now: u64) {
        self.counter_base = counter.wrapping_sub(if self.runs() { now } else { 0 });
        self.seen = counter;
    }

    /// The line of timer `i`; `None` when it sends messages.
    fn irq(&self, i: usize) -> Option<u32> {
        let timer = &self.timers[i];
        match i {
            0 if self.replaces_legacy() => Some(LEGACY_IRQ_0),
            1 if self.replaces_legacy() => Some(LEGACY_IRQ_1),
            _ if timer.has(FSB_EN_CNF) => None,
            _ => Some((timer.configuration >> INT_ROUTE_SHIFT & 0x1f) as u32),
        }
    }

    /// The levels of the lines: level-triggered timers whose interrupt is pending and enabled.
    fn lines(&self) -> u32 {
        (0..TIMERS)
            .filter(|i| self.status & 1 << i != 0 && self.timers[*i].has(INT_ENB_CNF))
            .filter_map(|i| self.irq(i))
            .fold(0, |lines, irq| lines | 1 << irq)
    }

    /// Machine time of the next match that the guest will notice.
    fn next_interrupt_ns(&self) -> Option<u64> {
        let awaited =
            |(i, timer): &(usize, &Comparator)| timer.has(INT_ENB_CNF) && self.status & 1 << i == 0;
        let timers = self.timers.iter().enumerate().filter(|_| self.runs()).filter(awaited);
        let distance = timers.filter_map(|(_, timer)| timer.ticks_to_match(self.seen)).min()?;
        let seen = self.seen.wrapping_sub(self.counter_base);
        let earliest_ns = CLOCK.ns(seen).saturating_add(WAKE_INTERVAL_NS_MIN);
        Some(CLOCK.ns(seen.saturating_add(distance)).max(earliest_ns))
    }

    fn read(&self, register: u64, now: u64) -> u64 {
        match register {
            CAPABILITIES => CAPABILITIES_VALUE,
            CONFIGURATION => self.configuration,
            STATUS => self.status,
            COUNTER => self.counter(now),
            _ => {
                timer_of(register).map_or(0, |(timer, register)| self.timers[timer].read(register))
            }
        }
    }
}

impl BusDevice for Hpet {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let inner = &mut *lock(&self.inner);
        self.sync(inner);
        let now = CLOCK.ticks(self.clock.now_ns());
        answer(data, inner.state.read(offset & !7, now) >> (8 * (offset & 7)));
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let at = offset & 7;
        // Registers are written by halves or whole (2.3.2); the rest is undefined, and ignored.
        let written = match (data.len(), at) {
            (8, 0) => u64::MAX,
            (4, 0 | 4) => u64::from(u32::MAX) << (8 * at),
            _ => return,
        };
        let inner = &mut *lock(&self.inner);
        self.sync(inner);
        self.write_register(inner, offset & !7, number(data) << (8 * at), written);
        self.sync(inner);
    }
}

/// The PIT's (0) and the RTC's (8) interrupt lines.
impl LineSink for Hpet {
    fn set_line(&self, input: u32, level: bool) {
        if !matches!(input, LEGACY_IRQ_0 | LEGACY_IRQ_1) {
            return;
        }
        let mut inner = lock(&self.inner);
        inner.legacy = inner.legacy & !(1 << input) | u32::from(level) << input;
        if !inner.state.replaces_legacy() {
            self.irqs.set_line(input, level);
        }
    }
}

impl Device for Hpet {
    fn reset(&self) {
        self.replace(State::default());
    }

    fn save(&self) -> Section {
        Section::encode(&SavedHpet::from(&lock(&self.inner).state))
    }

    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        self.replace(State::try_from(section.decode::<SavedHpet>()?)?);
        Ok(())
    }
}
