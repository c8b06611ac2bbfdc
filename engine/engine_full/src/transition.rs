//! Changes of privilege that translated code makes by itself: what it needs to know for them, and
//! what becomes of the CPU.
//!
//! Code segments it loads are flat 64-bit ones, stack segments flat ones, both of the level that is
//! entered: as SYSCALL and SYSRET make them up, or as IRET found them in the descriptor table.

use x86_exec::{Cpu, Env};
use x86_state::bits::{Cr4, Efer, Rflags};
use x86_state::{SegReg, Segment};

use crate::context::Context;

/// [`Context::transition`]: to level 0.
pub(crate) const TO_KERNEL: i32 = 1;
/// [`Context::transition`]: to level 3.
pub(crate) const TO_USER: i32 = 2;

/// Attributes of the segments.
const CODE: u16 = 0xa09b;
const DATA: u16 = 0xc093;
const USER: u16 = 3 << Segment::DPL_SHIFT;
/// Descriptors of the segments: present, accessed, flat.
const CODE_DESCRIPTOR: u64 = 0x00af_9b00_0000_ffff;
const DATA_DESCRIPTOR: u64 = 0x00cf_9300_0000_ffff;
const USER_DESCRIPTOR: u64 = 3 << 45;

/// What IA32_FMASK has to clear: CF, PF, AF, ZF, SF, OF, and what translated code would have to
/// look at.
const SYSCALL_CLEARS: u64 =
    0x8d5 | Rflags::IF.union(Rflags::DF).union(Rflags::AC).union(Rflags::TF).bits();

/// What does not change while a machine runs.
pub(crate) fn prepare(context: &mut Context) {
    context.kernel_flat = [CODE_DESCRIPTOR, DATA_DESCRIPTOR];
    context.user_flat = [DATA_DESCRIPTOR | USER_DESCRIPTOR, CODE_DESCRIPTOR | USER_DESCRIPTOR];
}

/// Tells translated code what it may do by itself.
pub(crate) fn give<E: Env>(cpu: &Cpu<E>, context: &mut Context) {
    for (own, segment) in context.selectors.iter_mut().zip(&cpu.segments) {
        *own = u64::from(segment.selector);
    }
    context.transition = 0;
    context.control = [cpu.cr0, 0, cpu.cr2, cpu.cr3, cpu.cr4];
    context.base_instructions = u64::from(cpu.cr4 & Cr4::FSGSBASE.bits() != 0);
    let star = cpu.msrs.star;
    let called = (star >> 32) as u16 & 0xfffc;
    let returned = (star >> 48) as u16;
    context.syscall_selectors = [called, called.wrapping_add(8)].map(u64::from);
    context.sysret_selectors =
        [returned.wrapping_add(16) | 3, returned.wrapping_add(8) | 3].map(u64::from);
    let enabled = cpu.efer & Efer::SCE.bits() != 0;
    let clears = cpu.msrs.fmask & SYSCALL_CLEARS == SYSCALL_CLEARS;
    let plain = called != 0 && called != 0xfff8;
    context.syscall_target = if enabled && clears && plain { cpu.msrs.lstar } else { 0 };
    context.syscall_mask = !cpu.msrs.fmask;
    // Before IA32_STAR is set, kernels return to themselves.
    let own = if cpu.cpl == 0 { cpu.segment(SegReg::Cs).selector } else { called };
    context.return_selectors = [own, own.wrapping_add(8)].map(u64::from);
    context.kernel_descriptors = descriptors(cpu, own);
    context.user_descriptors = descriptors(cpu, returned.wrapping_add(8));
    let nested = cpu.system_flag(Rflags::NT);
    context.may_return = u64::from(!cpu.nmi_masked && !nested);
    let stays = [SegReg::Es, SegReg::Ds, SegReg::Fs, SegReg::Gs].iter().all(|register| {
        let segment = &cpu.segments[*register as usize];
        segment.has(Segment::UNUSABLE) || segment.dpl() == 3
    });
    context.may_return_outward = u64::from(stays);
}

/// Linear address of this selector's descriptor and the next one's, when both are in one page of
/// the table; else zero.
fn descriptors<E: Env>(cpu: &Cpu<E>, selector: u16) -> u64 {
    let (offset, local) = (u64::from(selector & 0xfff8), selector & 4 != 0);
    let at = cpu.gdtr.base.wrapping_add(offset);
    let inside = offset + 15 <= u64::from(cpu.gdtr.limit) && at & 0xfff <= 0xff0;
    if inside && !local { at } else { 0 }
}

/// The CPU's privilege, once translated code has changed it.
pub(crate) fn take<E: Env>(cpu: &mut Cpu<E>, context: &mut Context) {
    let transition = std::mem::take(&mut context.transition);
    let ac = Rflags::AC.bits();
    if transition == 0 && cpu.system_flags & ac == context.access {
        return;
    }
    cpu.system_flags = cpu.system_flags & !ac | context.access;
    if transition != 0 {
        let level = if transition == TO_USER as u64 { USER } else { 0 };
        for (register, attr) in [(SegReg::Cs, CODE), (SegReg::Ss, DATA)] {
            let selector = context.selectors[register as usize] as u16;
            cpu.segments[register as usize] =
                Segment { base: 0, limit: u32::MAX, selector, attr: attr | level };
            if selector == 0 {
                // IRET has found it in its frame.
                cpu.segments[register as usize] = Segment::unusable(0, 0);
            }
        }
    }
    cpu.update_mode();
}

/// Bases of FS and GS, once translated code may have changed them.
pub(crate) fn take_bases<E: Env>(cpu: &mut Cpu<E>, context: &Context) {
    let registers = [SegReg::Fs, SegReg::Gs];
    let before = registers.map(|register| cpu.segments[register as usize].base);
    cpu.msrs.kernel_gs_base = context.kernel_gs_base;
    if before == context.segment_base {
        return;
    }
    for (register, base) in registers.into_iter().zip(context.segment_base) {
        cpu.segments[register as usize].base = base;
    }
    cpu.update_access();
}
