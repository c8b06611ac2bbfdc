//! Emitters.

use iced_x86::FastFormatter;

use super::decode;
use crate::{Alu, Assembler, Cond, Mem, OutOfRange, Reg, Segment, Shift};

fn text(emit: impl FnOnce(&mut Assembler)) -> String {
    let mut out = Assembler::new();
    emit(&mut out);
    let mut text = String::new();
    let mut formatter = FastFormatter::new();
    formatter.options_mut().set_use_hex_prefix(true);
    formatter.format(&decode(64, out.code()), &mut text);
    text.replace(' ', "_").replacen('_', " ", 1).replace('_', "")
}

#[test]
fn moves_have_their_sizes_and_registers() {
    use Reg as R;
    assert_eq!(text(|a| a.mov_rr(8, R::R10, R::RSP)), "mov r10,rsp");
    assert_eq!(text(|a| a.mov_rr(1, R::RSI, R::RAX)), "mov sil,al");
    assert_eq!(text(|a| a.mov_ri(R::R9, 5)), "mov r9d,0x5");
    assert_eq!(text(|a| a.mov_ri(R::RCX, u64::MAX)), "mov rcx,0xFFFFFFFFFFFFFFFF");
    assert_eq!(text(|a| a.mov_ri(R::R8, 1 << 40)), "mov r8,0x10000000000");
    assert_eq!(text(|a| a.load(1, R::RSP, Mem::at(R::RBP, 0))), "movzx esp,byteptr[rbp]");
    assert_eq!(text(|a| a.load(8, R::R13, Mem::at(R::R13, 0))), "mov r13,[r13]");
    assert_eq!(
        text(|a| a.load_signed(4, R::RAX, Mem::gs(-8))),
        "movsxd rax,gs:[0xFFFFFFFFFFFFFFF8]"
    );
    assert_eq!(text(|a| a.store(1, Mem::at(R::RSP, 0x80), R::RDI)), "mov [rsp+0x80],dil");
    let indexed = Mem::absolute(0x10).index(R::R12, 3).seg(Segment::Fs);
    assert_eq!(text(|a| a.store_imm32(2, indexed, -1)), "mov wordptrfs:[r12*8+0x10],0xFFFF");
    let both = Mem::at(R::R12, 4).index(R::RBP, 2);
    assert_eq!(text(|a| a.lea(8, R::R10, both)), "lea r10,[r12+rbp*4+0x4]");
    assert_eq!(text(|a| a.movzx(1, R::RAX, R::RSI)), "movzx eax,sil");
    assert_eq!(text(|a| a.movsx(4, R::RAX, R::R9)), "movsxd rax,r9d");
}

#[test]
fn arithmetic_is_what_it_says() {
    use Reg as R;
    assert_eq!(text(|a| a.alu_rr(Alu::Sbb, 4, R::R8, R::RAX)), "sbb r8d,eax");
    assert_eq!(text(|a| a.alu_ri(Alu::Cmp, 8, R::RSP, -3)), "cmp rsp,0xFFFFFFFFFFFFFFFD");
    assert_eq!(text(|a| a.alu_ri(Alu::And, 2, R::RAX, 0x1234)), "and ax,0x1234");
    assert_eq!(text(|a| a.alu_ri(Alu::Xor, 1, R::RDI, 1)), "xor dil,0x1");
    assert_eq!(text(|a| a.alu_rm(Alu::Sub, 8, R::R10, Mem::gs(0x20))), "sub r10,gs:[0x20]");
    assert_eq!(text(|a| a.alu_mr(Alu::Or, 1, Mem::at(R::RAX, 0), R::RBP)), "or [rax],bpl");
    assert_eq!(text(|a| a.alu_mi(Alu::Add, 8, Mem::at(R::RAX, 0), 500)), "add qwordptr[rax],0x1F4");
    assert_eq!(text(|a| a.test_rr(1, R::RSP, R::RAX)), "test spl,al");
    assert_eq!(text(|a| a.test_ri(1, R::R10, 7)), "test r10b,0x7");
    assert_eq!(text(|a| a.test_mi(4, Mem::gs(4), 1)), "test dwordptrgs:[0x4],0x1");
    assert_eq!(text(|a| a.shift_ri(Shift::Sar, 8, R::R11, 9)), "sar r11,0x9");
    assert_eq!(text(|a| a.shift_cl(Shift::Rol, 2, R::RBX)), "rol bx,cl");
    assert_eq!(text(|a| a.imul_rri(8, R::RAX, R::R9, 1000)), "imul rax,r9,0x3E8");
    assert_eq!(text(|a| a.imul_rr(4, R::RAX, R::R9)), "imul eax,r9d");
    assert_eq!(text(|a| a.not(8, R::R15)), "not r15");
    assert_eq!(text(|a| a.neg(1, R::RSI)), "neg sil");
    assert_eq!(text(|a| a.inc_m(8, Mem::gs(8))), "inc qwordptrgs:[0x8]");
    assert_eq!(text(|a| a.dec_m(4, Mem::gs(8))), "dec dwordptrgs:[0x8]");
    assert_eq!(text(|a| a.pext_rm(R::RCX, R::R10, Mem::gs(8))), "pext rcx,r10,gs:[0x8]");
    assert_eq!(text(|a| a.pext_rr(R::R9, R::RAX, R::R8)), "pext r9,rax,r8");
    assert_eq!(text(|a| a.andn(4, R::R9, R::RAX, R::R8)), "andn r9d,eax,r8d");
    assert_eq!(text(|a| a.shiftx(Shift::Shr, 8, R::R9, R::RAX, R::RCX)), "shrx r9,rax,rcx");
    assert_eq!(text(|a| a.shiftx(Shift::Shl, 4, R::R9, R::RAX, R::RCX)), "shlx r9d,eax,ecx");
    assert_eq!(text(|a| a.bt_ri(8, R::RAX, 33)), "bt rax,0x21");
    assert_eq!(text(|a| a.bt_mi(4, Mem::gs(0), 3)), "bt dwordptrgs:[0x0],0x3");
    assert_eq!(text(|a| a.cmov_rr(Cond::G, 8, R::RAX, R::R8)), "cmovg rax,r8");
    assert_eq!(text(|a| a.cmov_rm(Cond::O, 4, R::R8, Mem::at(R::RSP, 8))), "cmovo r8d,[rsp+0x8]");
    assert_eq!(text(|a| a.setcc(Cond::B, R::RDI)), "setb dil");
    assert_eq!(text(|a| a.setcc_m(Cond::Np, Mem::gs(1))), "setnp gs:[0x1]");
    assert_eq!(text(|a| a.xchg_rr(8, R::RSP, R::R9)), "xchg rsp,r9");
    assert_eq!(text(|a| a.xchg_mr(8, Mem::gs(1), R::R9)), "xchg gs:[0x1],r9");
}

#[test]
fn the_rest_is_what_it_says() {
    use Reg as R;
    assert_eq!(text(Assembler::lahf), "lahf");
    assert_eq!(text(Assembler::sahf), "sahf");
    assert_eq!(text(Assembler::pushf), "pushfq");
    assert_eq!(text(Assembler::popf), "popfq");
    assert_eq!(text(|a| a.push_r(R::R12)), "push r12");
    assert_eq!(text(|a| a.pop_r(R::RBX)), "pop rbx");
    assert_eq!(text(|a| a.push_m(Mem::gs(8))), "push qwordptrgs:[0x8]");
    assert_eq!(text(|a| a.pop_m(Mem::gs(8))), "pop qwordptrgs:[0x8]");
    assert_eq!(text(|a| a.push_i(0x1234)), "push 0x1234");
    assert_eq!(text(|a| a.rdfsbase(R::RAX)), "rdfsbase rax");
    assert_eq!(text(|a| a.rdgsbase(R::R9)), "rdgsbase r9");
    assert_eq!(text(|a| a.wrfsbase(R::RCX)), "wrfsbase rcx");
    assert_eq!(text(|a| a.wrgsbase(R::R11)), "wrgsbase r11");
    assert_eq!(text(|a| a.jmp_r(R::R10)), "jmp r10");
    assert_eq!(text(|a| a.jmp_m(Mem::at(R::R10, 8))), "jmp qwordptr[r10+0x8]");
    assert_eq!(text(|a| a.call_r(R::RAX)), "call rax");
    assert_eq!(text(|a| a.call_m(Mem::gs(8))), "call qwordptrgs:[0x8]");
    assert_eq!(text(|a| a.ldmxcsr(Mem::gs(8))), "ldmxcsr gs:[0x8]");
    assert_eq!(text(|a| a.stmxcsr(Mem::gs(8))), "stmxcsr gs:[0x8]");
    assert_eq!(text(|a| a.movaps_load(9, Mem::gs(16))), "movaps xmm9,gs:[0x10]");
    assert_eq!(text(|a| a.movaps_store(Mem::gs(16), 1)), "movaps gs:[0x10],xmm1");
    assert_eq!(text(|a| a.movups_load(9, Mem::gs(16))), "movups xmm9,gs:[0x10]");
    assert_eq!(text(|a| a.movups_store(Mem::gs(16), 1)), "movups gs:[0x10],xmm1");
    assert_eq!(text(|a| a.vmovups_load(9, Mem::gs(16))), "vmovups ymm9,gs:[0x10]");
    assert_eq!(text(|a| a.vmovups_store(Mem::gs(16), 1)), "vmovups gs:[0x10],ymm1");
    assert_eq!(text(Assembler::rdtsc), "rdtsc");
    assert_eq!(text(Assembler::ret), "ret");
    assert_eq!(text(Assembler::int3), "int3");
    assert_eq!(text(Assembler::ud2), "ud2");
}

#[test]
fn jumps_reach_labels_before_and_behind() {
    let mut out = Assembler::new();
    let back = out.label_here();
    let forward = out.label();
    out.jcc(Cond::E, forward);
    out.jrcxz(forward);
    out.jmp(back);
    out.bind(forward);
    assert_eq!(out.finish(), Ok(()));
    assert_eq!(out.code(), [0x0f, 0x84, 4, 0, 0, 0, 0xe3, 2, 0xeb, 0xf6]);
    out.nops(200);
    out.jmp(back);
    out.call(forward);
    let at = out.here();
    let distance = |end: usize| i32::from_le_bytes(out.code()[end - 4..end].try_into().unwrap());
    assert_eq!(distance(at), 10 - at as i32);
    assert_eq!(distance(at - 5), 5 - at as i32);
}

#[test]
fn a_short_jump_that_does_not_reach_is_told() {
    let mut out = Assembler::new();
    let label = out.label();
    out.jrcxz(label);
    assert_eq!(out.finish(), Err(OutOfRange));
    out.nops(127);
    out.bind(label);
    assert_eq!((out.finish(), out.code()[1]), (Ok(()), 127));
    out.clear();
    let label = out.label();
    out.jmp_short(label);
    out.nops(128);
    out.bind(label);
    assert_eq!(out.finish(), Err(OutOfRange));
}

#[test]
fn distances_to_be_patched_are_aligned() {
    for before in 0..8 {
        let mut out = Assembler::new();
        out.nops(before);
        out.align_for_rel32(2);
        assert!(out.jcc_rel32(Cond::E, 0) % 8 <= 4);
        out.align_for_rel32(1);
        assert!(out.jmp_rel32(0) % 8 <= 4);
    }
}
