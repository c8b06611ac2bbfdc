//! Register scripts.

use super::*;
use crate::fakes::{Recorder, inl, outl};
use machine_clock::TimeSource;

struct Rig {
    clock: Arc<MachineClock>,
    wires: Arc<Recorder>,
    hpet: Arc<Hpet>,
}

fn rig() -> Rig {
    let clock = MachineClock::new(TimeSource::Counted);
    let wires = Recorder::new();
    let hpet = Hpet::new(&clock, wires.clone(), wires.clone());
    Rig { clock, wires, hpet }
}

impl Rig {
    fn get(&self, at: u64) -> u64 {
        let mut data = [0xff; 8];
        self.hpet.read(at, &mut data);
        u64::from_le_bytes(data)
    }

    fn set(&self, at: u64, value: u64) {
        self.hpet.write(at, &value.to_le_bytes());
    }

    /// To a tick of the counter.
    fn at(&self, tick: u64) {
        self.clock.advance_to(CLOCK.ns(tick));
    }
}

const fn timer(i: u64) -> u64 {
    TIMER_BASE + i * TIMER_STRIDE
}

fn route(irq: u64) -> u64 {
    irq << INT_ROUTE_SHIFT
}

#[test]
fn capabilities_name_three_timers_at_100_mhz() {
    let rig = rig();
    assert_eq!(rig.get(CAPABILITIES), 0x0098_9680_8086_a201);
    assert_eq!(inl(&*rig.hpet, CAPABILITIES + 4), 10_000_000);
    assert_eq!(rig.get(timer(2)), TIMER_CAPABILITIES);
    assert_eq!(rig.get(timer(3)), 0);
}

#[test]
fn the_counter_runs_when_enabled_and_can_be_set_in_halves() {
    let rig = rig();
    rig.at(100);
    assert_eq!(rig.get(COUNTER), 0);
    rig.set(CONFIGURATION, ENABLE_CNF);
    rig.at(150);
    assert_eq!(rig.get(COUNTER), 50);
    rig.set(CONFIGURATION, 0);
    rig.at(200);
    assert_eq!(rig.get(COUNTER), 50);
    outl(&*rig.hpet, COUNTER + 4, 7);
    outl(&*rig.hpet, COUNTER, 3);
    rig.set(CONFIGURATION, ENABLE_CNF);
    rig.at(201);
    assert_eq!(rig.get(COUNTER), 7 << 32 | 4);
    assert_eq!(rig.clock.next_deadline_ns(), None);
}

#[test]
fn a_one_shot_matches_once() {
    let rig = rig();
    rig.set(CONFIGURATION, ENABLE_CNF);
    rig.set(timer(2), INT_ENB_CNF | route(21));
    rig.set(timer(2) + TIMER_COMPARATOR, 5000);
    rig.at(4999);
    assert_eq!(rig.wires.edges(21), 0);
    rig.at(5000);
    assert_eq!((rig.wires.edges(21), rig.wires.level(21)), (1, false));
    rig.at(1_000_000);
    assert_eq!(rig.wires.edges(21), 1);
    assert_eq!(rig.clock.next_deadline_ns(), None);
    rig.set(timer(2) + TIMER_COMPARATOR, 5000);
    assert_eq!(rig.clock.next_deadline_ns(), None, "behind a counter of 64 bits");
    rig.set(timer(2), INT_ENB_CNF | MODE32_CNF | route(21));
    assert_eq!(rig.clock.next_deadline_ns(), Some(CLOCK.ns((1 << 32) + 5000)));
}

#[test]
fn a_periodic_timer_repeats_and_merges_missed_matches() {
    let rig = rig();
    rig.set(CONFIGURATION, ENABLE_CNF);
    rig.set(timer(0), INT_ENB_CNF | TYPE_CNF | VAL_SET_CNF | route(20));
    outl(&*rig.hpet, timer(0) + TIMER_COMPARATOR, 10_000);
    outl(&*rig.hpet, timer(0) + TIMER_COMPARATOR, 4000);
    assert_eq!(rig.get(timer(0)) & VAL_SET_CNF, 0);
    rig.at(9999);
    assert_eq!(rig.wires.edges(20), 0);
    rig.at(10_000);
    assert_eq!(rig.get(timer(0) + TIMER_COMPARATOR), 14_000);
    rig.at(18_000);
    assert_eq!(rig.wires.edges(20), 3);
    rig.clock.set_ns(CLOCK.ns(1_000_001));
    rig.at(1_000_002);
    assert_eq!(rig.wires.edges(20), 4);
    assert_eq!(rig.get(timer(0) + TIMER_COMPARATOR), 1_002_000);
}

#[test]
fn a_level_triggered_timer_is_cleared_by_its_status_bit() {
    let rig = rig();
    rig.set(CONFIGURATION, ENABLE_CNF);
    rig.set(timer(1), INT_ENB_CNF | INT_TYPE_CNF | TYPE_CNF | VAL_SET_CNF | route(23));
    rig.set(timer(1) + TIMER_COMPARATOR, 3000);
    rig.at(3000);
    assert!(rig.wires.level(23));
    assert_eq!(rig.get(STATUS), 2);
    assert_eq!(rig.clock.next_deadline_ns(), None, "the line is high already");
    rig.at(100_000);
    rig.set(STATUS, 1);
    assert!(rig.wires.level(23));
    rig.set(STATUS, 2);
    assert!(!rig.wires.level(23));
    assert_eq!(rig.clock.next_deadline_ns(), Some(CLOCK.ns(102_000)));
}

#[test]
fn messages_replace_the_line() {
    let rig = rig();
    rig.set(CONFIGURATION, ENABLE_CNF);
    rig.set(timer(0) + TIMER_FSB_ROUTE, 0xfee0_1000_0000_4031);
    rig.set(timer(0), INT_ENB_CNF | FSB_EN_CNF);
    rig.set(timer(0) + TIMER_COMPARATOR, 2000);
    rig.at(2000);
    assert_eq!(rig.wires.take_msis(), [Msi { address: 0xfee0_1000, data: 0x4031 }]);
}

#[test]
fn legacy_replacement_takes_the_lines_of_pit_and_rtc() {
    let rig = rig();
    rig.hpet.set_line(LEGACY_IRQ_0, true);
    assert!(rig.wires.level(0));
    rig.set(CONFIGURATION, ENABLE_CNF | LEG_RT_CNF);
    assert!(rig.hpet.replaces_legacy() && !rig.wires.level(0));
    rig.hpet.set_line(LEGACY_IRQ_1, true);
    assert!(!rig.wires.level(8));
    rig.set(timer(0), INT_ENB_CNF | route(20));
    rig.set(timer(0) + TIMER_COMPARATOR, 2000);
    let before = rig.wires.edges(0);
    rig.at(2000);
    assert_eq!((rig.wires.edges(0), rig.wires.edges(20)), (before + 1, 0));
    rig.set(CONFIGURATION, ENABLE_CNF);
    assert!(rig.wires.level(0) && rig.wires.level(8));
}

#[test]
fn a_disabled_interrupt_wakes_nobody() {
    let rig = rig();
    rig.set(CONFIGURATION, ENABLE_CNF);
    rig.set(timer(0), TYPE_CNF | VAL_SET_CNF);
    rig.set(timer(0) + TIMER_COMPARATOR, 1000);
    assert_eq!(rig.clock.next_deadline_ns(), None);
    rig.at(10_500);
    assert_eq!(rig.get(timer(0) + TIMER_COMPARATOR), 11_000);
}

#[test]
fn a_tiny_period_does_not_spin_the_host() {
    let rig = rig();
    rig.set(CONFIGURATION, ENABLE_CNF);
    rig.set(timer(0), INT_ENB_CNF | TYPE_CNF | VAL_SET_CNF | route(20));
    rig.set(timer(0) + TIMER_COMPARATOR, 1);
    rig.clock.advance_to(1_000_000);
    assert!(rig.wires.edges(20) <= 100);
}

#[test]
fn restored_state_saves_equal_and_goes_on() {
    let old = rig();
    old.set(CONFIGURATION, ENABLE_CNF);
    old.set(timer(1), INT_ENB_CNF | INT_TYPE_CNF | TYPE_CNF | VAL_SET_CNF | route(23));
    old.set(timer(1) + TIMER_COMPARATOR, 3000);
    old.set(timer(0), INT_ENB_CNF | route(22));
    old.set(timer(0) + TIMER_COMPARATOR, 9000);
    old.at(3500);
    let section = old.hpet.save();
    let new = rig();
    new.clock.set_ns(CLOCK.ns(3500));
    new.hpet.restore(&section).unwrap();
    assert_eq!(new.hpet.save(), section);
    assert!(new.wires.level(23));
    new.at(9000);
    assert_eq!((new.wires.edges(22), new.get(COUNTER)), (1, 9000));
    new.hpet.reset();
    assert!(!new.wires.level(23));
    assert_eq!(new.hpet.save(), rig().hpet.save());
}
