//! Register scripts.

use super::*;
use crate::fakes::{Recorder, inb, inl, outb};
use machine_clock::TimeSource;

const SCI: u32 = 9;
const S: u64 = 1_000_000_000;

struct Rig {
    clock: Arc<MachineClock>,
    wires: Arc<Recorder>,
    pm: Arc<Pm>,
}

fn rig(width: TimerWidth) -> Rig {
    let clock = MachineClock::new(TimeSource::Counted);
    let wires = Recorder::new();
    let pm = Pm::new(&clock, wires.line(SCI), wires.clone(), width);
    Rig { clock, wires, pm }
}

impl Rig {
    fn get(&self, at: u64) -> u16 {
        let mut data = [0xff; 2];
        self.pm.read(at, &mut data);
        u16::from_le_bytes(data)
    }

    fn set(&self, at: u64, value: u16) {
        self.pm.write(at, &value.to_le_bytes());
    }
}

#[test]
fn the_timer_has_its_frequency_and_width() {
    for (width, mask) in [(TimerWidth::Bits24, 0xff_ffff), (TimerWidth::Bits32, u32::MAX)] {
        let rig = rig(width);
        assert_eq!(inl(&*rig.pm, PM_TMR), 0);
        rig.clock.advance_to(10 * S);
        assert_eq!(inl(&*rig.pm, PM_TMR), 35_795_450 & mask);
        assert_eq!(inb(&*rig.pm, PM_TMR + 1), (35_795_450u32 >> 8) as u8);
        assert_eq!(rig.clock.next_deadline_ns(), None);
    }
}

#[test]
fn the_timers_highest_bit_interrupts() {
    let rig = rig(TimerWidth::Bits24);
    rig.set(PM1_EN, TMR);
    let overflow = TIMER.ns(1 << 23);
    rig.clock.advance_to(overflow - 1);
    assert!(!rig.wires.level(SCI));
    rig.clock.advance_to(overflow);
    assert!(rig.wires.level(SCI));
    assert_eq!(rig.clock.next_deadline_ns(), None);
    rig.set(PM1_STS, TMR);
    assert!(!rig.wires.level(SCI));
    assert_eq!(rig.clock.next_deadline_ns(), Some(TIMER.ns(1 << 24)));
}

#[test]
fn the_power_button_interrupts_when_enabled_and_is_cleared_by_ones() {
    let rig = rig(TimerWidth::Bits32);
    rig.pm.press_power_button();
    assert!(!rig.wires.level(SCI));
    rig.set(PM1_EN, PWRBTN);
    assert!(rig.wires.level(SCI));
    rig.set(PM1_STS, !PWRBTN);
    assert_eq!(rig.get(PM1_STS), PWRBTN);
    outb(&*rig.pm, PM1_STS + 1, 1);
    assert!(!rig.wires.level(SCI));
    assert_eq!(rig.get(PM1_EN), PWRBTN);
}

#[test]
fn general_purpose_events_share_the_sci() {
    let rig = rig(TimerWidth::Bits32);
    rig.pm.raise_gpe(3);
    rig.pm.raise_gpe(200);
    rig.set(GPE0_EN, 1 << 3);
    assert!(rig.wires.level(SCI));
    assert_eq!(rig.get(GPE0_STS), 1 << 3);
    rig.pm.write(GPE0_STS, &[0xff, 0xff, 0x08, 0]);
    assert!(!rig.wires.level(SCI));
    assert_eq!(rig.get(GPE0_EN), 1 << 3);
}

#[test]
fn s5_powers_off_and_other_sleep_types_do_nothing() {
    let rig = rig(TimerWidth::Bits32);
    assert_eq!(rig.get(PM1_CNT), SCI_EN);
    rig.set(PM1_CNT, 1 << SLP_TYP_SHIFT | SLP_EN);
    rig.set(PM1_CNT, SLP_TYP_S5 << SLP_TYP_SHIFT);
    assert!(rig.wires.take_power().is_empty());
    rig.set(PM1_CNT, SLP_TYP_S5 << SLP_TYP_SHIFT | SLP_EN);
    assert_eq!(rig.wires.take_power(), [PowerEvent::PowerOff]);
    assert_eq!(rig.get(PM1_CNT), SCI_EN | SLP_TYP_S5 << SLP_TYP_SHIFT);
}

#[test]
fn restored_state_saves_equal_and_goes_on() {
    let old = rig(TimerWidth::Bits24);
    old.set(PM1_EN, PWRBTN | TMR);
    old.pm.press_power_button();
    let section = old.pm.save();
    let new = rig(TimerWidth::Bits24);
    new.pm.restore(&section).unwrap();
    assert_eq!(new.pm.save(), section);
    assert!(new.wires.level(SCI));
    assert_eq!(new.clock.next_deadline_ns(), old.clock.next_deadline_ns());
    new.pm.reset();
    assert!(!new.wires.level(SCI));
    assert_eq!(new.pm.save(), rig(TimerWidth::Bits24).pm.save());
}
