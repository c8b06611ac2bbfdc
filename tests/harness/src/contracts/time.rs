//! Timers and the TSC.

use std::thread;
use std::time::{Duration, Instant};

use x86_state::Gpr;

use crate::{Machine, Subject, guest};

pub(super) fn timers_of_every_kind_end_halt(subject: &Subject) {
    const COUNT: u64 = 3_000_000; // ns at one a count
    let cases = [
        ("one-shot", 0x31, COUNT, 1),
        ("periodic", 0x2_0031, COUNT, 3),
        ("deadline", 0x4_0031, 0, 1),
    ];
    for (kind, entry, count, times) in cases {
        let mut machine = Machine::about_to_run(subject, guest::timer(), |state| {
            state.regs.gpr[Gpr::Rsi as usize] = entry;
            state.regs.gpr[Gpr::Rcx as usize] = count;
            state.regs.gpr[Gpr::Rdi as usize] = COUNT;
        });
        for n in 1..=times {
            machine.run_until_done();
            assert_eq!(machine.read(Machine::DATA), n, "{kind}");
        }
    }
}

/// The TSC in units of 1024, as the guest shows it.
fn tsc(machine: &mut Machine) -> u32 {
    machine.run_until_done();
    machine.bus.take_shown()[0]
}

pub(super) fn the_tsc_goes_on_over_moves(subject: &Subject) {
    let mut machine =
        Machine::about_to_run(subject, guest::tsc(), |state| state.tsc_offset = 1 << 30);
    let per_ms = machine.profile.tsc_khz() >> 10;
    let mut begin = Instant::now();
    let mut before = tsc(&mut machine);
    assert!(before >= 1 << 20);
    for _ in 0..50 {
        let next = Instant::now();
        let state = machine.vcpus[0].save().unwrap();
        machine.vcpus[0].load(&state).unwrap();
        let now = tsc(&mut machine);
        let passed = now.wrapping_sub(before);
        let most = per_ms * (1000 + begin.elapsed().as_millis() as u32);
        assert!(passed < most, "from {before} to {now}");
        (before, begin) = (now, next);
    }
}

pub(super) fn the_tsc_stands_while_the_clock_stands(subject: &Subject) {
    let mut machine = Machine::about_to_run(subject, guest::tsc(), |_| {});
    let per_ms = machine.profile.tsc_khz() >> 10;
    for moved in [false, true] {
        let begin = Instant::now();
        let before = tsc(&mut machine);
        machine.clock.stop();
        let mut ran = begin.elapsed();
        if moved {
            let state = machine.vcpus[0].save().unwrap();
            machine.vcpus[0].load(&state).unwrap();
        }
        thread::sleep(Duration::from_millis(400));
        let begin = Instant::now();
        machine.clock.start();
        let passed = tsc(&mut machine).wrapping_sub(before);
        ran += begin.elapsed();
        let most = per_ms * (200 + ran.as_millis() as u32);
        assert!(passed < most, "{passed} units in {ran:?}");
    }
}

/// Whoever stops the clock loads every vCPU anew before it goes on.
pub(super) fn timers_stand_while_the_clock_stands(subject: &Subject) {
    const COUNT: u64 = 1_000_000_000; // ns at one a count
    for (kind, entry, count) in [("one-shot", 0x31, COUNT), ("periodic", 0x2_0031, COUNT)] {
        let mut machine = Machine::about_to_run(subject, guest::timer(), |state| {
            state.regs.gpr[Gpr::Rsi as usize] = entry;
            state.regs.gpr[Gpr::Rcx as usize] = count;
        });
        let begin = Instant::now();
        machine.run_while(|_| thread::sleep(Duration::from_millis(20)));
        machine.clock.stop();
        let mut ran = begin.elapsed();
        thread::sleep(Duration::from_nanos(COUNT));
        let state = machine.vcpus[0].save().unwrap();
        machine.vcpus[0].load(&state).unwrap();
        let begin = Instant::now();
        machine.clock.start();
        machine.run_while(|_| thread::sleep(Duration::from_millis(200)));
        ran += begin.elapsed();
        // On a host so busy, it may be right.
        let due = ran.as_nanos() >= COUNT.into();
        let fired = machine.read(Machine::DATA) != 0;
        assert!(!fired || due, "{kind}: fired while the clock stood, after {ran:?}");
    }
}
