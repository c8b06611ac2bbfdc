//! What a [`Code`] is for a translator.

use iced_x86::{Code, CpuidFeature, EncodingKind, FlowControl, Mnemonic, OpCodeOperandKind};

use super::super::{Class, Features};
use super::operand_kinds;
use crate::supported::has_feature;

/// What it needs beyond the portable profile.
pub(super) fn features(code: Code) -> Features {
    use CpuidFeature as F;
    code.cpuid_features().iter().fold(Features::empty(), |all, feature| {
        all | match feature {
            F::AVX => Features::AVX,
            F::AVX2 => Features::AVX2,
            F::FMA => Features::FMA,
            F::BMI1 => Features::BMI1,
            F::BMI2 => Features::BMI2,
            F::LZCNT => Features::LZCNT,
            F::AES => Features::AES,
            F::PCLMULQDQ => Features::PCLMULQDQ,
            F::SHA => Features::SHA,
            F::F16C => Features::F16C,
            F::ADX => Features::ADX,
            F::MOVBE => Features::MOVBE,
            _ if has_feature(*feature) => Features::empty(),
            _ => Features::OTHER,
        }
    })
}

/// What to do with it.
pub(super) fn class(code: Code, features: Features) -> Class {
    use Mnemonic as M;
    let mnemonic = code.mnemonic();
    match mnemonic {
        M::Nop | M::Reservednop | M::Pause => return Class::Nop,
        M::Push if !names_segment(code) => return Class::Push,
        M::Pop if !names_segment(code) => return Class::Pop,
        M::Ret => return Class::Ret,
        M::Leave => return Class::Leave,
        M::Pushf | M::Pushfd | M::Pushfq => return Class::PushFlags,
        M::Popf | M::Popfd | M::Popfq => return Class::PopFlags,
        M::Loop | M::Loope | M::Loopne | M::Jcxz | M::Jecxz | M::Jrcxz => return Class::Loop,
        _ if code.is_call_near() => return Class::Call,
        _ if code.is_call_near_indirect() => return Class::CallIndirect,
        _ if code.is_jmp_short_or_near() => return Class::Jump,
        _ if code.is_jmp_near_indirect() => return Class::JumpIndirect,
        _ if code.is_jcc_short_or_near() => return Class::JumpIf,
        _ if code.is_string_instruction() => {
            let io = matches!(mnemonic, M::Insb | M::Insw | M::Insd)
                || matches!(mnemonic, M::Outsb | M::Outsw | M::Outsd);
            return if io { Class::System } else { Class::String };
        }
        _ => {}
    }
    if is_copy(code, features) { Class::Copy } else { Class::System }
}

fn names_segment(code: Code) -> bool {
    use OpCodeOperandKind as K;
    operand_kinds(code)
        .any(|kind| matches!(kind, K::seg_reg | K::es | K::cs | K::ss | K::ds | K::fs | K::gs))
}

fn is_copy(code: Code, features: Features) -> bool {
    let info = code.op_code();
    let computes = code.cpuid_features().iter().all(|feature| only_computes(*feature));
    let only_32 = !info.mode64() && !is_renewed(code);
    // Far jumps and calls among them: the near ones have classes of their own.
    let goes_elsewhere = code.flow_control() != FlowControl::Next;
    computes
        && !goes_elsewhere
        && !features.contains(Features::OTHER)
        && info.cpl3()
        && !only_32
        && !info.is_privileged()
        && !info.is_stack_instruction()
        && !code.is_stack_instruction()
        && !names_segment(code)
        && !operand_kinds(code).any(is_foreign)
        && !is_special(code.mnemonic())
}

/// Has another encoding in 64-bit code.
fn is_renewed(code: Code) -> bool {
    match code.mnemonic() {
        Mnemonic::Inc | Mnemonic::Dec => true,
        // 82 is 80 again.
        _ => code.op_code().op_code() == 0x82 && code.op_code().op_code_len() == 1,
    }
}

fn is_foreign(kind: OpCodeOperandKind) -> bool {
    use OpCodeOperandKind as K;
    matches!(
        kind,
        K::farbr2_2
            | K::farbr4_2
            | K::mem_mpx
            | K::mem_mib
            | K::mem_vsib32x
            | K::mem_vsib64x
            | K::mem_vsib32y
            | K::mem_vsib64y
            | K::bnd_or_mem_mpx
            | K::bnd_reg
            | K::k_or_mem
            | K::k_reg
            | K::k_rm
            | K::k_vvvv
            | K::cr_reg
            | K::dr_reg
            | K::tr_reg
            | K::seg_rSI
            | K::es_rDI
            | K::seg_rDI
            | K::seg_rBX_al
            | K::sibmem
            | K::tmm_reg
    )
}

/// Features of which most instructions only compute.
fn only_computes(feature: CpuidFeature) -> bool {
    use CpuidFeature as F;
    let integer = matches!(
        feature,
        F::INTEL8086
            | F::INTEL186
            | F::INTEL286
            | F::INTEL386
            | F::INTEL486
            | F::X64
            | F::CX8
            | F::CMOV
            | F::CMPXCHG16B
            | F::POPCNT
            | F::BMI1
            | F::BMI2
            | F::LZCNT
            | F::ADX
            | F::MOVBE
    );
    integer || is_vector_feature(feature)
}

fn is_vector_feature(feature: CpuidFeature) -> bool {
    use CpuidFeature as F;
    matches!(
        feature,
        F::FPU
            | F::FPU287
            | F::FPU387
            | F::MMX
            | F::SSE
            | F::SSE2
            | F::SSE3
            | F::SSSE3
            | F::SSE4_1
            | F::SSE4_2
            | F::AVX
            | F::AVX2
            | F::FMA
            | F::F16C
            | F::AES
            | F::PCLMULQDQ
            | F::SHA
    )
}

/// Uses x87, MMX, SSE or AVX state.
pub(super) fn is_vector(code: Code) -> bool {
    use Mnemonic as M;
    let integer = matches!(
        code.mnemonic(),
        M::Sfence | M::Lfence | M::Mfence | M::Movnti | M::Clflush | M::Pause | M::Crc32
    );
    let hint = matches!(code.mnemonic(), M::Nop | M::Reservednop);
    !integer && !hint && code.cpuid_features().iter().any(|feature| is_vector_feature(*feature))
}

/// Neither computes nor moves only, though its feature's other instructions do.
fn is_special(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    let environment = matches!(
        mnemonic,
        M::Fnstenv | M::Fstenv | M::Fldenv | M::Fnsave | M::Fsave | M::Frstor | M::Fnsetpm
    ) || matches!(mnemonic, M::Fsetpm | M::Fstdw | M::Fstsg | M::Frstpm);
    let store = matches!(mnemonic, M::Maskmovq | M::Maskmovdqu | M::Vmaskmovdqu)
        || matches!(mnemonic, M::Vmaskmovps | M::Vmaskmovpd | M::Vpmaskmovd | M::Vpmaskmovq);
    let system = matches!(
        mnemonic,
        M::Arpl
            | M::Bound
            | M::Clflush
            | M::Cli
            | M::Enter
            | M::Hlt
            | M::In
            | M::Int
            | M::Int1
            | M::Int3
            | M::Into
            | M::Iret
            | M::Iretd
            | M::Iretq
            | M::Lar
            | M::Lsl
            | M::Out
            | M::Cld
            | M::Std
            | M::Sgdt
            | M::Sidt
            | M::Sldt
            | M::Smsw
            | M::Sti
            | M::Str
            | M::Ud0
            | M::Ud1
            | M::Ud2
            | M::Verr
            | M::Verw
            | M::Xlatb
    );
    environment || store || system
}

/// Has a condition code in the low four bits of its opcode.
pub(super) fn has_condition(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    let set = matches!(mnemonic, M::Seta | M::Setae | M::Setb | M::Setbe | M::Sete | M::Setg)
        || matches!(mnemonic, M::Setge | M::Setl | M::Setle | M::Setne | M::Setno | M::Setnp)
        || matches!(mnemonic, M::Setns | M::Seto | M::Setp | M::Sets);
    let mov = matches!(mnemonic, M::Cmova | M::Cmovae | M::Cmovb | M::Cmovbe | M::Cmove)
        || matches!(mnemonic, M::Cmovg | M::Cmovge | M::Cmovl | M::Cmovle | M::Cmovne)
        || matches!(mnemonic, M::Cmovno | M::Cmovnp | M::Cmovns | M::Cmovo | M::Cmovp)
        || mnemonic == M::Cmovs;
    set || mov
}

/// Shifts and rotates, whose count of zero leaves the flags alone.
pub(super) fn counts(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    let rotate = matches!(mnemonic, M::Rol | M::Ror | M::Rcl | M::Rcr);
    rotate || matches!(mnemonic, M::Shl | M::Sal | M::Shr | M::Sar | M::Shld | M::Shrd)
}

/// General registers a string instruction reads and writes, RCX apart.
pub(super) fn string_registers(mnemonic: Mnemonic) -> (u16, u16) {
    use Mnemonic as M;
    const RAX: u16 = 1;
    const RSI: u16 = 1 << 6;
    const RDI: u16 = 1 << 7;
    match mnemonic {
        M::Stosb | M::Stosw | M::Stosd | M::Stosq => (RAX | RDI, RDI),
        M::Scasb | M::Scasw | M::Scasd | M::Scasq => (RAX | RDI, RDI),
        M::Lodsb | M::Lodsw | M::Lodsd | M::Lodsq => (RAX | RSI, RAX | RSI),
        _ => (RSI | RDI, RSI | RDI),
    }
}

/// What the memory operand must be aligned to.
pub(super) fn alignment(code: Code, size_bytes: u16) -> u8 {
    use Mnemonic as M;
    let mnemonic = code.mnemonic();
    if code.encoding() == EncodingKind::VEX {
        let demands = matches!(mnemonic, M::Vmovaps | M::Vmovapd | M::Vmovdqa | M::Vmovntps)
            || matches!(mnemonic, M::Vmovntpd | M::Vmovntdq | M::Vmovntdqa);
        return if demands { size_bytes as u8 } else { 1 };
    }
    let lenient = matches!(mnemonic, M::Movups | M::Movupd | M::Movdqu | M::Lddqu)
        || matches!(mnemonic, M::Pcmpestri | M::Pcmpestrm | M::Pcmpistri | M::Pcmpistrm);
    let vector = is_vector(code) || mnemonic == M::Cmpxchg16b;
    if size_bytes == 16 && vector && !lenient { 16 } else { 1 }
}
