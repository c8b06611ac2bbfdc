//! Register scripts.

use super::*;
use crate::fakes::{Recorder, inb, outb};
use machine_clock::TimeSource;

const IRQ: u32 = 8;
const S: u64 = 1_000_000_000;
/// 2026-12-31 23:59:58 UTC, a Thursday.
const START: i64 = 1_798_761_598;

struct Rig {
    clock: Arc<MachineClock>,
    wires: Arc<Recorder>,
    rtc: Arc<Rtc>,
}

fn rig() -> Rig {
    let clock = MachineClock::new(TimeSource::Counted);
    let wires = Recorder::new();
    let config = RtcConfig { start_unix_s: START, cmos: vec![(0x0f, 5), (0x0b, 0xff), (0x90, 7)] };
    let rtc = Rtc::new(&clock, wires.line(IRQ), &config);
    Rig { clock, wires, rtc }
}

impl Rig {
    fn get(&self, register: u8) -> u8 {
        outb(&*self.rtc, INDEX, register);
        inb(&*self.rtc, DATA)
    }

    fn set(&self, register: u8, value: u8) {
        outb(&*self.rtc, INDEX, register);
        outb(&*self.rtc, DATA, value);
    }

    /// Century, year, month, date, hours, minutes, seconds.
    fn time(&self) -> [u8; 7] {
        [CENTURY, YEAR, MONTH, DATE, HOURS, MINUTES, SECONDS].map(|r| self.get(r))
    }

    fn set_time(&self, time: [u8; 7]) {
        for (register, value) in
            [CENTURY, YEAR, MONTH, DATE, HOURS, MINUTES, SECONDS].into_iter().zip(time)
        {
            self.set(register, value);
        }
    }
}

#[test]
fn time_runs_from_the_configured_start() {
    let rig = rig();
    assert_eq!(rig.time(), [0x20, 0x26, 0x12, 0x31, 0x23, 0x59, 0x58]);
    assert_eq!(rig.get(DAY_OF_WEEK), 5);
    rig.clock.advance_to(2 * S);
    assert_eq!(rig.time(), [0x20, 0x27, 0x01, 0x01, 0x00, 0x00, 0x00]);
    assert_eq!(rig.clock.next_deadline_ns(), None);
}

#[test]
fn binary_and_twelve_hour_modes() {
    let rig = rig();
    rig.set(REG_B, B_DM);
    assert_eq!(rig.time(), [20, 26, 12, 31, 11 | PM, 59, 58]);
    rig.clock.advance_to(2 * S);
    assert_eq!(rig.get(HOURS), 12, "midnight is 12 in the morning");
    rig.set(HOURS, 12 | PM);
    rig.set(REG_B, B_DM | B_24H);
    assert_eq!(rig.get(HOURS), 12);
}

#[test]
fn the_guest_sets_the_time() {
    let rig = rig();
    rig.clock.advance_to(S / 2);
    rig.set(REG_B, B_SET | B_24H);
    rig.set_time([0x20, 0x00, 0x02, 0x28, 0x23, 0x59, 0x59]);
    rig.clock.advance_to(10 * S);
    assert_eq!(rig.get(SECONDS), 0x59, "time stands");
    rig.set(REG_B, B_24H);
    rig.clock.advance_to(11 * S);
    assert_eq!(rig.time(), [0x20, 0x00, 0x02, 0x29, 0x00, 0x00, 0x00]);
}

#[test]
fn a_divider_leaving_reset_updates_half_a_second_later() {
    let rig = rig();
    rig.clock.advance_to(S / 4);
    rig.set(REG_A, A_DV_RESET | 6);
    rig.clock.advance_to(5 * S);
    rig.set(REG_A, A_DV_NORMAL | 6);
    assert_eq!(rig.get(SECONDS), 0x58);
    rig.clock.advance_to(5 * S + S / 2 - 1);
    assert_eq!(rig.get(SECONDS), 0x58);
    rig.clock.advance_to(5 * S + S / 2);
    assert_eq!(rig.get(SECONDS), 0x59);
}

#[test]
fn uip_warns_before_the_update() {
    let rig = rig();
    rig.clock.advance_to(S - UIP_NS - 1);
    assert_eq!(rig.get(REG_A), A_DV_NORMAL | 6);
    rig.clock.advance_to(S - UIP_NS);
    assert_eq!(rig.get(REG_A), A_UIP | A_DV_NORMAL | 6);
    rig.clock.advance_to(S);
    assert_eq!((rig.get(REG_A) & A_UIP, rig.get(SECONDS)), (0, 0x59));
    rig.clock.advance_to(2 * S - 1);
    rig.set(REG_B, B_SET);
    assert_eq!(rig.get(REG_A) & A_UIP, 0);
}

#[test]
fn the_update_interrupt_comes_each_second_it_is_acknowledged() {
    let rig = rig();
    rig.set(HOURS_ALARM, 0x12);
    rig.set(REG_B, B_24H | B_UIE);
    rig.clock.advance_to(S - 1);
    assert!(!rig.wires.level(IRQ));
    rig.clock.advance_to(S);
    assert!(rig.wires.level(IRQ));
    assert_eq!(rig.clock.next_deadline_ns(), None, "nothing ticks until it is acknowledged");
    rig.clock.advance_to(5 * S);
    assert_eq!(rig.get(REG_C), C_IRQF | C_PF | C_UF);
    assert_eq!(rig.get(REG_C), 0);
    assert!(!rig.wires.level(IRQ));
    rig.clock.advance_to(6 * S);
    assert_eq!(rig.wires.edges(IRQ), 2);
}

#[test]
fn the_periodic_interrupt_has_its_rate() {
    for (rate, hz) in [(6u8, 1024u64), (3, 8192), (15, 2), (1, 256), (2, 128)] {
        let rig = rig();
        rig.set(REG_A, A_DV_NORMAL | rate);
        rig.set(REG_B, B_24H | B_PIE);
        let mut count = 0;
        while let Some(at) = rig.clock.next_deadline_ns().filter(|at| *at <= S) {
            rig.clock.advance_to(at);
            assert_eq!(rig.get(REG_C) & (C_IRQF | C_PF), C_IRQF | C_PF);
            count += 1;
        }
        assert_eq!(count, hz, "rate {rate}");
    }
    let rig = rig();
    rig.set(REG_A, A_DV_NORMAL);
    rig.set(REG_B, B_24H | B_PIE);
    assert_eq!(rig.clock.next_deadline_ns(), None);
}

#[test]
fn the_alarm_matches_with_wildcards() {
    let rig = rig();
    rig.set(SECONDS_ALARM, 0x05);
    rig.set(MINUTES_ALARM, 0x01);
    rig.set(HOURS_ALARM, 0xff);
    rig.set(REG_B, B_24H | B_AIE);
    let first = (2 + 65) * S;
    assert_eq!(rig.clock.next_deadline_ns(), Some(first));
    rig.clock.advance_to(first);
    assert_eq!(rig.get(REG_C), C_IRQF | C_PF | C_UF | C_AF);
    assert_eq!(rig.clock.next_deadline_ns(), Some(first + 3600 * S));
    rig.set(HOURS_ALARM, 0x00);
    assert_eq!(rig.clock.next_deadline_ns(), Some(first + 24 * 3600 * S));
    rig.set(HOURS_ALARM, 0x99);
    assert_eq!(rig.clock.next_deadline_ns(), None, "never");
}

#[test]
fn an_impossible_time_is_harmless() {
    let rig = rig();
    rig.set(REG_B, B_SET | B_DM);
    rig.set_time([0xff; 7]);
    rig.set(REG_B, B_DM | B_AIE | B_UIE | B_PIE);
    rig.clock.advance_to(S);
    rig.time();
    assert!(rig.wires.level(IRQ));
}

#[test]
fn memory_is_configured_and_survives_reset() {
    let rig = rig();
    assert_eq!((rig.get(0x0f), rig.get(REG_B), rig.get(REG_D)), (5, B_24H, D_VRT));
    outb(&*rig.rtc, INDEX_HIGH, 0x10);
    assert_eq!(inb(&*rig.rtc, DATA_HIGH), 7);
    rig.rtc.write(INDEX, &[0x8f, 0x0a]);
    rig.set(REG_B, B_24H | B_PIE);
    rig.clock.advance_to(S);
    assert!(rig.wires.level(IRQ));
    rig.rtc.reset();
    assert!(!rig.wires.level(IRQ));
    assert_eq!((rig.get(0x0f), rig.get(REG_B), rig.get(SECONDS)), (0x0a, B_24H, 0x59));
}

#[test]
fn restored_state_saves_equal_and_goes_on() {
    let old = rig();
    old.set(REG_B, B_24H | B_UIE);
    old.set(HOURS, 0x07);
    old.clock.advance_to(S / 2);
    let section = old.rtc.save();
    let new = rig();
    new.clock.set_ns(S / 2);
    new.rtc.restore(&section).unwrap();
    assert_eq!(new.rtc.save(), section);
    new.clock.advance_to(S);
    assert!(new.wires.level(IRQ));
    assert_eq!((new.get(HOURS), new.get(SECONDS)), (0x07, 0x59));
}
