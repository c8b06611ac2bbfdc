//! Bytes against their decoded form.

use super::*;
use x86_state::SegReg;

fn decode(code_bits: u32, bytes: &[u8]) -> Result<Insn, DecodeError> {
    Decoder::new(code_bits, bytes).next_insn()
}

#[test]
fn registers_have_their_encoding_numbers() {
    let insn = decode(64, &[0x44, 0x01, 0xc8]).unwrap(); // add eax, r9d
    assert_eq!((insn.code, insn.reg0(), insn.reg1()), (Code::Add_rm32_r32, 0, 9));
    assert_eq!((insn.op_size, insn.len), (4, 3));
    let insn = decode(64, &[0x00, 0xfc]).unwrap(); // add ah, bh
    assert_eq!((insn.reg0(), insn.reg1(), insn.op_size), (16, 19, 1));
    let insn = decode(64, &[0x40, 0x00, 0xfc]).unwrap(); // add spl, dil
    assert_eq!((insn.reg0(), insn.reg1()), (4, 7));
}

#[test]
fn memory_forms_keep_base_index_scale_and_segment() {
    let insn = decode(64, &[0x65, 0x8b, 0x44, 0xcd, 0xf8]).unwrap(); // mov eax, gs:[rbp+rcx*8-8]
    assert_eq!((insn.base, insn.index, insn.scale), (5, 1, 3));
    assert_eq!((insn.disp as i64, insn.seg), (-8, SegReg::Gs));
    assert_eq!(insn.kind(1), OperandKind::Mem);
    let insn = decode(16, &[0x8b, 0x02]).unwrap(); // mov ax, [bp+si]
    assert_eq!((insn.base, insn.index, insn.seg, insn.addr_size), (5, 6, SegReg::Ss, 2));
    let insn = decode(16, &[0x67, 0x66, 0x8b, 0x04, 0x24]).unwrap(); // mov eax, [esp]
    assert_eq!((insn.base, insn.seg, insn.addr_size, insn.op_size), (4, SegReg::Ss, 4, 4));
}

#[test]
fn rip_relative_is_counted_from_the_block() {
    let bytes = [0x90, 0x48, 0x8b, 0x05, 0xf0, 0xff, 0xff, 0xff]; // nop; mov rax, [rip-16]
    let mut decoder = Decoder::new(64, &bytes);
    decoder.next_insn().unwrap();
    let insn = decoder.next_insn().unwrap();
    assert_eq!((insn.base, insn.disp as i64, insn.offset), (GPR_RIP, -8, 1));
    let insn = decode(64, &[0x67, 0x8b, 0x05, 0xf0, 0xff, 0xff, 0xff]).unwrap();
    assert_eq!((insn.base, insn.disp as i64, insn.addr_size), (GPR_RIP, -9, 4));
}

#[test]
fn branches_are_distances() {
    for (bits, bytes, distance, size) in [
        (64, &[0xeb, 0xfe][..], -2, 8),
        (32, &[0x0f, 0x84, 0, 0, 0, 0x80], i64::from(i32::MIN), 4),
        (16, &[0xe8, 0x00, 0x80], -0x8000, 2),
        (64, &[0xe2, 0x10], 0x10, 8),
    ] {
        let insn = decode(bits, bytes).unwrap();
        assert_eq!((insn.imm as i64, insn.op_size), (distance, size), "{bytes:x?}");
        assert!(insn.ends_block());
    }
    let insn = decode(16, &[0xea, 0x34, 0x12, 0x00, 0xf0]).unwrap();
    assert_eq!(insn.imm, 0xf000_0000_1234);
}

#[test]
fn immediates_are_sign_extended() {
    assert_eq!(decode(64, &[0x83, 0xc0, 0xff]).unwrap().imm, u64::MAX);
    assert_eq!(decode(64, &[0x48, 0xc7, 0xc0, 0, 0, 0, 0x80]).unwrap().imm, 0xffff_ffff_8000_0000);
    assert_eq!(decode(32, &[0xc8, 0x10, 0x00, 0x03]).unwrap().imm, 0x3_0010);
    let insn = decode(32, &[0x6a, 0xff]).unwrap();
    assert_eq!((insn.imm, insn.op_size), (u64::MAX, 4));
}

#[test]
fn what_the_profiles_lack_is_invalid() {
    for bytes in [
        &[0xc5, 0xf8, 0x58, 0xc1][..],         // vaddps
        &[0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc1], // EVEX
        &[0x0f, 0x0f, 0xc1, 0x9e],             // 3DNow!
        &[0x0f, 0x38, 0xf0, 0x00],             // movbe
        &[0x66, 0x0f, 0x38, 0xdc, 0xc1],       // aesenc
        &[0x0f, 0xc7, 0xf8],                   // rdseed
        &[0xf0, 0x90],                         // lock nop
        &[0xf0, 0x01, 0xc0],                   // lock add eax, eax
        &[0x0f, 0x01, 0xc8],                   // monitor
        &[0x06, 0x90],                         // push es
        &[0x0f, 0xae, 0x30],                   // xsaveopt
    ] {
        assert!(matches!(decode(64, bytes), Err(DecodeError::Invalid(_))), "{bytes:x?}");
    }
}

#[test]
fn bmi_prefixes_are_ignored_and_hints_are_nops() {
    assert_eq!(decode(64, &[0xf3, 0x0f, 0xbc, 0xc1]).unwrap().code, Code::Bsf_r32_rm32);
    assert_eq!(decode(64, &[0xf3, 0x0f, 0xbd, 0xc1]).unwrap().code, Code::Bsr_r32_rm32);
    for bytes in [
        &[0xf3, 0x0f, 0x1e, 0xfa][..],   // endbr64
        &[0x0f, 0x0d, 0x08],             // prefetchw
        &[0x0f, 0x18, 0x08],             // prefetcht0
        &[0x66, 0x0f, 0x1f, 0x44, 0, 0], // nop
        &[0x0f, 0x1a, 0xc0],             // bndmov's place
    ] {
        let mnemonic = decode(64, bytes).unwrap().mnemonic();
        assert!(matches!(mnemonic, Mnemonic::Reservednop | Mnemonic::Nop), "{bytes:x?}");
    }
}

#[test]
fn long_and_cut_instructions_are_told_apart() {
    let mut bytes = [0x66; 20];
    bytes[19] = 0x90;
    assert!(matches!(decode(64, &bytes), Err(DecodeError::TooLong)));
    assert!(matches!(decode(64, &bytes[..14]), Err(DecodeError::Truncated)));
    assert!(matches!(decode(64, &[]), Err(DecodeError::Truncated)));
    bytes[14] = 0x90;
    assert_eq!(decode(64, &bytes).unwrap().len, 15);
}

#[test]
fn repeats_end_blocks() {
    let insn = decode(64, &[0xf3, 0x48, 0xa5]).unwrap();
    assert!(insn.flags.contains(InsnFlags::REP | InsnFlags::ENDS_BLOCK));
    assert!(!decode(64, &[0xa4]).unwrap().ends_block());
    assert!(decode(64, &[0x8e, 0xd0]).unwrap().ends_block());
    assert!(decode(64, &[0x0f, 0x22, 0xd8]).unwrap().ends_block());
    assert!(!decode(64, &[0x8e, 0xd8]).unwrap().ends_block());
}
