//! What the host cannot show: ports, wrapping addresses, directions in real mode.

use crate::plain::PlainEnv;
use crate::{Cpu, RunExit};
use x86_state::Gpr;
use x86_state::bits::Rflags;

fn real(code: &[u8]) -> Cpu<PlainEnv> {
    Cpu::real16(0x7c00, code)
}

#[test]
fn ins_stores_what_the_port_gives() {
    let mut cpu = real(&[0xf3, 0x6d]); // rep insw
    cpu.env.input.borrow_mut().extend([1, 2, 3, 4, 5, 6]);
    cpu.gpr[Gpr::Rdi as usize] = 0x500;
    cpu.gpr[Gpr::Rcx as usize] = 3;
    assert_eq!(cpu.run(1), RunExit::Budget);
    assert_eq!(cpu.env.get(0x500, 7), [1, 2, 3, 4, 5, 6, 0]);
    assert_eq!(cpu.gpr[Gpr::Rdi as usize], 0x506);
}

#[test]
fn outs_goes_down_with_the_direction_flag() {
    let mut cpu = real(&[0xf3, 0x6e]); // rep outsb
    cpu.env.put(0x500, b"abc");
    cpu.system_flags |= Rflags::DF.bits();
    cpu.gpr[Gpr::Rsi as usize] = 0x502;
    cpu.gpr[Gpr::Rcx as usize] = 3;
    cpu.gpr[Gpr::Rdx as usize] = 0x3f8;
    cpu.run(1);
    let bytes: Vec<u8> = cpu.env.port_writes.iter().flat_map(|w| w.1.clone()).collect();
    assert_eq!(bytes, b"cba");
}

#[test]
fn user_code_without_permission_reads_no_port() {
    let mut cpu = Cpu::flat64(3, 0x10_0000, &[0x6c]); // insb
    cpu.tr.limit = 0; // no bitmap
    cpu.env.input.borrow_mut().push(1);
    cpu.gpr[Gpr::Rdi as usize] = 0x20_0000;
    assert!(cpu.step().is_err());
    assert_eq!(cpu.env.input.borrow().len(), 1);
}

#[test]
fn sixteen_bit_fills_wrap_inside_of_their_segment() {
    let mut cpu = real(&[0xf3, 0xaa]); // rep stosb
    cpu.gpr[0] = 0x77;
    cpu.gpr[Gpr::Rdi as usize] = 0xffff_fff8;
    cpu.gpr[Gpr::Rcx as usize] = 16;
    cpu.run(1);
    assert_eq!(
        cpu.env.get(0xfff0, 17)[7..],
        [0, 0x77, 0x77, 0x77, 0x77, 0x77, 0x77, 0x77, 0x77, 0]
    );
    assert_eq!(cpu.env.get(0, 9), [0x77, 0x77, 0x77, 0x77, 0x77, 0x77, 0x77, 0x77, 0]);
    assert_eq!(cpu.gpr[Gpr::Rdi as usize], 0xffff_0008);
}

#[test]
fn a_fault_in_a_repeat_leaves_the_iterations_done() {
    let mut cpu = Cpu::flat64(0, 0x10_0000, &[0xf3, 0xaa]);
    cpu.gpr[Gpr::Rdi as usize] = 0xff_fff0; // the end of what is mapped
    cpu.gpr[Gpr::Rcx as usize] = 100;
    assert!(cpu.step().is_err());
    assert_eq!(cpu.gpr[Gpr::Rcx as usize], 84);
    assert_eq!(cpu.gpr[Gpr::Rdi as usize], 0x100_0000);
    assert_eq!((cpu.rip, cpu.fault.payload), (0x10_0000, 0x100_0000));
}
