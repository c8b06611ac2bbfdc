//! What 64-bit code does most: accesses through a segment without a base.
//!
//! Only hits are here. A handler that has none ends in a call of the general handler, which does
//! the instruction from its start: so these need no stack frame of their own.

use x86_decode::Insn;
use x86_state::SegReg;

use crate::operands::FILE;
use crate::{Cpu, Env, Fault, HostAddr, Word};

/// How the address of a memory operand is formed, as far as handlers are made for it.
pub(crate) enum Address {
    /// 64 bits, no segment base, no index.
    Base,
    /// The same with an index.
    Indexed,
    /// All others.
    Other,
}

impl Address {
    pub(crate) fn of(insn: &Insn) -> Self {
        let flat = insn.is_64()
            && insn.addr_size == 8
            && !matches!(insn.seg, SegReg::Fs | SegReg::Gs)
            && !insn.locked();
        match (flat, insn.index == x86_decode::GPR_NONE) {
            (true, true) => Self::Base,
            (true, false) => Self::Indexed,
            (false, _) => Self::Other,
        }
    }
}

/// [`Address::Base`] or [`Address::Indexed`].
pub(crate) trait Form {
    /// There is an index.
    const INDEXED: bool;
}
pub(crate) struct Base;
impl Form for Base {
    const INDEXED: bool = false;
}
pub(crate) struct Indexed;
impl Form for Indexed {
    const INDEXED: bool = true;
}

/// The flat or the general handler for the address and the size of an operand.
macro_rules! by_address {
    ($insn:expr, $general:ident, $flat:ident $(, $more:ty)*) => {{
        use $crate::memory::{Address, Base, Indexed};
        match Address::of($insn) {
            Address::Base => $crate::integer::sized!($insn.op_size, $flat $(, $more)*, Base),
            Address::Indexed => $crate::integer::sized!($insn.op_size, $flat $(, $more)*, Indexed),
            Address::Other => $crate::integer::sized!($insn.op_size, $general $(, $more)*),
        }
    }};
}
pub(crate) use by_address;

/// Without a base, all segments of 64-bit code are alike: any one's window will do.
const SEGMENT: usize = SegReg::Ds as usize;

impl<E: Env> Cpu<E> {
    /// The linear address of a flat memory operand.
    #[inline(always)]
    pub(crate) fn flat_ea<A: Form>(&self, insn: &Insn) -> u64 {
        let address = self.gpr[usize::from(insn.base) & FILE].wrapping_add(insn.disp);
        if A::INDEXED {
            address.wrapping_add(self.gpr[usize::from(insn.index) & FILE] << (insn.scale & 3))
        } else {
            address
        }
    }

    /// Where a `T` at `linear` can be read without further look.
    #[inline(always)]
    pub(crate) fn flat_read<T: Word>(&self, linear: u64) -> Option<HostAddr> {
        let size = T::SIZE as u64;
        if linear.wrapping_add(size - 1) >= self.windows[SEGMENT].read_end {
            return None;
        }
        self.mmu.hit_read(linear, size).map(HostAddr)
    }

    /// Where a `T` at `linear` can be written without further look.
    #[inline(always)]
    pub(crate) fn flat_write<T: Word>(&self, linear: u64) -> Option<HostAddr> {
        let size = T::SIZE as u64;
        if linear.wrapping_add(size - 1) >= self.windows[SEGMENT].write_end {
            return None;
        }
        self.mmu.hit_write(linear, size).map(HostAddr)
    }

    /// A handler's last act: stores there.
    #[inline(always)]
    pub(crate) fn flat_store<T: Word>(&mut self, at: HostAddr, value: T) -> Result<(), Fault> {
        T::store(&self.env, at, value);
        if self.env.watched(at) { self.flat_stored_watched(at, T::SIZE) } else { Ok(()) }
    }

    #[cold]
    #[inline(never)]
    fn flat_stored_watched(&mut self, at: HostAddr, size: usize) -> Result<(), Fault> {
        self.code_written |= self.env.mark_written(at, size);
        Ok(())
    }
}
