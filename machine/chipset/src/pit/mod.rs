//! The 8254 interval timer (Intel 231164-005) and system control port B.
//!
//! Counter 0 drives IRQ 0, counter 2 the speaker's gate and port B; counter 1 refreshed memory.
//! A timer is armed only for rising edges of counter 0, and for a periodic one only while the
//! line is heard, plus once: that edge stays latched in a masked PIC, as all further ones would.
//!
//! A guest that counts ticks must get those that a late host missed: they follow one by one, four
//! times as fast as they should have come, so that one can be taken before the next.

mod counter;
pub mod spec;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, Weak};

use bus::{BusDevice, Device, Line, Section, SectionError};
use machine_clock::{MachineClock, Timer};

use crate::lock;
use crate::ports::{read_bytes, write_bytes};
use crate::time::WAKE_INTERVAL_NS_MIN;
use spec::*;
use state::{SavedPit, State};

pub use spec::PORTS;

/// Says whether a line's interrupt could get through now.
pub type IsHeard = Box<dyn Fn() -> bool + Send + Sync>;

/// The device.
pub struct Pit {
    // Wiring.
    clock: Arc<MachineClock>,
    irq: Line,
    is_heard: IsHeard,
    timer: Timer,
    // State.
    inner: Mutex<Inner>,
}

struct Inner {
    state: State,
    /// The level of `irq`.
    level: bool,
    /// No edge of a periodic counter before this time.
    next_ns: u64,
}

/// Missed ticks that are made up for: what a busy host is late, not what a suspended one slept.
const BACKLOG_MAX: u64 = 64;
/// Ticks made up for in the time of one.
const CATCH_UP: u64 = 4;

impl Pit {
    /// A PIT with counter 0 on `irq`. `is_heard` is asked under the device's lock;
    /// [`Pit::unmasked`] must be called when its answer may have become true.
    pub fn new(clock: &Arc<MachineClock>, irq: Line, is_heard: IsHeard) -> Arc<Self> {
        irq.set(true);
        Arc::new_cyclic(|weak: &Weak<Self>| {
            let pit = weak.clone();
            let timer = clock.timer(move || {
                if let Some(pit) = pit.upgrade() {
                    pit.sync(&mut lock(&pit.inner));
                }
            });
            let state = State::at_reset(CLK.ticks(clock.now_ns()));
            let inner = Mutex::new(Inner { state, level: true, next_ns: 0 });
            Self { clock: clock.clone(), irq, is_heard, timer, inner }
        })
    }

    /// The line may be heard again.
    pub fn unmasked(&self) {
        let mut inner = lock(&self.inner);
        if inner.state.hushed && (self.is_heard)() {
            // The ticks missed are gone: the first of them is latched where it could be.
            inner.state.hushed = false;
            inner.state.told = self.now();
            self.sync(&mut inner);
        }
    }

    fn now(&self) -> u64 {
        CLK.ticks(self.clock.now_ns())
    }

    /// Brings the line up to date and arms the timer for its next edge.
    fn sync(&self, inner: &mut Inner) {
        let now_ns = self.clock.now_ns();
        let now = CLK.ticks(now_ns);
        let Inner { state, level, next_ns } = inner;
        let counter = &state.counters[0];
        if let Some(period) = counter.period() {
            state.told = state.told.max(now.saturating_sub(BACKLOG_MAX * period));
        }
        let rise = counter.next_rise(state.told).filter(|rise| *rise <= now);
        let waits = rise.is_some() && counter.period().is_some() && now_ns < *next_ns;
        state.settle(now);
        let counter = &state.counters[0];
        if let Some(rise) = rise.filter(|_| !waits) {
            if *level {
                self.irq.set(false);
            }
            self.irq.set(true);
            *level = true;
            state.told = rise;
            if let Some(period) = counter.period() {
                let pause_ns = CLK.ns(period) / CATCH_UP;
                *next_ns = now_ns.saturating_add(pause_ns.max(WAKE_INTERVAL_NS_MIN));
                state.hushed = !(self.is_heard)();
            }
        }
        let out = counter.out(now);
        if out != *level {
            *level = out;
            self.irq.set(out);
        }
        self.arm(inner);
    }

    fn arm(&self, inner: &Inner) {
        let Inner { state, next_ns, .. } = inner;
        let counter = &state.counters[0];
        let rise = counter.next_rise(state.told).filter(|_| !state.hushed);
        let earliest_ns = if counter.period().is_some() { *next_ns } else { 0 };
        self.timer.set(rise.map(|tick| CLK.ns(tick).max(earliest_ns)));
    }

    /// Replaces the state, and drives the line whatever its level was. Edges that have not
    /// reached it wait for the clock.
    fn replace(&self, state: State) {
        let mut inner = lock(&self.inner);
        *inner = Inner { level: state.counters[0].out(state.told), state, next_ns: 0 };
        self.irq.set(inner.level);
        self.arm(&inner);
    }
}

impl State {
    fn settle(&mut self, now: u64) {
        for counter in &mut self.counters {
            counter.settle(now);
        }
    }

    fn read(&mut self, at: u64, now: u64, now_ns: u64) -> u8 {
        match at {
            COUNTER_0..=COUNTER_2 => self.counters[at as usize].read(now),
            PORT_B => {
                let refresh = if (now_ns / REFRESH_NS) & 1 != 0 { PORT_B_REFRESH } else { 0 };
                let out = if self.counters[2].out(now) { PORT_B_OUT_2 } else { 0 };
                self.port_b | refresh | out
            }
            _ => 0xff, // the control word register cannot be read
        }
    }

    fn write(&mut self, at: u64, value: u8, now: u64) {
        match at {
            COUNTER_0..=COUNTER_2 => self.counters[at as usize].write(value, now),
            CONTROL if value >> SC_SHIFT == SC_READ_BACK => self.read_back(value, now),
            CONTROL => {
                let counter = &mut self.counters[usize::from(value >> SC_SHIFT)];
                if value >> RW_SHIFT & 3 == 0 {
                    counter.latch_count(now);
                } else {
                    counter.set_control(value);
                }
            }
            PORT_B => {
                self.port_b = value & PORT_B_WRITABLE;
                self.counters[2].set_gate(value & PORT_B_GATE_2 != 0, now);
            }
            _ => {}
        }
    }

    fn read_back(&mut self, value: u8, now: u64) {
        for (i, counter) in self.counters.iter_mut().enumerate() {
            if value & 2 << i != 0 {
                if value & READ_BACK_NO_COUNT == 0 {
                    counter.latch_count(now);
                }
                if value & READ_BACK_NO_STATUS == 0 {
                    counter.latch_status(now);
                }
            }
        }
    }
}

impl BusDevice for Pit {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let inner = &mut *lock(&self.inner);
        let now_ns = self.clock.now_ns();
        let now = CLK.ticks(now_ns);
        self.sync(inner);
        read_bytes(offset, data, |at| inner.state.read(at, now, now_ns));
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let inner = &mut *lock(&self.inner);
        self.sync(inner); // edges until now belong to the old programming
        let now = self.now();
        write_bytes(offset, data, |at, value| inner.state.write(at, value, now));
        inner.state.hushed &= inner.state.counters[0].period().is_some();
        self.sync(inner);
    }
}

impl Device for Pit {
    fn reset(&self) {
        self.replace(State::at_reset(self.now()));
    }

    fn save(&self) -> Section {
        Section::encode(&SavedPit::from(&lock(&self.inner).state))
    }

    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        let state = State::try_from(section.decode::<SavedPit>()?)?;
        self.replace(state);
        Ok(())
    }
}
