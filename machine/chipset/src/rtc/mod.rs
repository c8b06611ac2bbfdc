//! The MC146818A real-time clock with 256 bytes of CMOS memory.
//!
//! Wall time is the configured start plus machine time, moved by what the guest sets. Flags are
//! raised when somebody looks; a timer runs only for an enabled interrupt that is not pending
//! yet, so a guest that does not answer is not ticked at.
//!
//! Deviation: an update takes no time, so UIP is only the warning before it.

mod calendar;
mod clock;
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
use clock::NS_PER_S;
use spec::*;
use state::{SavedRtc, State};

pub use spec::PORTS;

/// What the board decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RtcConfig {
    /// Wall time at machine time 0, in seconds since 1970.
    pub start_unix_s: i64,
    /// Bytes of CMOS memory, by index, for firmware. The clock's own registers are ignored.
    pub cmos: Vec<(u8, u8)>,
}

/// The device.
pub struct Rtc {
    // Wiring.
    clock: Arc<MachineClock>,
    irq: Line,
    timer: Timer,
    // State.
    inner: Mutex<Inner>,
}

struct Inner {
    state: State,
    /// The level of `irq`.
    level: bool,
}

impl Rtc {
    /// An RTC with its interrupt on `irq`.
    pub fn new(clock: &Arc<MachineClock>, irq: Line, config: &RtcConfig) -> Arc<Self> {
        Arc::new_cyclic(|weak: &Weak<Self>| {
            let rtc = weak.clone();
            let timer = clock.timer(move || {
                if let Some(rtc) = rtc.upgrade() {
                    rtc.sync(&mut lock(&rtc.inner));
                }
            });
            let state = State::new(config, clock.now_ns());
            let inner = Mutex::new(Inner { state, level: false });
            Self { clock: clock.clone(), irq, timer, inner }
        })
    }

    /// Re-derives flags, line and timer.
    fn sync(&self, inner: &mut Inner) {
        let now_ns = self.clock.now_ns();
        inner.state.collect(now_ns);
        let level = inner.state.interrupts();
        if level != inner.level {
            inner.level = level;
            self.irq.set(level);
        }
        self.arm(&inner.state);
    }

    fn arm(&self, state: &State) {
        let earliest_ns = state.seen_ns.saturating_add(WAKE_INTERVAL_NS_MIN);
        self.timer.set(state.next_interrupt_ns(state.seen_ns).map(|at| at.max(earliest_ns)));
    }

    /// Changes the state, and drives the line whatever its level was. Events not yet seen wait
    /// for the clock.
    fn replace(&self, edit: impl FnOnce(&mut State)) {
        let mut inner = lock(&self.inner);
        edit(&mut inner.state);
        inner.level = inner.state.interrupts();
        self.irq.set(inner.level);
        self.arm(&inner.state);
    }
}

impl State {
    fn new(config: &RtcConfig, now_ns: u64) -> Self {
        let mut cmos = [0; CMOS_SIZE];
        for (index, value) in &config.cmos {
            cmos[usize::from(*index)] = *value;
        }
        cmos[usize::from(SECONDS)..=usize::from(REG_D)].fill(0);
        cmos[usize::from(REG_A)] = A_DV_NORMAL | 6; // 1024 Hz, as firmware leaves it
        cmos[usize::from(REG_B)] = B_24H;
        let epoch_ns = config.start_unix_s.saturating_mul(NS_PER_S);
        Self { index: 0, index_high: 0, cmos, flags: 0, epoch_ns, seen_ns: now_ns }
    }

    /// What the RESET pin clears (datasheet, table 4): enables and flags. Time and memory have a
    /// battery.
    fn reset(&mut self) {
        let Self { index, index_high, cmos, flags, epoch_ns: _, seen_ns: _ } = self;
        (*index, *index_high, *flags) = (0, 0, 0);
        cmos[usize::from(REG_B)] &= !(B_PIE | B_AIE | B_UIE | B_SQWE);
    }

    fn read(&mut self, at: u64, now_ns: u64) -> u8 {
        match at {
            INDEX => self.index,
            DATA => self.read_register(self.index, now_ns),
            INDEX_HIGH => self.index_high,
            DATA_HIGH => self.cmos[usize::from(self.index_high) + 128],
            _ => 0xff,
        }
    }

    fn read_register(&mut self, index: u8, now_ns: u64) -> u8 {
        match index {
            REG_A if self.update_in_progress(now_ns) => self.cmos[usize::from(index)] | A_UIP,
            REG_C => {
                let irqf = if self.interrupts() { C_IRQF } else { 0 };
                std::mem::take(&mut self.flags) | irqf
            }
            REG_D => D_VRT,
            _ => {
                if is_time(index) && !self.stands() {
                    self.show_time(now_ns);
                }
                self.cmos[usize::from(index)]
            }
        }
    }

    fn write(&mut self, at: u64, value: u8, now_ns: u64) {
        match at {
            INDEX => self.index = value & 0x7f,
            DATA => self.write_register(self.index, value, now_ns),
            INDEX_HIGH => self.index_high = value & 0x7f,
            DATA_HIGH => self.cmos[usize::from(self.index_high) + 128] = value,
            _ => {}
        }
    }

    fn write_register(&mut self, index: u8, value: u8, now_ns: u64) {
        match index {
            REG_A => self.write_control(index, value & !A_UIP, now_ns),
            // Setting SET clears the update interrupt (datasheet, register B).
            REG_B if value & B_SET != 0 => self.write_control(index, value & !B_UIE, now_ns),
            REG_B => self.write_control(index, value, now_ns),
            REG_C | REG_D => {}
            _ if is_time(index) && !self.stands() => {
                let phase_ns = self.wall_ns(now_ns).rem_euclid(NS_PER_S);
                self.show_time(now_ns);
                self.cmos[usize::from(index)] = value;
                self.take_time(now_ns, phase_ns);
            }
            _ => self.cmos[usize::from(index)] = value,
        }
    }

    /// Registers A and B: time may begin to stand or to run.
    fn write_control(&mut self, index: u8, value: u8, now_ns: u64) {
        let (stood, was_in_reset) = (self.stands(), self.divider_in_reset());
        if !stood {
            self.show_time(now_ns);
        }
        let phase_ns = self.wall_ns(now_ns).rem_euclid(NS_PER_S);
        self.cmos[usize::from(index)] = value;
        if stood && !self.stands() {
            // A divider that leaves reset updates half a second later.
            self.take_time(now_ns, if was_in_reset { NS_PER_S / 2 } else { phase_ns });
        }
    }
}

/// The register shows the running time.
fn is_time(index: u8) -> bool {
    matches!(index, SECONDS | MINUTES | HOURS | DAY_OF_WEEK..=YEAR | CENTURY)
}

impl BusDevice for Rtc {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let inner = &mut *lock(&self.inner);
        self.sync(inner);
        let now_ns = self.clock.now_ns();
        read_bytes(offset, data, |at| inner.state.read(at, now_ns));
        self.sync(inner);
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let inner = &mut *lock(&self.inner);
        self.sync(inner);
        let now_ns = self.clock.now_ns();
        write_bytes(offset, data, |at, value| inner.state.write(at, value, now_ns));
        self.sync(inner);
    }
}

impl Device for Rtc {
    fn reset(&self) {
        self.replace(State::reset);
    }

    fn save(&self) -> Section {
        Section::encode(&SavedRtc::from(&lock(&self.inner).state))
    }

    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        let restored = State::try_from(section.decode::<SavedRtc>()?)?;
        self.replace(|state| *state = restored);
        Ok(())
    }
}
