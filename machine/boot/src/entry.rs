//! The first CPU's state at a kernel's entry.

use x86_state::bits::{Cr0, Cr4, Efer, Rflags};
use x86_state::{CpuFeatures, CpuProfile, DescriptorTable, Gpr, SegReg, Segment, VcpuState};

use crate::error::BootError;
use crate::guest::Guest;
use crate::layout::low;

/// Linux's `__BOOT_CS`.
const CODE_SELECTOR: u16 = 0x10;
/// Linux's `__BOOT_DS`.
const DATA_SELECTOR: u16 = 0x18;
/// Present, ring 0, readable code, accessed, 4 KiB granularity.
const CODE: u16 = 0x809b;
/// Present, ring 0, writable data, accessed, 4 KiB granularity, 32-bit.
const DATA: u16 = 0xc093;
const PAGE_PRESENT_WRITABLE: u64 = 3;
const PAGE_LARGE: u64 = 1 << 7;
/// IA32_MTRR_DEF_TYPE: all of memory is write-back.
const MTRR_ENABLED_WRITE_BACK: u64 = 1 << 11 | 6;
/// Page directories of the identity map: one for each GiB below 4 GiB.
const DIRECTORIES: u64 = 4;

/// How the first CPU's state at a kernel's entry differs from reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// 64-bit mode with the first 4 GiB mapped to themselves (Linux boot protocol, "64-bit").
    Long {
        /// Physical address of the first instruction.
        rip: u64,
        /// RSI: `boot_params`.
        rsi: u64,
    },
    /// 32-bit protected mode with flat segments and no paging.
    Protected {
        /// Physical address of the first instruction.
        eip: u32,
        /// EAX: the protocol's magic number.
        eax: u32,
        /// EBX: the protocol's information.
        ebx: u32,
        /// ESI: `boot_params`, for Linux.
        esi: u32,
    },
}

impl Entry {
    /// Refuses an entry in a mode the CPU does not have.
    ///
    /// # Errors
    /// When it is in 64-bit mode and the profile has none.
    pub fn check(&self, profile: &CpuProfile) -> Result<(), BootError> {
        match self {
            Self::Long { .. } if !profile.features().contains(CpuFeatures::LM) => {
                Err(BootError::NoLongMode)
            }
            _ => Ok(()),
        }
    }

    /// Writes the tables the entry needs.
    pub(crate) fn write_tables(&self, guest: &Guest<'_>) {
        let code = self.code();
        for (selector, segment) in [(CODE_SELECTOR, code), (DATA_SELECTOR, data())] {
            guest.write(low::GDT + u64::from(selector), &descriptor(&segment).to_le_bytes());
        }
        if let Self::Long { .. } = self {
            write_identity_map(guest);
        }
    }

    /// Changes a CPU's state at reset into that at the entry.
    pub fn apply(&self, state: &mut VcpuState) {
        state.segments = [data(); 6];
        state.segments[SegReg::Cs as usize] = self.code();
        // A usable 32-bit TSS, as PVH asks for and every virtualization extension wants.
        state.tr = Segment { base: 0, limit: 0x67, selector: 0, attr: 0x8b };
        state.gdtr = DescriptorTable { base: low::GDT, limit: DATA_SELECTOR + 7 };
        state.idtr = DescriptorTable::default();
        // As firmware leaves it. Without, Linux does not use the PAT.
        state.msrs.mtrr.def_type = MTRR_ENABLED_WRITE_BACK;
        state.regs.gpr = [0; 16];
        state.regs.rflags = Rflags::FIXED.bits();
        match *self {
            Self::Long { rip, rsi } => {
                state.cr0 = (Cr0::PE | Cr0::ET | Cr0::PG).bits();
                state.cr3 = low::PAGE_TABLES;
                state.cr4 = Cr4::PAE.bits();
                state.efer = (Efer::LME | Efer::LMA).bits();
                state.regs.rip = rip;
                state.regs.gpr[Gpr::Rsi as usize] = rsi;
            }
            Self::Protected { eip, eax, ebx, esi } => {
                state.cr0 = (Cr0::PE | Cr0::ET).bits();
                state.regs.rip = u64::from(eip);
                state.regs.gpr[Gpr::Rax as usize] = u64::from(eax);
                state.regs.gpr[Gpr::Rbx as usize] = u64::from(ebx);
                state.regs.gpr[Gpr::Rsi as usize] = u64::from(esi);
            }
        }
    }

    fn code(&self) -> Segment {
        let width = match self {
            Self::Long { .. } => Segment::L,
            Self::Protected { .. } => Segment::DB,
        };
        Segment { base: 0, limit: u32::MAX, selector: CODE_SELECTOR, attr: CODE | width }
    }
}

fn data() -> Segment {
    Segment { base: 0, limit: u32::MAX, selector: DATA_SELECTOR, attr: DATA }
}

/// A flat segment as a descriptor (SDM vol. 3A, figure 3-8).
fn descriptor(segment: &Segment) -> u64 {
    0xf_0000_0000_ffff | u64::from(segment.attr) << 40
}

/// Four GiB in 2 MiB pages: what every CPU can do, and all that boot data can be in.
fn write_identity_map(guest: &Guest<'_>) {
    let (pml4, pdpt) = (low::PAGE_TABLES, low::PAGE_TABLES + 0x1000);
    let directory = |i: u64| low::PAGE_TABLES + 0x2000 + i * 0x1000;
    guest.write(pml4, &(pdpt | PAGE_PRESENT_WRITABLE).to_le_bytes());
    for i in 0..DIRECTORIES {
        guest.write(pdpt + i * 8, &(directory(i) | PAGE_PRESENT_WRITABLE).to_le_bytes());
        let entries: Vec<u8> = (0..512)
            .flat_map(|page| {
                let entry = (i * 512 + page) << 21 | PAGE_LARGE | PAGE_PRESENT_WRITABLE;
                entry.to_le_bytes()
            })
            .collect();
        guest.write(directory(i), &entries);
    }
}

#[cfg(test)]
mod tests {
    use x86_state::{CpuProfile, Topology, VcpuId};

    use super::*;

    #[test]
    fn descriptors_say_what_the_segments_say() {
        let long = Entry::Long { rip: 0, rsi: 0 };
        let protected = Entry::Protected { eip: 0, eax: 0, ebx: 0, esi: 0 };
        assert_eq!(descriptor(&long.code()), 0x00af_9b00_0000_ffff);
        assert_eq!(descriptor(&protected.code()), 0x00cf_9b00_0000_ffff);
        assert_eq!(descriptor(&data()), 0x00cf_9300_0000_ffff);
    }

    #[test]
    fn the_long_entry_is_in_64_bit_mode_with_interrupts_off() {
        let profile = CpuProfile::portable(Topology { cores: 1 }, 2_000_000).unwrap();
        let mut state = VcpuState::at_reset(&profile, VcpuId(0));
        Entry::Long { rip: 0x100_0000, rsi: 0x3000 }.apply(&mut state);
        assert!(state.segment(SegReg::Cs).has(Segment::L));
        assert!(!state.segment(SegReg::Cs).has(Segment::DB));
        assert_eq!((state.regs.rip, state.gpr(Gpr::Rsi)), (0x100_0000, 0x3000));
        assert_eq!(state.regs.rflags, 2);
        assert_eq!((state.cr0, state.cr4, state.efer), (0x8000_0011, 0x20, 0x500));
    }
}
