//! System instructions, segment loads, far transfers, events, port I/O.

mod control;
mod debug;
mod delivery;
mod descriptor;
mod far;
mod flags;
mod fpu_image;
mod identify;
mod invalidate;
mod io;
mod iret;
mod msr;
mod segments;
mod stack;
mod syscall;
mod tables;
mod task;
mod xsave;

pub use delivery::TripleFault;

use x86_decode::{Code, Insn, Mnemonic};
use x86_state::SegReg;

use crate::{Env, Handler};

#[cfg(test)]
mod tests;

/// The function that does `insn`, when it is of this family.
pub(crate) fn select<E: Env>(insn: &Insn) -> Option<Handler<E>> {
    by_code(insn.code).or_else(|| by_mnemonic(insn.mnemonic()))
}

/// Where operands make the difference.
fn by_code<E: Env>(code: Code) -> Option<Handler<E>> {
    use Code as C;
    Some(match code {
        C::Mov_Sreg_rm16 | C::Mov_Sreg_r32m16 | C::Mov_Sreg_r64m16 => segments::mov_to,
        C::Mov_rm16_Sreg | C::Mov_r32m16_Sreg | C::Mov_r64m16_Sreg => segments::mov_from,
        C::Mov_cr_r32 | C::Mov_cr_r64 => control::mov_to,
        C::Mov_r32_cr | C::Mov_r64_cr => control::mov_from,
        C::Mov_dr_r32 | C::Mov_dr_r64 => debug::mov_to,
        C::Mov_r32_dr | C::Mov_r64_dr => debug::mov_from,
        C::Pushw_ES
        | C::Pushw_CS
        | C::Pushw_SS
        | C::Pushw_DS
        | C::Pushw_FS
        | C::Pushw_GS
        | C::Pushd_ES
        | C::Pushd_CS
        | C::Pushd_SS
        | C::Pushd_DS
        | C::Pushd_FS
        | C::Pushd_GS
        | C::Pushq_FS
        | C::Pushq_GS => segments::push,
        C::Popw_ES
        | C::Popw_SS
        | C::Popw_DS
        | C::Popw_FS
        | C::Popw_GS
        | C::Popd_ES
        | C::Popd_SS
        | C::Popd_DS
        | C::Popd_FS
        | C::Popd_GS
        | C::Popq_FS
        | C::Popq_GS => segments::pop,
        C::Jmp_ptr1616 | C::Jmp_ptr1632 | C::Jmp_m1616 | C::Jmp_m1632 | C::Jmp_m1664 => far::jump,
        C::Call_ptr1616 | C::Call_ptr1632 | C::Call_m1616 | C::Call_m1632 | C::Call_m1664 => {
            far::call
        }
        _ => return None,
    })
}

fn by_mnemonic<E: Env>(mnemonic: Mnemonic) -> Option<Handler<E>> {
    use Mnemonic as M;
    Some(match mnemonic {
        M::Lds => |cpu, insn| segments::load_far_pointer(cpu, insn, SegReg::Ds),
        M::Les => |cpu, insn| segments::load_far_pointer(cpu, insn, SegReg::Es),
        M::Lfs => |cpu, insn| segments::load_far_pointer(cpu, insn, SegReg::Fs),
        M::Lgs => |cpu, insn| segments::load_far_pointer(cpu, insn, SegReg::Gs),
        M::Lss => |cpu, insn| segments::load_far_pointer(cpu, insn, SegReg::Ss),
        M::Retf => far::ret,
        M::Iret | M::Iretd | M::Iretq => iret::iret,
        M::Int | M::Int3 | M::Int1 | M::Into => flags::int,
        M::Cli => flags::cli,
        M::Sti => flags::sti,
        M::Clac => flags::clac,
        M::Stac => flags::stac,
        M::Hlt => flags::hlt,
        M::Pause => flags::nothing,
        M::Wbinvd | M::Invd => flags::nothing_at_ring0,
        M::Rdpmc => flags::no_counter,
        M::In => io::input,
        M::Out => io::output,
        M::Lgdt | M::Lidt => tables::load_table,
        M::Sgdt | M::Sidt => tables::store_table,
        M::Lldt => tables::lldt,
        M::Ltr => tables::ltr,
        M::Sldt => tables::sldt,
        M::Str => tables::str_,
        M::Verr | M::Verw => tables::verify,
        M::Lar | M::Lsl => tables::load_attributes,
        M::Arpl => tables::arpl,
        M::Clts => control::clts,
        M::Lmsw => control::lmsw,
        M::Smsw => control::smsw,
        M::Xsetbv => control::xsetbv,
        M::Xgetbv => control::xgetbv,
        M::Rdmsr => msr::rdmsr,
        M::Wrmsr => msr::wrmsr,
        M::Cpuid => identify::cpuid,
        M::Rdtsc => identify::rdtsc,
        M::Rdtscp => identify::rdtscp,
        M::Syscall => syscall::syscall,
        M::Sysret | M::Sysretq => syscall::sysret,
        M::Sysenter => syscall::sysenter,
        M::Sysexit | M::Sysexitq => syscall::sysexit,
        M::Swapgs => syscall::swapgs,
        M::Rdfsbase | M::Rdgsbase => syscall::read_base,
        M::Wrfsbase | M::Wrgsbase => syscall::write_base,
        M::Invlpg => invalidate::invlpg,
        M::Invpcid => invalidate::invpcid,
        M::Fxsave | M::Fxsave64 => xsave::fxsave,
        M::Fxrstor | M::Fxrstor64 => xsave::fxrstor,
        M::Xsave | M::Xsave64 => xsave::xsave,
        M::Xrstor | M::Xrstor64 => xsave::xrstor,
        _ => return None,
    })
}
