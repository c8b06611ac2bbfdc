//! Kicks are sticky, and HLT sleeps.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use engine::Exit;
use x86_state::{Activity, VcpuId};

use crate::{Machine, Subject, guest};

const KICKS: u32 = 2000;

pub(super) fn a_kick_before_run_is_kept(subject: &Subject) {
    let mut machine = Machine::about_to_run(subject, guest::spin(), |_| {});
    for _ in 0..10 {
        machine.complex.kick(VcpuId(0));
        assert_eq!(machine.run(), Exit::Kicked);
    }
}

pub(super) fn no_kick_is_lost(subject: &Subject) {
    let mut machine = Machine::about_to_run(subject, guest::spin(), |_| {});
    let bus = machine.as_bus();
    let complex = machine.complex.clone();
    let (told, returned) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            for n in 0..KICKS {
                if n % 3 == 0 {
                    thread::sleep(Duration::from_micros(u64::from(n % 50)));
                }
                complex.kick(VcpuId(0));
                // A second kick only after the first was answered: none can stand for another.
                returned.recv_timeout(Duration::from_secs(60)).unwrap();
            }
        });
        for _ in 0..KICKS {
            assert_eq!(machine.vcpus[0].run(&bus).unwrap(), Exit::Kicked);
            told.send(()).unwrap();
        }
    });
}

/// A machine whose guest has come to its HLT, however busy the host is.
fn halted(subject: &Subject) -> Machine {
    let mut machine = Machine::about_to_run(subject, guest::halt(), |_| {});
    let begin = Instant::now();
    while machine.vcpus[0].save().unwrap().activity != Activity::Halted {
        assert!(begin.elapsed() < Duration::from_secs(60), "it does not halt");
        machine.run_while(|_| thread::sleep(Duration::from_millis(10)));
    }
    machine
}

pub(super) fn a_kick_ends_halt(subject: &Subject) {
    let mut machine = halted(subject);
    for _ in 0..5 {
        machine.run_while(|_| thread::sleep(Duration::from_millis(5)));
        assert_eq!(machine.vcpus[0].save().unwrap().activity, Activity::Halted);
    }
}

pub(super) fn halt_costs_no_cpu_time(subject: &Subject) {
    let mut machine = halted(subject);
    let mut used = Duration::ZERO;
    machine.run_while(|_| {
        thread::sleep(Duration::from_millis(50));
        let (before, start) = (cpu_time(), Instant::now());
        thread::sleep(Duration::from_millis(200));
        used = cpu_time().saturating_sub(before) * 200 / start.elapsed().as_millis() as u32;
    });
    assert!(used <= Duration::from_millis(40), "{used:?} in 200 ms of HLT");
}

/// Of the whole process, in steps of a clock tick (10 ms).
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let ticks = after_name.split_whitespace().skip(11).take(2);
    Duration::from_millis(10) * ticks.map(|n| n.parse::<u32>().unwrap()).sum()
}
