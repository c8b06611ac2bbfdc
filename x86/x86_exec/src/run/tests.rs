//! The loop, with code that was assembled by hand.

use super::*;
use crate::plain::PlainEnv;
use x86_state::bits::Rflags;
use x86_state::{Exception, Gpr};

const CODE: u64 = 0x10_0000;

fn cpu(code: &[u8]) -> Cpu<PlainEnv> {
    Cpu::flat64(0, CODE, code)
}

#[test]
fn the_budget_is_exact_wherever_it_falls() {
    // inc rax; inc rbx; inc rcx; jmp back
    let code = [0x48, 0xff, 0xc0, 0x48, 0xff, 0xc3, 0x48, 0xff, 0xc1, 0xeb, 0xf5];
    for budget in 0..30 {
        let mut cpu = cpu(&code);
        assert_eq!(cpu.run(budget), RunExit::Budget);
        assert_eq!(cpu.retired, budget);
        assert_eq!(cpu.gpr[0], budget.div_ceil(4), "{budget}");
        assert_eq!(cpu.gpr[Gpr::Rcx as usize], (budget + 1) / 4);
        assert_eq!(cpu.rip, CODE + 3 * (budget % 4));
    }
}

#[test]
fn a_comparison_and_its_jump_are_two_instructions_to_the_budget() {
    // inc rax; cmp rax, 100; jne back; inc rbx; test eax, eax; jne to the comparison
    let code = [
        0x48, 0xff, 0xc0, 0x48, 0x83, 0xf8, 0x64, 0x75, 0xf7, 0x48, 0xff, 0xc3, 0x85, 0xc0, 0x75,
        0xf3,
    ];
    for budget in 0..12 {
        let mut cpu = cpu(&code);
        assert_eq!(cpu.run(budget), RunExit::Budget);
        assert_eq!((cpu.retired, cpu.gpr[0]), (budget, budget.div_ceil(3)));
        assert_eq!(cpu.rip, CODE + [0, 3, 7][budget as usize % 3]);
    }
    let mut cpu = cpu(&code);
    cpu.run(300 + 3 + 2);
    assert_eq!((cpu.gpr[0], cpu.gpr[3], cpu.rip), (100, 1, CODE + 9));
}

#[test]
fn jumps_and_pairs_in_any_order_count_as_single_steps_do() {
    // inc rax; cmp rax, 2; je to the last; test al, al; js to the last; inc rbx; jmp back;
    // inc rcx; hlt
    let code = [
        0x48, 0xff, 0xc0, 0x48, 0x83, 0xf8, 0x02, 0x74, 0x09, 0x84, 0xc0, 0x78, 0x05, 0x48, 0xff,
        0xc3, 0xeb, 0xee, 0x48, 0xff, 0xc1, 0xf4,
    ];
    let mut whole = cpu(&code);
    assert_eq!(whole.run(u64::MAX), RunExit::Halted);
    assert_eq!((whole.retired, whole.gpr[0], whole.gpr[3], whole.gpr[1]), (12, 2, 1, 1));
    for budget in 0..12 {
        let (mut cpu, mut stepped) = (self::cpu(&code), self::cpu(&code));
        assert_eq!(cpu.run(budget), RunExit::Budget);
        (0..budget).for_each(|_| assert_eq!(stepped.step(), Ok(())));
        assert_eq!((cpu.rip, &cpu.gpr[..8], cpu.retired), (stepped.rip, &stepped.gpr[..8], budget));
    }
}

#[test]
fn attention_ends_the_run_between_blocks() {
    let mut cpu = cpu(&[0xeb, 0xfe]);
    cpu.env.attention.set(true);
    assert_eq!(cpu.run(u64::MAX), RunExit::Events);
    assert_eq!(cpu.rip, CODE);
}

#[test]
fn code_that_writes_ahead_of_itself_runs_what_it_wrote() {
    // mov byte [rip+4], 0xc3 (inc ebx instead of eax); nop; inc eax at +8; jmp self
    let code = [0xc6, 0x05, 0x02, 0, 0, 0, 0xc3, 0x90, 0xff, 0xc0, 0xeb, 0xfe];
    let mut cpu = cpu(&code);
    cpu.run(3);
    assert_eq!((cpu.gpr[0], cpu.gpr[3]), (0, 1));
}

#[test]
fn code_written_between_runs_is_decoded_again() {
    let mut cpu = cpu(&[0xff, 0xc0, 0xeb, 0xfc]);
    cpu.run(10);
    assert_eq!(cpu.gpr[0], 5);
    cpu.env.put(CODE, &[0xff, 0xc3]);
    cpu.run(10);
    assert_eq!((cpu.gpr[0], cpu.gpr[3]), (5, 5));
}

#[test]
fn an_instruction_across_pages_runs() {
    let at = CODE + 0xffd;
    // mov eax, 0x12345678 over the page's end; jmp back
    let code = [0xb8, 0x78, 0x56, 0x34, 0x12, 0xff, 0xc1, 0xeb, 0xf7];
    let mut cpu = Cpu::flat64(0, at, &code);
    cpu.run(30);
    assert_eq!((cpu.gpr[0], cpu.gpr[1]), (0x1234_5678, 10));
}

#[test]
fn a_locked_access_across_pages_stops_the_others() {
    // lock inc dword [rbx]
    let mut cpu = cpu(&[0xf0, 0xff, 0x03]);
    cpu.gpr[3] = 0x20_0ffc;
    cpu.step().unwrap();
    assert_eq!(cpu.env.stopped, []);
    for lock in [0xf0, 0x3e] {
        let mut cpu = self::cpu(&[lock, 0xff, 0x03]);
        cpu.gpr[3] = 0x20_0ffe;
        cpu.env.put(0x20_0ffe, &0x0001_ffffu32.to_le_bytes());
        cpu.step().unwrap();
        assert_eq!(cpu.env.get(0x20_0ffe, 4), 0x0002_0000u32.to_le_bytes());
        assert_eq!(cpu.env.stopped, if lock == 0xf0 { vec![true, false] } else { vec![] });
    }
}

#[test]
fn a_fault_in_a_block_leaves_rip_and_count_at_its_instruction() {
    // inc eax; inc eax; mov eax, [-8]; inc eax
    let code = [0xff, 0xc0, 0xff, 0xc0, 0x48, 0x8b, 0x04, 0x25, 0xf8, 0xff, 0xff, 0x7f, 0xff, 0xc0];
    let mut cpu = cpu(&code);
    cpu.idtr.limit = 0;
    assert_eq!(cpu.run(100), RunExit::TripleFault);
    assert_eq!((cpu.retired, cpu.rip), (2, CODE + 4));
    assert_eq!(cpu.gpr[0], 2);
}

#[test]
fn a_repeat_gives_way_and_goes_on() {
    // rep stosb; jmp self
    let mut cpu = cpu(&[0xf3, 0xaa, 0xeb, 0xfe]);
    cpu.gpr[Gpr::Rdi as usize] = 0x20_0000;
    cpu.gpr[Gpr::Rcx as usize] = 0x1_8000;
    cpu.gpr[0] = 0x5a;
    cpu.run(1);
    assert_eq!((cpu.retired, cpu.rip), (1, CODE + 2));
    assert_eq!(cpu.gpr[Gpr::Rcx as usize], 0);
    assert_eq!(cpu.env.get(0x21_7fff, 2), [0x5a, 0]);
}

#[test]
fn overlapping_moves_repeat_the_pattern() {
    // rep movsb
    let mut cpu = cpu(&[0xf3, 0xa4, 0xeb, 0xfe]);
    cpu.env.put(0x20_0000, b"abcdefgh");
    cpu.gpr[Gpr::Rsi as usize] = 0x20_0000;
    cpu.gpr[Gpr::Rdi as usize] = 0x20_0005;
    cpu.gpr[Gpr::Rcx as usize] = 12;
    cpu.run(1);
    assert_eq!(cpu.env.get(0x20_0000, 17), b"abcdeabcdeabcdeab");
}

#[test]
fn single_step_raises_after_each_iteration() {
    let mut cpu = cpu(&[0xf3, 0xaa]);
    cpu.gpr[Gpr::Rdi as usize] = 0x20_0000;
    cpu.gpr[Gpr::Rcx as usize] = 9;
    cpu.system_flags |= Rflags::TF.bits();
    assert_eq!(cpu.step_carefully(), Step::Raised);
    assert_eq!(cpu.fault.exception, Exception::Db);
    assert_eq!((cpu.gpr[Gpr::Rcx as usize], cpu.rip), (8, CODE));
}

#[test]
fn an_instruction_breakpoint_is_a_fault_that_rf_passes() {
    let mut cpu = cpu(&[0xff, 0xc0]);
    cpu.debug.address[1] = CODE;
    cpu.debug.dr7 = 0x404;
    assert_eq!(cpu.step_carefully(), Step::Raised);
    assert_eq!((cpu.fault.payload, cpu.gpr[0]), (2, 0));
    // The handler sets RF in the flags it returns to.
    cpu.system_flags |= Rflags::RF.bits();
    assert_eq!(cpu.step_carefully(), Step::Done);
    assert_eq!(cpu.gpr[0], 1);
    assert!(!cpu.system_flag(Rflags::RF));
}

#[test]
fn code_beyond_its_segment_raises() {
    let mut cpu = Cpu::flat32(CODE, &[0xff, 0xc0, 0xff, 0xc0, 0xeb, 0xfa]);
    cpu.idtr.limit = 0;
    cpu.segments[SegReg::Cs as usize].limit = CODE as u32 + 4;
    assert_eq!(cpu.run(100), RunExit::TripleFault);
    assert_eq!((cpu.gpr[0], cpu.rip, cpu.retired), (2, CODE + 4, 2));
}

#[test]
fn sixteen_bit_code_wraps_its_addresses() {
    // mov bx, 0xffff; mov byte [bx+2], 7; jmp self
    let mut cpu = Cpu::real16(0x7c00, &[0xbb, 0xff, 0xff, 0xc6, 0x47, 0x02, 0x07, 0xeb, 0xfe]);
    cpu.run(3);
    assert_eq!(cpu.env.get(1, 1), [7]);
}

#[test]
fn a_far_jump_in_real_mode_loads_cs() {
    // jmp 0x9800:0x1008
    let mut cpu = cpu(&[0xea, 0x08, 0x10, 0x00, 0x98]);
    cpu.cr0 = 0;
    cpu.cr4 = 0;
    cpu.efer = 0;
    cpu.segments[SegReg::Cs as usize] =
        x86_state::Segment { base: CODE, attr: 0x9b, ..x86_state::Segment::real(0) };
    cpu.rip = 0;
    cpu.flush_derived();
    assert_eq!(cpu.run(1), RunExit::Budget);
    assert_eq!((cpu.segment(SegReg::Cs).base, cpu.rip), (0x9_8000, 0x1008));
}
