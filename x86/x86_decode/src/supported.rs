//! Which instructions the profiles have, and which end a block.

use iced_x86::{Code, CpuidFeature, EncodingKind, FlowControl, Instruction, Mnemonic};
use x86_state::CpuFeatures;

/// A profile with these features has it.
pub(crate) fn is_supported(insn: &Instruction, features: CpuFeatures) -> bool {
    let code = insn.code();
    code.encoding() == EncodingKind::Legacy
        && code.cpuid_features().iter().all(|feature| has_feature(*feature))
        && features.contains(needs(code))
}

/// What it needs of the features that not every profile has.
pub(crate) fn needs(code: Code) -> CpuFeatures {
    use CpuidFeature as F;
    code.cpuid_features().iter().fold(CpuFeatures::empty(), |all, feature| {
        all | match feature {
            F::SEP => CpuFeatures::SEP,
            F::SSE3 => CpuFeatures::SSE3,
            F::SSSE3 => CpuFeatures::SSSE3,
            F::SSE4_1 => CpuFeatures::SSE4_1,
            F::SSE4_2 => CpuFeatures::SSE4_2,
            F::POPCNT => CpuFeatures::POPCNT,
            F::CMPXCHG16B => CpuFeatures::CX16,
            F::XSAVE => CpuFeatures::XSAVE,
            F::RDRAND => CpuFeatures::RDRAND,
            F::RDTSCP => CpuFeatures::RDTSCP,
            F::FSGSBASE => CpuFeatures::FSGSBASE,
            F::INVPCID => CpuFeatures::INVPCID,
            F::SMAP => CpuFeatures::SMAP,
            _ => CpuFeatures::empty(),
        }
    })
}

pub(crate) fn has_feature(feature: CpuidFeature) -> bool {
    use CpuidFeature as F;
    matches!(
        feature,
        F::INTEL8086
            | F::INTEL186
            | F::INTEL286
            | F::INTEL386
            | F::INTEL486
            | F::INTEL8086_ONLY
            | F::FPU
            | F::FPU287
            | F::FPU387
            | F::SMM
            | F::X64
            | F::CPUID
            | F::MSR
            | F::TSC
            | F::RDPMC
            | F::CX8
            | F::CMOV
            | F::MULTIBYTENOP
            | F::PAUSE
            | F::SYSCALL
            | F::SEP
            | F::MMX
            | F::SSE
            | F::SSE2
            | F::SSE3
            | F::SSSE3
            | F::SSE4_1
            | F::SSE4_2
            | F::POPCNT
            | F::CMPXCHG16B
            | F::FXSR
            | F::XSAVE
            | F::CLFSH
            | F::RDRAND
            | F::RDTSCP
            | F::FSGSBASE
            | F::INVPCID
            | F::SMAP
            | F::PREFETCHW
            | F::CET_IBT
            | F::CET_SS
    )
}

/// Nothing may follow it in a block.
pub(crate) fn ends_block(insn: &Instruction) -> bool {
    insn.flow_control() != FlowControl::Next
        || insn.has_rep_prefix()
        || insn.has_repne_prefix()
        || changes_context(insn.mnemonic())
        || writes_special_register(insn)
}

/// Changes modes, translation or interrupt state, or reads the time or the count of instructions.
fn changes_context(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(
        mnemonic,
        M::Cli
            | M::Sti
            | M::Clac
            | M::Stac
            | M::Clts
            | M::Lmsw
            | M::Hlt
            | M::Pause
            | M::Popf
            | M::Popfd
            | M::Popfq
            | M::In
            | M::Out
            | M::Insb
            | M::Insw
            | M::Insd
            | M::Outsb
            | M::Outsw
            | M::Outsd
            | M::Rdmsr
            | M::Wrmsr
            | M::Rdrand
            | M::Rdtsc
            | M::Rdtscp
            | M::Rdpmc
            | M::Cpuid
            | M::Invd
            | M::Wbinvd
            | M::Invlpg
            | M::Invpcid
            | M::Lgdt
            | M::Lidt
            | M::Lldt
            | M::Ltr
            | M::Lss
            | M::Xsetbv
            | M::Swapgs
            | M::Wrfsbase
            | M::Wrgsbase
    )
}

/// MOV to CRn, DRn and SS, POP SS.
fn writes_special_register(insn: &Instruction) -> bool {
    use iced_x86::Register;
    if !matches!(insn.mnemonic(), Mnemonic::Mov | Mnemonic::Pop) || insn.op_count() == 0 {
        return false;
    }
    let (to, from) = (insn.op0_register(), insn.op1_register());
    let special = |r: Register| r.is_cr() || r.is_dr();
    special(to) || special(from) || to == Register::SS
}
