//! Time of day: registers to calendar, events since they were last looked for.

use super::calendar::{DAY_S, Moment};
use super::spec::*;
use super::state::State;

pub(super) const NS_PER_S: i64 = 1_000_000_000;

/// Seconds since 1970 that `i64` nanoseconds hold, to both sides: years 1678 to 2262. The
/// registers can say more, which no guest means.
const UNIX_S_MAX: i64 = i64::MAX / NS_PER_S - 1;

impl State {
    fn reg_a(&self) -> u8 {
        self.cmos[usize::from(REG_A)]
    }

    fn reg_b(&self) -> u8 {
        self.cmos[usize::from(REG_B)]
    }

    /// The divider is held in reset: nothing counts.
    pub fn divider_in_reset(&self) -> bool {
        self.reg_a() & A_DV_RESET == A_DV_RESET
    }

    /// Time stands, and its registers are memory.
    pub fn stands(&self) -> bool {
        self.reg_b() & B_SET != 0 || self.divider_in_reset()
    }

    /// Wall time in nanoseconds since 1970.
    pub fn wall_ns(&self, now_ns: u64) -> i64 {
        self.epoch_ns.saturating_add(i64::try_from(now_ns).unwrap_or(i64::MAX))
    }

    /// As a register shows it.
    fn encode(&self, value: i64) -> u8 {
        let value = value.rem_euclid(100) as u8;
        if self.reg_b() & B_DM != 0 { value } else { ((value / 10) << 4) | (value % 10) }
    }

    fn decode(&self, value: u8) -> i64 {
        let binary = self.reg_b() & B_DM != 0;
        i64::from(if binary { value } else { (value >> 4) * 10 + (value & 0xf) })
    }

    fn encode_hours(&self, hours: i64) -> u8 {
        if self.reg_b() & B_24H != 0 {
            return self.encode(hours);
        }
        let twelve = (hours + 11) % 12 + 1;
        self.encode(twelve) | if hours >= 12 { PM } else { 0 }
    }

    fn decode_hours(&self, value: u8) -> i64 {
        if self.reg_b() & B_24H != 0 {
            return self.decode(value);
        }
        self.decode(value & !PM) % 12 + if value & PM != 0 { 12 } else { 0 }
    }

    /// Puts the running time into its registers.
    pub fn show_time(&mut self, now_ns: u64) {
        let moment = Moment::from_unix(self.wall_ns(now_ns).div_euclid(NS_PER_S));
        for (register, value) in [
            (SECONDS, self.encode(moment.seconds)),
            (MINUTES, self.encode(moment.minutes)),
            (HOURS, self.encode_hours(moment.hours)),
            (DAY_OF_WEEK, self.encode(moment.day_of_week)),
            (DATE, self.encode(moment.date)),
            (MONTH, self.encode(moment.month)),
            (YEAR, self.encode(moment.year)),
            (CENTURY, self.encode(moment.year.div_euclid(100))),
        ] {
            self.cmos[usize::from(register)] = value;
        }
    }

    /// Takes the time from its registers, `phase_ns` into the second.
    pub fn take_time(&mut self, now_ns: u64, phase_ns: i64) {
        let get = |register: u8| self.decode(self.cmos[usize::from(register)]);
        let moment = Moment {
            year: get(CENTURY) * 100 + get(YEAR),
            month: get(MONTH),
            date: get(DATE),
            day_of_week: 0,
            hours: self.decode_hours(self.cmos[usize::from(HOURS)]),
            minutes: get(MINUTES),
            seconds: get(SECONDS),
        };
        let wall_s = moment.to_unix().clamp(-UNIX_S_MAX, UNIX_S_MAX);
        let now_ns = i64::try_from(now_ns).unwrap_or(i64::MAX);
        self.epoch_ns = (wall_s * NS_PER_S + phase_ns).saturating_sub(now_ns);
    }

    /// Crystal ticks between periodic interrupts; `None` when off.
    fn period_ticks(&self) -> Option<u64> {
        match self.reg_a() & A_RS {
            0 => None,
            rate @ (1 | 2) => Some(64 << rate), // as 8 and 9: 256 and 128 Hz
            rate => Some(1 << (rate - 1)),
        }
        .filter(|_| !self.divider_in_reset())
    }

    /// The first periodic event after `after_ns`.
    pub fn next_periodic_ns(&self, after_ns: u64) -> Option<u64> {
        let period = self.period_ticks()?;
        Some(CRYSTAL.ns((CRYSTAL.ticks(after_ns) / period + 1).saturating_mul(period)))
    }

    /// Machine time of the first update after `after_ns`.
    pub fn next_update_ns(&self, after_ns: u64) -> Option<u64> {
        if self.stands() {
            return None;
        }
        let phase = self.wall_ns(after_ns).rem_euclid(NS_PER_S);
        Some(after_ns.saturating_add((NS_PER_S - phase) as u64))
    }

    /// Machine time of the first update after `after_ns` that matches the alarm.
    pub fn next_alarm_ns(&self, after_ns: u64) -> Option<u64> {
        let update_ns = self.next_update_ns(after_ns)?;
        let first_s = self.wall_ns(update_ns).div_euclid(NS_PER_S);
        let wait_s = self.alarm_wait_s(first_s.rem_euclid(DAY_S))?;
        Some(update_ns.saturating_add((wait_s * NS_PER_S) as u64))
    }

    /// Seconds from this second of the day to the next that matches the alarm, by whole hours
    /// and minutes where those do not match: 24 + 60 + 60 steps and the day's wrap.
    fn alarm_wait_s(&self, from_s: i64) -> Option<i64> {
        let alarm = |register: u8| self.cmos[usize::from(register)];
        let matches = |register: u8, value: u8| alarm(register) >= ANY || alarm(register) == value;
        let mut at_s = from_s;
        while at_s <= from_s + DAY_S {
            let of_day = at_s % DAY_S;
            if !matches(HOURS_ALARM, self.encode_hours(of_day / 3600)) {
                at_s += 3600 - at_s % 3600;
            } else if !matches(MINUTES_ALARM, self.encode(of_day / 60 % 60)) {
                at_s += 60 - at_s % 60;
            } else if !matches(SECONDS_ALARM, self.encode(of_day % 60)) {
                at_s += 1;
            } else {
                return Some(at_s - from_s);
            }
        }
        None
    }

    /// Raises the flags of what has happened since they were last looked at.
    pub fn collect(&mut self, now_ns: u64) {
        let past = |event: Option<u64>| event.is_some_and(|at| at <= now_ns);
        if past(self.next_periodic_ns(self.seen_ns)) {
            self.flags |= C_PF;
        }
        if past(self.next_update_ns(self.seen_ns)) {
            self.flags |= C_UF;
            if past(self.next_alarm_ns(self.seen_ns)) {
                self.flags |= C_AF;
            }
        }
        self.seen_ns = self.seen_ns.max(now_ns);
    }

    /// An enabled event has come.
    pub fn interrupts(&self) -> bool {
        self.flags & self.reg_b() & (B_PIE | B_AIE | B_UIE) != 0
    }

    /// When the next enabled event comes. None is awaited while one is pending: the line is high
    /// until register C is read.
    pub fn next_interrupt_ns(&self, now_ns: u64) -> Option<u64> {
        if self.interrupts() {
            return None;
        }
        let enabled = |bit: u8| self.reg_b() & bit != 0;
        [
            enabled(B_PIE).then(|| self.next_periodic_ns(now_ns)),
            enabled(B_UIE).then(|| self.next_update_ns(now_ns)),
            enabled(B_AIE).then(|| self.next_alarm_ns(now_ns)),
        ]
        .into_iter()
        .flatten()
        .flatten()
        .min()
    }

    /// An update is so near that the time must not be read.
    pub fn update_in_progress(&self, now_ns: u64) -> bool {
        self.next_update_ns(now_ns).is_some_and(|at| at - now_ns <= UIP_NS)
    }
}
