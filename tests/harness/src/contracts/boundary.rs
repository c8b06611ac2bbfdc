//! `run` returns at instruction boundaries, and for what reasons.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use engine::{DebugStop, DebugStops, Exit, IndexRegister};
use x86_state::VcpuId;

use crate::fake_bus::at;
use crate::{Machine, Subject, guest};

/// Kicks, each with a save and a load behind it.
const KICKS: u32 = 4000;
/// After this, a few are enough.
const TIME_MAX: Duration = Duration::from_secs(15);
const KICKS_MIN: u32 = 400;
const COPIES_MIN: u32 = 100;

pub(super) fn no_access_is_lost_or_repeated_however_often_it_is_kicked(subject: &Subject) {
    copies_while_it_is_kicked(Machine::about_to_run(subject, guest::copy(), |_| {}));
}

pub(super) fn writes_held_back_come_in_order_and_before_run_returns(subject: &Subject) {
    let machine = Machine::about_to_run(subject, guest::copy(), |_| {});
    let complex = machine.complex.clone();
    let Some(paths) = complex.kernel_paths() else { return };
    let registers = [IndexRegister::Port(at::BYTE_LOG), IndexRegister::Mmio(at::MMIO_LOG)];
    for register in registers {
        paths.hold_back(register).unwrap();
    }
    copies_while_it_is_kicked(machine);
    registers.into_iter().for_each(|register| paths.release(register));
}

fn copies_while_it_is_kicked(mut machine: Machine) {
    let bus = machine.as_bus();
    let over = AtomicBool::new(false);
    let complex = machine.complex.clone();
    let start = Instant::now();
    let mut kicks = 0;
    thread::scope(|scope| {
        // Between accesses, too; rarely enough for a slow host to come to the next access.
        scope.spawn(|| {
            while !over.load(Ordering::Acquire) {
                complex.kick(VcpuId(0));
                thread::sleep(Duration::from_millis(25));
            }
        });
        let vcpu = &mut machine.vcpus[0];
        let enough = |kicks| kicks > KICKS_MIN && machine.bus.copies() > COPIES_MIN;
        while kicks < KICKS && !(start.elapsed() > TIME_MAX && enough(kicks)) {
            machine.bus.kick_every([1, 2, 3, 5][kicks as usize / 97 % 4]);
            assert_eq!(vcpu.run(&bus).unwrap(), Exit::Kicked);
            let state = vcpu.save().unwrap();
            // Everything the guest knows is in the state and in memory.
            vcpu.load(&state).unwrap();
            kicks += 1;
        }
        over.store(true, Ordering::Release);
    });
    let copies = machine.bus.copies();
    assert!(copies > COPIES_MIN, "{copies} copies in {kicks} kicks: too few to tell");
}

pub(super) fn a_triple_fault_is_an_exit(subject: &Subject) {
    let mut machine =
        Machine::about_to_run(subject, guest::undefined(), |state| state.idtr.limit = 0);
    assert_eq!(machine.run(), Exit::TripleFault);
}

pub(super) fn a_step_is_one_instruction(subject: &Subject) {
    let mut machine = Machine::about_to_run(subject, guest::steps(), |_| {});
    let stops = DebugStops { step: true, ..Default::default() };
    machine.vcpus[0].set_debug(Some(&stops)).unwrap();
    for n in 1..=3 {
        assert_eq!(machine.run(), Exit::Debug(DebugStop::Step));
        let state = machine.vcpus[0].save().unwrap();
        assert_eq!(state.regs.rip, Machine::code_at(0) + n);
        assert_eq!(state.regs.rflags & 0x100, 0, "the guest does not see the debugger's flag");
    }
    machine.vcpus[0].set_debug(None).unwrap();
    machine.run_while(|_| thread::sleep(Duration::from_millis(5)));
}

pub(super) fn a_breakpoint_stops_before_its_instruction_and_is_passed(subject: &Subject) {
    let mut machine = Machine::about_to_run(subject, guest::steps(), |_| {});
    let at = [1, 3].map(|n| Machine::code_at(0) + n);
    let stops = DebugStops { step: false, breakpoints: at.to_vec() };
    machine.vcpus[0].set_debug(Some(&stops)).unwrap();
    // The second is at a jump to itself: met again after every pass.
    for address in [at[0], at[1], at[1]] {
        assert_eq!(machine.run(), Exit::Debug(DebugStop::Breakpoint(address)));
        assert_eq!(machine.vcpus[0].save().unwrap().regs.rip, address);
    }
}
