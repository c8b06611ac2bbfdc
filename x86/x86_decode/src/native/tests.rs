//! The native form against the decoder's own account of the same bytes.

use iced_x86::{
    Decoder, DecoderOptions, Instruction, InstructionInfoFactory, OpAccess, Register, RflagsBits,
};

use super::{Access, Class, Encoding, Features, File, Native, NativeDecoder, flag};
use crate::Code;
use x86_state::SegReg;

fn native(bits: u32, bytes: &[u8]) -> Native {
    NativeDecoder::new(bits, bytes).next_insn().unwrap()
}

/// Random instructions, each with what the decoder itself says.
fn each(bits: u32, mut check: impl FnMut(&Native, &Instruction, &Decoder<'_>)) {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for _ in 0..400_000 {
        let mut bytes = [random().to_le_bytes(), random().to_le_bytes()].concat();
        let lead = [0x0f, 0x66, 0xf3, 0xc4, 0xc5, 0x48, 0x41, 0x67];
        if random() >> 40 & 1 != 0 {
            bytes[0] = lead[(random() >> 32) as usize & 7];
        }
        if random() >> 40 & 3 == 0 {
            bytes[1] = 0x0f;
        }
        let Ok(native) = NativeDecoder::new(bits, &bytes).next_insn() else { continue };
        let options = DecoderOptions::FORCE_RESERVED_NOP | DecoderOptions::NO_WBNOINVD;
        let mut decoder = Decoder::with_ip(bits, &bytes, 0, options);
        let insn = decoder.decode();
        check(&native, &insn, &decoder);
    }
}

#[test]
fn fields_are_where_the_decoder_finds_them() {
    for bits in [32, 64] {
        let mut found = 0;
        each(bits, |native, insn, decoder| {
            assert_eq!((native.code, usize::from(native.len)), (insn.code(), insn.len()));
            if native.encoding == Encoding::Other || native.class == Class::System {
                return;
            }
            found += 1;
            let offsets = decoder.get_constant_offsets(insn);
            if offsets.has_immediate() {
                assert_eq!(usize::from(native.imm_at), offsets.immediate_offset(), "{native:x?}");
                let size = offsets.immediate_size() + offsets.immediate_size2();
                assert_eq!(usize::from(native.imm_len), size, "{native:x?}");
            } else {
                // A fourth register is in a byte of its own.
                let register = u8::from(insn.op_count() >= 4);
                assert_eq!(native.imm_len, register, "{native:x?}");
            }
            assert_eq!(native.lock, insn.has_lock_prefix(), "{native:x?}");
            let Some(mem) = native.mem else { return };
            let number = |reg: Register| match reg {
                Register::None | Register::RIP | Register::EIP => None,
                reg => Some(reg.number() as u8),
            };
            assert_eq!(mem.base, number(insn.memory_base()), "{native:x?}");
            assert_eq!(mem.index, number(insn.memory_index()), "{native:x?}");
            assert_eq!(mem.rip_relative, insn.is_ip_rel_memory_operand(), "{native:x?}");
            assert_eq!(usize::from(mem.size_bytes), insn.memory_size().size(), "{native:x?}");
            let seg = crate::decoder::segment(insn.memory_segment());
            // 64-bit code ignores other prefixes; the decoder's account does not.
            if bits == 32 || seg as u8 >= SegReg::Fs as u8 {
                assert_eq!(mem.seg, seg, "{native:x?}");
            }
        });
        assert!(found > 100_000, "{found}");
    }
}

#[test]
fn effects_are_never_understated() {
    let mut factory = InstructionInfoFactory::new();
    each(64, |native, insn, _| {
        if native.class == Class::System {
            return;
        }
        let (mut read, mut written) = (0, 0);
        for used in factory.info(insn).used_registers() {
            let reg = used.register();
            if !reg.is_gpr() {
                continue;
            }
            let bit = 1_u16 << reg.full_register().number();
            let access = used.access();
            if !matches!(access, OpAccess::Write | OpAccess::CondWrite) || reg.size() <= 2 {
                read |= bit;
            }
            if !matches!(access, OpAccess::Read | OpAccess::CondRead) {
                written |= bit;
            }
        }
        assert_eq!(read & !native.gpr_read, 0, "{native:x?}");
        assert_eq!(written, native.gpr_written, "{native:x?}");
        let all = [
            (RflagsBits::CF, flag::CF),
            (RflagsBits::PF, flag::PF),
            (RflagsBits::AF, flag::AF),
            (RflagsBits::ZF, flag::ZF),
            (RflagsBits::SF, flag::SF),
            (RflagsBits::OF, flag::OF),
        ];
        for (bit, flag) in all {
            if insn.rflags_read() & bit != 0 {
                assert_ne!(native.flags_read & flag, 0, "{native:x?}");
            }
            if insn.rflags_modified() & bit == 0 {
                assert_eq!(native.flags_written & flag, 0, "{native:x?}");
            }
        }
    });
}

#[test]
fn classes_are_as_a_translator_needs_them() {
    for (bytes, class) in [
        (&[0x48, 0x01, 0xc8][..], Class::Copy),      // add rax, rcx
        (&[0x0f, 0x10, 0x00], Class::Copy),          // movups xmm0, [rax]
        (&[0xd9, 0x00], Class::Copy),                // fld dword [rax]
        (&[0xc4, 0xe2, 0xf5, 0xb8, 0], Class::Copy), // vfmadd231pd
        (&[0x0f, 0xa3, 0xc8], Class::Copy),          // bt eax, ecx
        (&[0x0f, 0xa3, 0x08], Class::System),        // bt [rax], ecx
        (&[0x0f, 0xba, 0x20, 5], Class::Copy),       // bt [rax], 5
        (&[0xd9, 0x30], Class::System),              // fnstenv [rax]
        (&[0x8e, 0xd8], Class::System),              // mov ds, eax
        (&[0x0f, 0xa0], Class::System),              // push fs
        (&[0x0f, 0xa2], Class::System),              // cpuid
        (&[0x0f, 0x05], Class::System),              // syscall
        (&[0x0f, 0x01, 0xd0], Class::System),        // xgetbv
        (&[0x0f, 0xae, 0x00], Class::System),        // fxsave
        (&[0xf3, 0x0f, 0xae, 0xc0], Class::System),  // rdfsbase
        (&[0x0f, 0x0b], Class::System),              // ud2
        (&[0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc1], Class::System),
        (&[0xf3, 0x0f, 0x1e, 0xfa], Class::Nop), // endbr64
        (&[0x0f, 0x18, 0x08], Class::Nop),       // prefetcht0
        (&[0x41, 0x50], Class::Push),
        (&[0x8f, 0x00], Class::Pop),
        (&[0xe8, 0, 0, 0, 0], Class::Call),
        (&[0xff, 0x10], Class::CallIndirect),
        (&[0xff, 0x18], Class::System), // call far
        (&[0xff, 0x28], Class::System), // jmp far
        (&[0xc2, 8, 0], Class::Ret),
        (&[0xeb, 0], Class::Jump),
        (&[0xff, 0xe0], Class::JumpIndirect),
        (&[0x0f, 0x84, 0, 0, 0, 0], Class::JumpIf),
        (&[0xe3, 0], Class::Loop),
        (&[0xc9], Class::Leave),
        (&[0x9c], Class::PushFlags),
        (&[0x9d], Class::PopFlags),
        (&[0xf3, 0xa4], Class::String),
        (&[0x6c], Class::System), // insb
    ] {
        assert_eq!(native(64, bytes).class, class, "{bytes:x?}");
    }
}

#[test]
fn flags_that_may_be_left_alone_are_not_written() {
    assert_eq!(native(64, &[0xd3, 0xe0]).flags_written, 0); // shl eax, cl
    assert_eq!(native(64, &[0xc1, 0xe0, 0x20]).flags_written, 0); // shl eax, 32
    assert_eq!(native(64, &[0x48, 0xc1, 0xe0, 0x20]).flags_written, flag::ALL);
    assert_eq!(native(64, &[0xf3, 0xa6]).flags_written, 0); // repe cmpsb
    assert_eq!(native(64, &[0xa6]).flags_written, flag::ALL);
    let inc = native(64, &[0xff, 0xc0]);
    assert_eq!((inc.flags_read, inc.flags_written), (0, flag::ALL & !flag::CF));
    assert_eq!(native(64, &[0x0f, 0x92, 0xc0]).flags_read, flag::CF); // setb al
}

#[test]
fn registers_merged_into_are_read() {
    let byte = native(64, &[0x88, 0xe1]); // mov cl, ah
    assert_eq!((byte.gpr_read, byte.gpr_written, byte.high_byte), (3, 2, 1));
    let low = native(64, &[0x40, 0x88, 0xe1]); // mov cl, spl
    assert_eq!((low.gpr_read, low.high_byte, low.reg()), (0x12, 0, 4));
    let cmov = native(64, &[0x0f, 0x44, 0xc1]);
    assert_eq!((cmov.gpr_read, cmov.gpr_written, cmov.condition), (3, 1, 4));
    let mul = native(64, &[0xf7, 0xe3]); // mul ebx
    assert_eq!((mul.gpr_read, mul.gpr_written, mul.gpr_implicit), (9, 5, 5));
}

#[test]
fn memory_operands_say_what_they_are_for() {
    let lea = native(64, &[0x48, 0x8d, 0x05, 0, 1, 0, 0]).mem.unwrap();
    assert_eq!((lea.access, lea.rip_relative, lea.disp), (Access::None, true, 0x100));
    let add = native(64, &[0x65, 0x01, 0x44, 0x8d, 0xf0]).mem.unwrap();
    assert_eq!((add.access, add.size_bytes, add.disp), (Access::ReadWrite, 4, -16));
    assert_eq!((add.base, add.index, add.scale), (Some(5), Some(1), 2));
    for (bytes, aligned) in [
        (&[0x0f, 0x28, 0x00][..], 16),              // movaps
        (&[0x0f, 0x10, 0x00], 1),                   // movups
        (&[0x0f, 0x58, 0x00], 16),                  // addps
        (&[0xf3, 0x0f, 0x58, 0x00], 1),             // addss
        (&[0xc5, 0xf4, 0x58, 0x00], 1),             // vaddps
        (&[0xc5, 0xfc, 0x28, 0x00], 32),            // vmovaps ymm0
        (&[0x48, 0x0f, 0xc7, 0x08], 16),            // cmpxchg16b
        (&[0x66, 0x0f, 0x3a, 0x63, 0x00, 0x0c], 1), // pcmpistri
    ] {
        assert_eq!(native(64, bytes).mem.unwrap().aligned, aligned, "{bytes:x?}");
    }
}

#[test]
fn features_beyond_the_portable_profile_are_told() {
    assert!(native(64, &[0x0f, 0x58, 0x00]).is_portable());
    let tzcnt = native(64, &[0xf3, 0x0f, 0xbc, 0xc1]);
    assert_eq!((tzcnt.code, tzcnt.features), (Code::Tzcnt_r32_rm32, Features::BMI1));
    let fma = native(64, &[0xc4, 0xe2, 0xf5, 0xb8, 0]);
    assert_eq!((fma.features, fma.vvvv, fma.vvvv()), (Features::FMA, File::Vector, 1));
    let andn = native(64, &[0xc4, 0xe2, 0x60, 0xf2, 0xc1]);
    assert_eq!((andn.features, andn.vector, andn.gpr_read), (Features::BMI1, false, 10));
}
