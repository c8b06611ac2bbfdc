//! Instruction bytes.

use x86_mmu::{Access, Privilege};
use x86_state::SegReg;

use super::slow::{Target, is_canonical};
use crate::{Cpu, Env, Fault, HostAddr};

impl<E: Env> Cpu<E> {
    /// Where the byte at this linear address is, to be fetched as code.
    ///
    /// # Errors
    /// #PF; #GP when it is not canonical or not memory.
    #[inline(always)]
    pub fn fetch_address(&mut self, linear: u64) -> Result<HostAddr, Fault> {
        match self.mmu.hit_fetch(linear, 1) {
            Some(at) => Ok(HostAddr(at)),
            None => self.fetch_address_slow(linear),
        }
    }

    #[cold]
    #[inline(never)]
    fn fetch_address_slow(&mut self, linear: u64) -> Result<HostAddr, Fault> {
        if !is_canonical(linear) {
            return Err(self.gp0());
        }
        match self.translate(linear, Access::Execute, self.fetch_privilege())? {
            Target::Ram(at) | Target::Rom(at, _) => Ok(at),
            // Execution from a device's registers is the guest's mistake; hardware reads all ones
            // as a rule, and raises something soon.
            Target::Bus(_) => Err(self.gp0()),
        }
    }

    /// RFLAGS.AC has no part in fetches.
    fn fetch_privilege(&self) -> Privilege {
        if self.cpl == 3 { Privilege::User } else { Privilege::Supervisor }
    }

    /// The linear address of the code byte at this RIP.
    ///
    /// # Errors
    /// #GP(0) outside of the code segment, or when not canonical.
    pub fn code_linear(&mut self, rip: u64) -> Result<u64, Fault> {
        if self.mode.is_64() {
            return if is_canonical(rip) { Ok(rip) } else { Err(self.gp0()) };
        }
        let cs = self.segment(SegReg::Cs);
        if rip > u64::from(cs.limit) {
            return Err(self.gp0());
        }
        Ok(cs.base.wrapping_add(rip) & 0xffff_ffff)
    }
}
