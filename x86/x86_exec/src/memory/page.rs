//! One page, for whoever mirrors the TLB.

use x86_mmu::{Access, Privilege};

use super::is_canonical;
use crate::{Backing, Cpu, Env, Fault};

/// A page of 4 KiB, or a piece of a larger one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageAt {
    /// What is there, from the first byte of the 4 KiB. What is on the bus is in no TLB: its
    /// invalidation would not be told, so a mirror does not keep it either.
    pub backing: Backing,
    /// Guest-physical address of that byte.
    pub gpa: u64,
    /// The page is the user's.
    pub user: bool,
    /// It is RAM, whoever may read it may write it, and its dirty bit is set. What CR0.WP alone
    /// allows is not in here: such stores are to be asked for one by one.
    pub writable: bool,
    /// Whoever may read it may execute it, CR4.SMEP aside.
    pub executable: bool,
    /// It survives a load of CR3.
    pub global: bool,
    /// Size of the page it is in, as a shift.
    pub page_shift: u8,
}

impl<E: Env> Cpu<E> {
    /// Does what a TLB miss of this access does: walks, checks, sets accessed and dirty bits, fills
    /// the TLB. What it says holds until [`x86_mmu::Mmu::generation`] has changed, and then as far
    /// as [`x86_mmu::Mmu::take_flushes`] says.
    ///
    /// Segments, alignment and breakpoints are the caller's.
    ///
    /// # Errors
    /// #PF; #GP(0) when the address is not canonical. Nothing of it is architectural yet: an
    /// instruction that is interpreted instead raises its own.
    pub fn page(
        &mut self,
        linear: u64,
        access: Access,
        privilege: Privilege,
    ) -> Result<PageAt, Fault> {
        let linear = self.wrap_linear(linear);
        if !is_canonical(linear) {
            return Err(self.gp0());
        }
        let (found, backing) = self.walk(linear, access, privilege)?;
        Ok(PageAt {
            backing,
            gpa: found.gpa & !0xfff,
            user: found.user,
            writable: found.writable && found.dirty && matches!(backing, Backing::Ram(_)),
            executable: found.executable,
            global: found.global,
            page_shift: found.page_shift,
        })
    }
}

#[cfg(test)]
mod tests {
    use x86_mmu::{ErrorCode, Flush};
    use x86_state::Exception;
    use x86_state::bits::Cr4;

    use super::*;
    use crate::HostAddr;
    use crate::plain::PlainEnv;

    /// Where the page table of this test is, for the first 2 MiB.
    const TABLE: u64 = 0x10_0000;
    const P: u64 = 1;
    const W: u64 = 2;
    const U: u64 = 4;
    const A: u64 = 0x20;
    const D: u64 = 0x40;
    const G: u64 = 0x100;
    const NX: u64 = 1 << 63;

    /// Ring 0, and a page table of which the entries are given, from 0x2000 on.
    fn cpu(entries: &[u64]) -> Cpu<PlainEnv> {
        let mut cpu = Cpu::flat64(0, 0x20_0000, &[0x90]);
        cpu.env.put(0x3000, &(TABLE | P | W | U).to_le_bytes());
        for (entry, at) in entries.iter().zip((TABLE + 16..).step_by(8)) {
            cpu.env.put(at, &entry.to_le_bytes());
        }
        cpu.cr4 |= Cr4::PGE.bits();
        cpu.update_paging();
        cpu
    }

    fn entry(cpu: &Cpu<PlainEnv>, index: u64) -> u64 {
        cpu.env.load64(HostAddr(TABLE + 16 + index * 8))
    }

    #[test]
    fn a_page_says_where_it_is_and_what_it_allows() {
        let mut cpu = cpu(&[0x5000 | P | W | U | D, 0x6000 | P | G | NX]);
        let found = cpu.page(0x2678, Access::Read, Privilege::User);
        let expected = PageAt {
            backing: Backing::Ram(HostAddr(0x5000)),
            gpa: 0x5000,
            user: true,
            writable: true,
            executable: true,
            global: false,
            page_shift: 12,
        };
        assert_eq!(found, Ok(expected));
        let found = cpu.page(0x3000, Access::Read, Privilege::Supervisor);
        let expected = PageAt {
            backing: Backing::Ram(HostAddr(0x6000)),
            gpa: 0x6000,
            user: false,
            writable: false,
            executable: false,
            global: true,
            page_shift: 12,
        };
        assert_eq!(found, Ok(expected));
    }

    #[test]
    fn accessed_and_dirty_bits_are_those_of_the_access() {
        let mut cpu = cpu(&[0x5000 | P | W]);
        let read = cpu.page(0x2000, Access::Read, Privilege::Supervisor).unwrap();
        assert_eq!(
            (read.writable, entry(&cpu, 0) & (A | D)),
            (false, A),
            "its first store is to come"
        );
        let write = cpu.page(0x2000, Access::Write, Privilege::Supervisor).unwrap();
        assert_eq!((write.writable, entry(&cpu, 0) & (A | D)), (true, A | D));
    }

    #[test]
    fn a_refused_access_is_the_page_fault_of_that_access() {
        let mut cpu = cpu(&[0x5000 | P]);
        assert!(cpu.page(0x2004, Access::Write, Privilege::User).is_err());
        assert_eq!((cpu.fault.exception, cpu.fault.payload), (Exception::Pf, 0x2004));
        assert_eq!(cpu.fault.error_code, ErrorCode::PRESENT | ErrorCode::WRITE | ErrorCode::USER);
        assert_eq!(entry(&cpu, 0) & (A | D), 0);
        assert!(cpu.page(0x4000, Access::Read, Privilege::Supervisor).is_err());
        assert_eq!((cpu.fault.exception, cpu.fault.error_code), (Exception::Pf, 0));
        assert!(cpu.page(1 << 47, Access::Read, Privilege::Supervisor).is_err());
        assert_eq!((cpu.fault.exception, cpu.fault.error_code), (Exception::Gp, 0));
    }

    #[test]
    fn a_store_that_only_cr0_wp_allows_makes_no_page_writable() {
        let mut cpu = cpu(&[0x5000 | P]);
        cpu.cr0 &= !x86_state::bits::Cr0::WP.bits();
        cpu.update_paging();
        let found = cpu.page(0x2000, Access::Write, Privilege::Supervisor).unwrap();
        assert!(!found.writable);
        assert_eq!(entry(&cpu, 0) & D, D);
    }

    #[test]
    fn what_is_on_the_bus_is_neither_memory_nor_writable() {
        let mut cpu = cpu(&[0xfee0_0000 | P | W | D]);
        let found = cpu.page(0x2010, Access::Write, Privilege::Supervisor).unwrap();
        assert_eq!((found.backing, found.gpa, found.writable), (Backing::Bus, 0xfee0_0000, false));
    }

    #[test]
    fn a_piece_of_a_large_page_is_invalidated_with_all_of_it() {
        let mut cpu = cpu(&[]);
        cpu.mmu.watch_flushes(true);
        let found = cpu.page(0x21_2345, Access::Read, Privilege::User).unwrap();
        assert_eq!((found.backing, found.page_shift), (Backing::Ram(HostAddr(0x21_2000)), 21));
        let generation = cpu.mmu.generation();
        cpu.mmu.take_flushes();
        cpu.mmu.invalidate(0x3f_f000);
        assert_ne!(cpu.mmu.generation(), generation);
        let page = Flush::Page { linear: 0x20_0000, shift: 21 };
        assert_eq!(cpu.mmu.take_flushes().as_slice(), [page]);
    }
}
