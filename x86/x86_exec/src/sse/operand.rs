//! Operands of vector instructions, the checks before them, and #XM.

use x86_decode::{Insn, OperandKind};
use x86_fpu::sse::Outcome;
use x86_state::Exception;
use x86_state::bits::{Cr0, Cr4};

use crate::{Cpu, Env, Fault, Word};

/// Sign and exponent an MMX instruction leaves in the x87 register (SDM vol. 1, 9.2.1).
const MMX_EXPONENT: u128 = 0xffff << 64;

impl<E: Env> Cpu<E> {
    /// The XMM register.
    #[inline(always)]
    pub(super) fn xmm(&self, number: u8) -> u128 {
        self.fpu.xmm[usize::from(number & 15)]
    }

    /// Sets the XMM register.
    #[inline(always)]
    pub(super) fn set_xmm(&mut self, number: u8, value: u128) {
        self.fpu.xmm[usize::from(number & 15)] = value;
    }

    /// Operand `index`: a register, or 16 bytes of memory, aligned.
    #[inline(always)]
    pub(super) fn xmm128(&mut self, insn: &Insn, index: u32) -> Result<u128, Fault> {
        match insn.kind(index) {
            OperandKind::Mem => self.read_u128_aligned(insn.seg, self.ea(insn)),
            _ => Ok(self.xmm(insn.reg(index as usize))),
        }
    }

    /// The second operand: a register whole, or as much memory as `T` is, zero-extended.
    #[inline(always)]
    pub(super) fn xmm_or<T: Word>(&mut self, insn: &Insn) -> Result<u128, Fault> {
        match insn.kind(1) {
            OperandKind::Mem => {
                self.read::<T>(insn.seg, self.ea(insn)).map(|value| u128::from(value.to_u64()))
            }
            _ => Ok(self.xmm(insn.reg1())),
        }
    }

    /// The MMX register.
    #[inline(always)]
    pub(super) fn mm(&self, number: u8) -> u64 {
        self.fpu.st[usize::from(number & 7)] as u64
    }

    /// Sets the MMX register.
    #[inline(always)]
    pub(super) fn set_mm(&mut self, number: u8, value: u64) {
        self.fpu.st[usize::from(number & 7)] = MMX_EXPONENT | u128::from(value);
    }

    /// The second operand: an MMX register, or as much memory as `T` is, zero-extended.
    #[inline(always)]
    pub(super) fn mm_or<T: Word>(&mut self, insn: &Insn) -> Result<u64, Fault> {
        match insn.kind(1) {
            OperandKind::Mem => self.read::<T>(insn.seg, self.ea(insn)).map(Word::to_u64),
            _ => Ok(self.mm(insn.reg1())),
        }
    }

    /// What MMX instructions check first.
    #[inline(always)]
    pub(super) fn mmx_available(&mut self) -> Result<(), Fault> {
        if self.cr0 & Cr0::EM.bits() != 0 {
            return Err(self.ud());
        }
        if self.cr0 & Cr0::TS.bits() != 0 {
            return Err(self.raise(Exception::Nm));
        }
        self.x87_pending()
    }

    /// What instructions check first that use MMX and XMM registers.
    #[inline(always)]
    pub(super) fn mmx_and_sse_available(&mut self) -> Result<(), Fault> {
        self.check_sse()?;
        self.x87_pending()
    }

    /// What every MMX instruction does to the x87 (SDM vol. 1, 9.5.1), once it cannot fault.
    #[inline(always)]
    pub(super) fn mmx_entered(&mut self) {
        self.fpu.top = 0;
        self.fpu.in_use = 0xff;
    }

    /// Notes the exceptions of a float instruction: its value, or #XM (#UD without
    /// CR4.OSXMMEXCPT).
    #[inline(always)]
    pub(super) fn settle<T>(&mut self, outcome: Outcome<T>) -> Result<T, Fault> {
        self.fpu.mxcsr |= outcome.raised;
        if outcome.trap {
            return Err(self.simd_exception());
        }
        Ok(outcome.value)
    }

    #[cold]
    fn simd_exception(&mut self) -> Fault {
        if self.cr4 & Cr4::OSXMMEXCPT.bits() == 0 {
            return self.ud();
        }
        self.raise(Exception::Xm)
    }
}

/// `low` in the low `bits`, the rest of `old` above.
#[inline(always)]
pub(super) const fn merge(old: u128, low: u128, bits: u32) -> u128 {
    let mask = (1 << bits) - 1;
    old & !mask | low & mask
}
