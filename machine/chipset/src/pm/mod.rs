//! ACPI fixed hardware (ACPI 6.5, section 4.8): the PM1a event and control blocks, the power
//! management timer and a block of 16 general-purpose events, which share the SCI.
//!
//! S5 is the only sleep type. The SCI is level-triggered.

pub mod spec;
mod state;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, Weak};

use bus::{BusDevice, Device, Line, Section, SectionError};
use machine_clock::{MachineClock, Timer};

use crate::ports::{read_bytes, write_bytes};
use crate::{PowerEvent, PowerSink, lock};
use spec::*;
use state::{SavedPm, State};

/// How wide the timer is; the FADT's TMR_VAL_EXT says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimerWidth {
    /// As in ACPI 1.0.
    Bits24,
    /// TMR_VAL_EXT.
    Bits32,
}

impl TimerWidth {
    const fn bits(self) -> u32 {
        match self {
            Self::Bits24 => 24,
            Self::Bits32 => 32,
        }
    }
}

/// The device.
pub struct Pm {
    // Fixed configuration.
    width: TimerWidth,
    // Wiring.
    clock: Arc<MachineClock>,
    sci: Line,
    power: Arc<dyn PowerSink>,
    timer: Timer,
    // State.
    inner: Mutex<Inner>,
}

struct Inner {
    state: State,
    /// The level of `sci`.
    level: bool,
}

impl Pm {
    /// Fixed hardware with its interrupt on `sci`, telling `power` of S5.
    pub fn new(
        clock: &Arc<MachineClock>,
        sci: Line,
        power: Arc<dyn PowerSink>,
        width: TimerWidth,
    ) -> Arc<Self> {
        Arc::new_cyclic(|weak: &Weak<Self>| {
            let pm = weak.clone();
            let timer = clock.timer(move || {
                if let Some(pm) = pm.upgrade() {
                    pm.sync(&mut lock(&pm.inner));
                }
            });
            let state = State { seen_ns: clock.now_ns(), ..State::default() };
            let inner = Mutex::new(Inner { state, level: false });
            Self { width, clock: clock.clone(), sci, power, timer, inner }
        })
    }

    /// The operator presses the power button.
    pub fn press_power_button(&self) {
        self.raise(|state| state.pm1_sts |= PWRBTN);
    }

    /// A general-purpose event, 0 to 15, has happened.
    pub fn raise_gpe(&self, event: u8) {
        self.raise(|state| state.gpe0_sts |= 1u16.checked_shl(event.into()).unwrap_or(0));
    }

    fn raise(&self, edit: impl FnOnce(&mut State)) {
        let mut inner = lock(&self.inner);
        edit(&mut inner.state);
        self.sync(&mut inner);
    }

    /// When the timer's highest bit changes next, after `after_ns`.
    fn overflow_ns(&self, after_ns: u64) -> u64 {
        let half = 1u64 << (self.width.bits() - 1);
        TIMER.ns((TIMER.ticks(after_ns) / half + 1).saturating_mul(half))
    }

    /// Re-derives the timer's status, the SCI and the wake-up. While the status is set, there is
    /// nothing to wake up for.
    fn sync(&self, inner: &mut Inner) {
        let now_ns = self.clock.now_ns();
        let Inner { state, level } = inner;
        if self.overflow_ns(state.seen_ns) <= now_ns {
            state.pm1_sts |= TMR;
        }
        state.seen_ns = state.seen_ns.max(now_ns);
        let sci = state.sci();
        if sci != *level {
            *level = sci;
            self.sci.set(sci);
        }
        self.arm(state);
    }

    fn arm(&self, state: &State) {
        let awaited = state.pm1_en & TMR != 0 && state.pm1_sts & TMR == 0;
        self.timer.set(awaited.then(|| self.overflow_ns(state.seen_ns)));
    }

    /// Replaces the state, and drives the SCI whatever its level was. What is not yet seen waits
    /// for the clock.
    fn replace(&self, state: State) {
        let mut inner = lock(&self.inner);
        inner.state = state;
        inner.level = state.sci();
        self.sci.set(inner.level);
        self.arm(&state);
    }

    fn timer_value(&self) -> u32 {
        let ticks = TIMER.ticks(self.clock.now_ns()) as u32;
        match self.width {
            TimerWidth::Bits24 => ticks & 0xff_ffff,
            TimerWidth::Bits32 => ticks,
        }
    }

    fn control(&self, state: &mut State, value: u16) {
        state.pm1_cnt = value & PM1_CNT_MASK;
        let sleep_type = value >> SLP_TYP_SHIFT & 7;
        if value & SLP_EN != 0 && sleep_type == SLP_TYP_S5 {
            self.power.power(PowerEvent::PowerOff);
        }
    }
}

impl State {
    fn sci(&self) -> bool {
        self.pm1_sts & self.pm1_en != 0 || self.gpe0_sts & self.gpe0_en != 0
    }

    /// The registers but for the timer, as they read.
    fn register(&self, at: u64) -> u16 {
        match at {
            PM1_STS => self.pm1_sts,
            PM1_EN => self.pm1_en,
            PM1_CNT => self.pm1_cnt | SCI_EN,
            GPE0_STS => self.gpe0_sts,
            GPE0_EN => self.gpe0_en,
            SMI_EN => APMC_EN,
            _ => 0,
        }
    }
}

impl BusDevice for Pm {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let inner = &mut *lock(&self.inner);
        self.sync(inner);
        let timer = self.timer_value().to_le_bytes();
        read_bytes(offset, data, |at| match at {
            at if (PM_TMR..PM_TMR + 4).contains(&at) => timer[(at - PM_TMR) as usize],
            _ => inner.state.register(at & !1).to_le_bytes()[(at & 1) as usize],
        });
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let inner = &mut *lock(&self.inner);
        self.sync(inner);
        // Registers are written by bytes or by words; bytes that are not written keep the
        // register's value, or clear nothing in a status register.
        let mut at = offset & !1;
        while at < offset + data.len() as u64 {
            let is_status = matches!(at, PM1_STS | GPE0_STS);
            let old = if is_status { 0 } else { inner.state.register(at) };
            let mut bytes = old.to_le_bytes();
            write_bytes(offset, data, |byte_at, value| {
                if byte_at & !1 == at {
                    bytes[(byte_at & 1) as usize] = value;
                }
            });
            let value = u16::from_le_bytes(bytes);
            let state = &mut inner.state;
            match at {
                PM1_STS => state.pm1_sts &= !value,
                PM1_EN => state.pm1_en = value & PM1_EN_MASK,
                PM1_CNT => self.control(state, value),
                GPE0_STS => state.gpe0_sts &= !value,
                GPE0_EN => state.gpe0_en = value,
                _ => {}
            }
            at += 2;
        }
        self.sync(inner);
    }
}

impl Device for Pm {
    fn reset(&self) {
        self.replace(State { seen_ns: self.clock.now_ns(), ..State::default() });
    }

    fn save(&self) -> Section {
        Section::encode(&SavedPm::from(lock(&self.inner).state))
    }

    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        self.replace(section.decode::<SavedPm>()?.into());
        Ok(())
    }
}
