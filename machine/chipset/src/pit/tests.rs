//! Register scripts.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::fakes::{Recorder, inb, outb};
use machine_clock::TimeSource;

const IRQ: u32 = 0;

struct Rig {
    clock: Arc<MachineClock>,
    wires: Arc<Recorder>,
    heard: Arc<AtomicBool>,
    pit: Arc<Pit>,
}

fn rig() -> Rig {
    let clock = MachineClock::new(TimeSource::Counted);
    let wires = Recorder::new();
    let heard = Arc::new(AtomicBool::new(true));
    let asked = heard.clone();
    let is_heard = Box::new(move || asked.load(Ordering::Relaxed));
    let pit = Pit::new(&clock, wires.line(IRQ), is_heard);
    Rig { clock, wires, heard, pit }
}

impl Rig {
    /// To a tick of the PIT's clock.
    fn at(&self, tick: u64) {
        self.clock.advance_to(CLK.ns(tick));
    }

    /// Rising edges of IRQ 0, but for power-up.
    fn edges(&self) -> usize {
        self.wires.edges(IRQ) - 1
    }

    fn program(&self, counter: u8, mode: u8, count: u16) {
        outb(&*self.pit, CONTROL, counter << 6 | 0x30 | mode << 1);
        for byte in count.to_le_bytes() {
            outb(&*self.pit, u64::from(counter), byte);
        }
    }

    fn count(&self, counter: u8) -> u16 {
        outb(&*self.pit, CONTROL, counter << 6);
        u16::from_le_bytes([0, 1].map(|_| inb(&*self.pit, u64::from(counter))))
    }

    fn status(&self, counter: u8) -> u8 {
        outb(&*self.pit, CONTROL, 0xe0 | 2 << counter);
        inb(&*self.pit, u64::from(counter))
    }

    fn out_2(&self) -> bool {
        inb(&*self.pit, PORT_B) & PORT_B_OUT_2 != 0
    }
}

#[test]
fn mode_0_interrupts_once_at_terminal_count() {
    let rig = rig();
    rig.program(0, 0, 100);
    assert_eq!(rig.status(0), STATUS_NULL_COUNT | 0x30);
    rig.at(1);
    assert_eq!((rig.count(0), rig.status(0)), (100, 0x30));
    rig.at(100);
    assert_eq!((rig.count(0), rig.edges()), (1, 0));
    rig.at(101);
    assert_eq!((rig.count(0), rig.edges()), (0, 1));
    assert_eq!(rig.status(0), STATUS_OUT | 0x30);
    rig.at(102);
    assert_eq!(rig.count(0), 0xffff);
    rig.at(1_000_000);
    assert_eq!(rig.edges(), 1);
    assert_eq!(rig.clock.next_deadline_ns(), None);
}

#[test]
fn the_first_byte_of_a_new_count_stops_mode_0() {
    let rig = rig();
    rig.program(0, 0, 100);
    rig.at(50);
    outb(&*rig.pit, 0, 10);
    rig.at(1000);
    assert_eq!(rig.edges(), 0);
    outb(&*rig.pit, 0, 0);
    rig.at(1011);
    assert_eq!(rig.edges(), 1);
}

#[test]
fn mode_2_is_low_for_the_last_clock_of_each_period() {
    let rig = rig();
    rig.program(0, 2, 10);
    rig.at(1);
    assert_eq!((rig.count(0), rig.status(0) & STATUS_OUT), (10, STATUS_OUT));
    rig.at(10);
    assert_eq!((rig.count(0), rig.status(0) & STATUS_OUT), (1, 0));
    rig.at(11);
    assert_eq!((rig.count(0), rig.status(0) & STATUS_OUT), (10, STATUS_OUT));
}

#[test]
fn mode_3_is_a_square_wave_that_counts_by_two() {
    let rig = rig();
    rig.program(2, 3, 7);
    outb(&*rig.pit, PORT_B, PORT_B_GATE_2);
    let wave: Vec<_> = (1..15).map(|tick| (rig.at(tick), rig.out_2()).1).collect();
    let period = [true, true, true, true, false, false, false];
    assert_eq!(wave, [period, period].concat());
    rig.program(2, 3, 8);
    let base = rig.clock.now_ns();
    let counts = [1, 2, 3, 4, 5].map(|tick| {
        rig.clock.advance_to(base + CLK.ns(tick));
        rig.count(2)
    });
    assert_eq!(counts, [8, 6, 4, 2, 8]);
}

#[test]
fn ticks_that_a_late_host_missed_follow_one_by_one() {
    for mode in [2, 3] {
        let rig = rig();
        rig.program(0, mode, 11_932);
        rig.at(1 + 5 * 11_932);
        assert_eq!(rig.edges(), 5);
        // A host that was late: the clock stands at the next deadline while time goes on.
        rig.clock.set_ns(CLK.ns(1 + 50 * 11_932));
        rig.at(1 + 50 * 11_932 + 1);
        assert_eq!(rig.edges(), 6);
        rig.at(1 + 51 * 11_932);
        assert_eq!(rig.edges(), 6 + 4, "four in the time of one");
        rig.at(1 + 70 * 11_932);
        assert_eq!(rig.edges(), 70);
        rig.at(1 + 71 * 11_932);
        assert_eq!(rig.edges(), 71);
    }
}

#[test]
fn ticks_of_a_suspended_host_are_lost_but_for_the_last() {
    let rig = rig();
    rig.program(0, 2, 11_932);
    rig.at(1);
    rig.clock.set_ns(CLK.ns(1 + 1000 * 11_932));
    rig.at(1 + 1100 * 11_932);
    assert_eq!(rig.edges() as u64, BACKLOG_MAX + 100);
}

#[test]
fn a_new_count_takes_effect_at_the_end_of_the_period() {
    let rig = rig();
    rig.program(0, 2, 1000);
    rig.at(501);
    for byte in 50u16.to_le_bytes() {
        outb(&*rig.pit, 0, byte);
    }
    assert_eq!(rig.status(0) & STATUS_NULL_COUNT, STATUS_NULL_COUNT);
    assert_eq!(rig.count(0), 500);
    rig.at(1001);
    assert_eq!((rig.count(0), rig.edges()), (50, 1));
    rig.at(1051);
    assert_eq!(rig.edges(), 2);
}

#[test]
fn an_unheard_periodic_counter_leaves_the_host_alone() {
    let rig = rig();
    rig.heard.store(false, Ordering::Relaxed);
    rig.program(0, 2, 1000);
    rig.at(100_000);
    assert_eq!(rig.edges(), 1, "the edge that a masked PIC latches");
    assert_eq!(rig.clock.next_deadline_ns(), None);
    rig.pit.unmasked();
    assert_eq!(rig.clock.next_deadline_ns(), None);
    rig.heard.store(true, Ordering::Relaxed);
    rig.pit.unmasked();
    assert_eq!(rig.edges(), 1);
    rig.at(100_020);
    assert_eq!(rig.edges(), 2);
}

#[test]
fn mode_1_is_triggered_by_the_gate() {
    let rig = rig();
    rig.program(2, 1, 100);
    assert!(rig.out_2());
    rig.at(10);
    outb(&*rig.pit, PORT_B, PORT_B_GATE_2);
    rig.at(11);
    assert!(!rig.out_2());
    rig.at(50);
    outb(&*rig.pit, PORT_B, 0);
    outb(&*rig.pit, PORT_B, PORT_B_GATE_2);
    rig.at(150);
    assert!(!rig.out_2(), "triggered again");
    rig.at(151);
    assert!(rig.out_2());
}

#[test]
fn the_gate_holds_mode_0() {
    let rig = rig();
    rig.program(2, 0, 100);
    rig.at(1000);
    assert_eq!((rig.count(2), rig.out_2()), (100, false));
    outb(&*rig.pit, PORT_B, PORT_B_GATE_2);
    rig.at(1060);
    outb(&*rig.pit, PORT_B, 0);
    rig.at(5000);
    assert_eq!(rig.count(2), 40);
    outb(&*rig.pit, PORT_B, PORT_B_GATE_2);
    rig.at(5039);
    assert!(!rig.out_2());
    rig.at(5040);
    assert!(rig.out_2());
}

#[test]
fn strobes_are_low_for_one_clock() {
    let rig = rig();
    rig.program(0, 4, 20);
    rig.at(20);
    assert_eq!(rig.status(0) & STATUS_OUT, STATUS_OUT);
    rig.at(21);
    assert_eq!(rig.status(0) & STATUS_OUT, 0);
    rig.at(22);
    assert_eq!(rig.status(0) & STATUS_OUT, STATUS_OUT);
    rig.program(2, 5, 20);
    outb(&*rig.pit, PORT_B, PORT_B_GATE_2);
    rig.at(22 + 21);
    assert!(!rig.out_2());
    rig.at(22 + 22);
    assert!(rig.out_2());
}

#[test]
fn decimal_counts_read_and_wrap_in_decimal() {
    let rig = rig();
    outb(&*rig.pit, CONTROL, 0x31);
    outb(&*rig.pit, 0, 0x50);
    outb(&*rig.pit, 0, 0x12);
    rig.at(1 + 251);
    assert_eq!(rig.count(0), 0x0999);
    rig.at(1 + 1250);
    assert_eq!((rig.count(0), rig.edges()), (0, 1));
    rig.at(1 + 1251);
    assert_eq!(rig.count(0), 0x9999);
}

#[test]
fn read_back_latches_status_then_count_until_read() {
    let rig = rig();
    rig.program(0, 2, 1000);
    rig.at(101);
    outb(&*rig.pit, CONTROL, 0xc2);
    rig.at(201);
    outb(&*rig.pit, CONTROL, 0xc2);
    assert_eq!(inb(&*rig.pit, 0), STATUS_OUT | 0x34);
    let latched = u16::from_le_bytes([0, 1].map(|_| inb(&*rig.pit, 0)));
    assert_eq!(latched, 900);
    let live = u16::from_le_bytes([0, 1].map(|_| inb(&*rig.pit, 0)));
    assert_eq!(live, 800);
}

#[test]
fn single_bytes_are_read_and_written() {
    let rig = rig();
    outb(&*rig.pit, CONTROL, 0x14); // counter 0, LSB only, mode 2
    outb(&*rig.pit, 0, 200);
    rig.at(51);
    assert_eq!((inb(&*rig.pit, 0), inb(&*rig.pit, 0)), (150, 150));
    outb(&*rig.pit, CONTROL, 0x24); // MSB only
    outb(&*rig.pit, 0, 2);
    rig.at(52 + 100);
    assert_eq!(inb(&*rig.pit, 0), 1);
}

#[test]
fn the_refresh_bit_toggles() {
    let rig = rig();
    let before = inb(&*rig.pit, PORT_B) & PORT_B_REFRESH;
    rig.clock.advance_to(REFRESH_NS);
    assert_ne!(inb(&*rig.pit, PORT_B) & PORT_B_REFRESH, before);
    assert_eq!(rig.clock.next_deadline_ns(), None);
}

#[test]
fn restored_state_saves_equal_and_goes_on() {
    let old = rig();
    old.program(0, 3, 2000);
    old.program(2, 0, 500);
    outb(&*old.pit, PORT_B, 3);
    old.at(101);
    outb(&*old.pit, CONTROL, 0x00);
    inb(&*old.pit, 0);
    let section = old.pit.save();
    let new = rig();
    new.clock.set_ns(old.clock.now_ns());
    new.pit.restore(&section).unwrap();
    assert_eq!(new.pit.save(), section);
    for rig in [&old, &new] {
        assert_eq!(inb(&*rig.pit, 0), (2000u16 - 200).to_le_bytes()[1]);
        let edges = rig.edges();
        rig.at(2001);
        assert_eq!(rig.edges(), edges + 1);
        assert!(rig.out_2());
    }
    new.pit.reset();
    assert_eq!(new.clock.next_deadline_ns(), None);
}
