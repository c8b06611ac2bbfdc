//! SYSCALL, SYSRET, SYSENTER, SYSEXIT, SWAPGS and the FS and GS bases, as Intel's CPUs do them
//! (SDM vol. 2B).

use x86_decode::{Code, Insn};
use x86_state::bits::{Cr4, Efer, Rflags};
use x86_state::{SegReg, Segment};

use crate::memory::is_canonical;
use crate::{Cpu, Env, Fault, Mode};

/// Attributes of the flat segments these instructions load.
const CODE64: u16 = 0xa09b;
const CODE32: u16 = 0xc09b;
const DATA: u16 = 0xc093;
const USER: u16 = 3 << Segment::DPL_SHIFT;
/// What SYSRET takes from R11.
const SYSRET_FLAGS: u64 = 0x3c_7fd7;

const RCX: usize = 1;
const RDX: usize = 2;
const RSP: usize = 4;
const R11: usize = 11;

const fn flat(selector: u16, attr: u16) -> Segment {
    Segment { base: 0, limit: u32::MAX, selector, attr }
}

impl<E: Env> Cpu<E> {
    fn enter_flat(&mut self, cs: Segment, ss: Segment, rip: u64) {
        self.segments[SegReg::Cs as usize] = cs;
        self.segments[SegReg::Ss as usize] = ss;
        self.rip = rip;
        self.update_mode();
        self.check_events = true;
    }

    fn require_syscall(&mut self) -> Result<(), Fault> {
        let enabled = self.efer & Efer::SCE.bits() != 0;
        if enabled && self.mode.is_64() { Ok(()) } else { Err(self.ud()) }
    }
}

/// SYSCALL.
pub(super) fn syscall<E: Env>(cpu: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    cpu.require_syscall()?;
    cpu.gpr[RCX] = cpu.rip;
    cpu.gpr[R11] = cpu.rflags() & !Rflags::RF.bits();
    cpu.set_rflags(cpu.gpr[R11] & !cpu.msrs.fmask);
    let selector = (cpu.msrs.star >> 32) as u16 & 0xfffc;
    let (cs, ss) = (flat(selector, CODE64), flat(selector.wrapping_add(8), DATA));
    cpu.enter_flat(cs, ss, cpu.msrs.lstar);
    Ok(())
}

/// SYSRET.
pub(super) fn sysret<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    cpu.require_syscall()?;
    cpu.require_ring0()?;
    let selector = (cpu.msrs.star >> 48) as u16;
    let to_64 = insn.code == Code::Sysretq;
    if to_64 && !is_canonical(cpu.gpr[RCX]) {
        return Err(cpu.gp0());
    }
    let (cs, rip) = if to_64 {
        (flat(selector.wrapping_add(16) | 3, CODE64 | USER), cpu.gpr[RCX])
    } else {
        (flat(selector | 3, CODE32 | USER), cpu.gpr[RCX] & 0xffff_ffff)
    };
    cpu.set_rflags(cpu.gpr[R11] & SYSRET_FLAGS);
    let ss = flat(selector.wrapping_add(8) | 3, DATA | USER);
    cpu.enter_flat(cs, ss, rip);
    Ok(())
}

/// SYSENTER.
pub(super) fn sysenter<E: Env>(cpu: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    let selector = cpu.msrs.sysenter_cs as u16 & 0xfffc;
    if cpu.mode == Mode::Real || selector == 0 {
        return Err(cpu.gp0());
    }
    cpu.system_flags &= !(Rflags::VM | Rflags::IF | Rflags::RF).bits();
    let long = cpu.efer & Efer::LMA.bits() != 0;
    let mask = if long { u64::MAX } else { 0xffff_ffff };
    cpu.gpr[RSP] = cpu.msrs.sysenter_esp & mask;
    let cs = flat(selector, if long { CODE64 } else { CODE32 });
    let rip = cpu.msrs.sysenter_eip & mask;
    cpu.enter_flat(cs, flat(selector.wrapping_add(8), DATA), rip);
    Ok(())
}

/// SYSEXIT.
pub(super) fn sysexit<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    let selector = cpu.msrs.sysenter_cs as u16 & 0xfffc;
    if cpu.mode == Mode::Real || selector == 0 || cpu.cpl != 0 {
        return Err(cpu.gp0());
    }
    let to_64 = insn.code == Code::Sysexitq;
    let (sp, rip) = (cpu.gpr[RCX], cpu.gpr[RDX]);
    if to_64 && !(is_canonical(sp) && is_canonical(rip)) {
        return Err(cpu.gp0());
    }
    let (offset, attr, mask) =
        if to_64 { (32, CODE64, u64::MAX) } else { (16, CODE32, 0xffff_ffff) };
    let cs = flat(selector.wrapping_add(offset) | 3, attr | USER);
    let ss = flat(selector.wrapping_add(offset + 8) | 3, DATA | USER);
    cpu.gpr[RSP] = sp & mask;
    cpu.enter_flat(cs, ss, rip & mask);
    Ok(())
}

/// SWAPGS.
pub(super) fn swapgs<E: Env>(cpu: &mut Cpu<E>, _: &Insn) -> Result<(), Fault> {
    if !cpu.mode.is_64() {
        return Err(cpu.ud());
    }
    cpu.require_ring0()?;
    let base = cpu.segment(SegReg::Gs).base;
    let other = std::mem::replace(&mut cpu.msrs.kernel_gs_base, base);
    cpu.set_segment_base(SegReg::Gs, other);
    Ok(())
}

fn require_fsgsbase<E: Env>(cpu: &mut Cpu<E>) -> Result<(), Fault> {
    let enabled = cpu.cr4 & Cr4::FSGSBASE.bits() != 0;
    if enabled && cpu.mode.is_64() { Ok(()) } else { Err(cpu.ud()) }
}

/// RDFSBASE and RDGSBASE.
pub(super) fn read_base<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    require_fsgsbase(cpu)?;
    let seg = match insn.code {
        Code::Rdfsbase_r32 | Code::Rdfsbase_r64 => SegReg::Fs,
        _ => SegReg::Gs,
    };
    let base = cpu.segment(seg).base;
    match insn.op_size {
        4 => cpu.set_reg(insn.reg0(), base as u32),
        _ => cpu.set_reg(insn.reg0(), base),
    }
    Ok(())
}

/// WRFSBASE and WRGSBASE.
pub(super) fn write_base<E: Env>(cpu: &mut Cpu<E>, insn: &Insn) -> Result<(), Fault> {
    require_fsgsbase(cpu)?;
    let seg = match insn.code {
        Code::Wrfsbase_r32 | Code::Wrfsbase_r64 => SegReg::Fs,
        _ => SegReg::Gs,
    };
    let base = match insn.op_size {
        4 => cpu.reg::<u32>(insn.reg0()).into(),
        _ => cpu.reg::<u64>(insn.reg0()),
    };
    if !is_canonical(base) {
        return Err(cpu.gp0());
    }
    cpu.set_segment_base(seg, base);
    Ok(())
}
