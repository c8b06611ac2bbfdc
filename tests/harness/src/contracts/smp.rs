//! Code that changes, and memory between CPUs.

use x86_state::bits::Cr4;
use x86_state::{Gpr, VcpuState};

use crate::{Machine, Subject, guest};

/// What guests show when nothing was wrong.
const FINE: u32 = 0x600d;
/// Where code is written.
const WRITTEN: u64 = 0x18_0000;
/// A word of its own line.
const SIGN: u64 = 0x18_2000;

/// `usual`, and `TRINE_TORTURE` times as many.
fn rounds(usual: u64) -> u64 {
    let times = std::env::var("TRINE_TORTURE").ok().and_then(|t| t.parse().ok());
    usual * times.unwrap_or(1)
}

fn set(state: &mut VcpuState, registers: &[(Gpr, u64)]) {
    for (register, value) in registers {
        state.regs.gpr[*register as usize] = *value;
    }
}

pub(super) fn code_that_rewrites_itself_runs_as_written(subject: &Subject) {
    // Elsewhere, at a line's end and at a page's, and beside the code that runs.
    let own = Machine::code_at(0) + 0x800;
    for at in [WRITTEN, WRITTEN + 0x3d, WRITTEN + 0xffd, own, own + 0x7fc] {
        for user in [false, true] {
            let mut machine = Machine::new(subject, 1);
            machine.open_to_users();
            machine.place(0, guest::rewrite_and_call());
            let mut state = if user { machine.user_mode(0) } else { machine.long_mode(0) };
            set(&mut state, &[(Gpr::Rdi, at), (Gpr::Rcx, rounds(300))]);
            machine.vcpus[0].load(&state).unwrap();
            machine.run_until_done();
            assert_eq!(machine.bus.take_shown(), [FINE], "at {at:#x}, in ring 3: {user}");
        }
    }
}

pub(super) fn code_another_cpu_rewrites_runs_as_written(subject: &Subject) {
    for at in [WRITTEN, WRITTEN + 0xff8] {
        let mut machine = Machine::new(subject, 2);
        machine.open_to_users();
        machine.place(0, guest::write_code());
        machine.place(1, guest::call_code());
        let registers = [(Gpr::Rdi, at), (Gpr::Rsi, SIGN), (Gpr::Rcx, rounds(3_000))];
        for id in 0..2 {
            let mut state = machine.user_mode(id);
            set(&mut state, &registers);
            machine.vcpus[id].load(&state).unwrap();
        }
        machine.run_all_until_done();
        assert_eq!(machine.bus.take_shown(), [FINE], "at {at:#x}");
    }
}

pub(super) fn code_that_is_mapped_anew_is_the_new(subject: &Subject) {
    const TABLE: u64 = 0xc000;
    const UPPER: u64 = 0xffff_ff80_0000_0000;
    const AT: u64 = 0x60_0000;
    const PAGES: [u64; 2] = [0x20_0000, 0x20_1000];
    let (user, kernel, global) = (7, 3, 0x103);
    // In the lower half and in the upper; by INVLPG, and now and then by CR3.
    for (linear, flags, by_cr3) in [
        (AT, user, 0),
        (AT, user, 3),
        (AT, kernel, 1),
        (UPPER + AT, kernel, 0),
        (UPPER + AT, kernel, 3),
        (UPPER + AT, global, 0),
    ] {
        let mut machine = Machine::new(subject, 1);
        machine.open_to_users();
        machine.place(0, guest::remap_code());
        let mut state = machine.long_mode(0);
        state.cr4 |= Cr4::PGE.bits();
        machine.write(state.cr3 + 511 * 8, machine.read(state.cr3));
        machine.write(Machine::DIRECTORIES[0] + (AT >> 21) * 8, TABLE | user);
        for (page, n) in PAGES.into_iter().zip(1..) {
            machine.write(page, 0xb8 | n << 8 | 0xc3 << 40);
        }
        set(&mut state, &[(Gpr::R8, PAGES[0] | flags), (Gpr::R9, PAGES[1] | flags)]);
        set(&mut state, &[(Gpr::R10, TABLE), (Gpr::R14, linear)]);
        set(&mut state, &[(Gpr::R15, by_cr3), (Gpr::Rcx, rounds(2_000))]);
        machine.vcpus[0].load(&state).unwrap();
        machine.run_until_done();
        assert_eq!(machine.bus.take_shown(), [FINE], "at {linear:#x}, {flags:#x}, {by_cr3}");
    }
}

pub(super) fn memory_is_ordered_as_the_architecture_promises(subject: &Subject) {
    const VIOLATIONS: u64 = 0x18_8000;
    const BARRIER: u64 = 0x18_4000;
    const READ: u64 = 0x18_6000;
    for (test, cpus) in [(0, 2), (1, 2), (2, 2), (3, 4)] {
        // Y in the line of X, in another, and in another page.
        for distance in [8, 64, 0x1000] {
            let mut machine = Machine::new(subject, cpus);
            machine.open_to_users();
            for id in 0..cpus as usize {
                machine.place(id, guest::litmus());
                let mut state = machine.user_mode(id);
                let count = rounds(if cpus == 2 { 400 } else { 60 });
                set(&mut state, &[(Gpr::R15, id as u64), (Gpr::R14, cpus.into())]);
                set(&mut state, &[(Gpr::R12, test), (Gpr::R8, distance), (Gpr::R9, READ)]);
                set(&mut state, &[(Gpr::Rsi, WRITTEN), (Gpr::Rdi, BARRIER), (Gpr::Rcx, count)]);
                set(&mut state, &[(Gpr::Rbx, VIOLATIONS)]);
                machine.vcpus[id].load(&state).unwrap();
            }
            machine.run_all_until_done();
            let violations = machine.read(VIOLATIONS);
            assert_eq!(violations, 0, "test {test} at a distance of {distance}");
        }
    }
}
