//! What the control registers say about paging.

use x86_state::bits::{Cr0, Cr4, Efer};

/// The format of the paging structures (SDM vol. 3A, 4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Paging is off: linear addresses are physical.
    #[default]
    Off,
    /// Two levels of 4-byte entries.
    Bits32,
    /// Three levels of 8-byte entries, the first in registers.
    Pae,
    /// Four levels of 8-byte entries.
    Level4,
}

/// Everything a walk depends on, besides memory and the access itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Paging {
    /// Format of the structures.
    pub format: Format,
    /// Physical address of the first structure.
    pub root: u64,
    /// PAE paging: the page-directory-pointer registers.
    pub pdptes: [u64; 4],
    /// CR0.WP: supervisor writes obey read-only pages.
    pub wp: bool,
    /// CR4.PSE: 4 MiB pages in 32-bit paging.
    pub pse: bool,
    /// The CPU has no pages of 1 GiB.
    pub pages_2m_max: bool,
    /// CR4.PGE: global pages.
    pub pge: bool,
    /// CR4.SMEP: the supervisor may not fetch from user pages.
    pub smep: bool,
    /// CR4.SMAP: the supervisor may not access user pages.
    pub smap: bool,
    /// EFER.NXE: bit 63 of an entry forbids fetches.
    pub nxe: bool,
    /// Width of physical addresses.
    pub physical_bits: u8,
}

/// Bits of CR3 that hold the root of 32-bit and 4-level tables.
const ROOT_MASK: u64 = 0x000f_ffff_ffff_f000;
/// Bits of CR3 that hold the root of PAE tables.
const PAE_ROOT_MASK: u64 = 0xffff_ffe0;

impl Paging {
    /// From the registers. The PDPTEs are those of [`Paging::load_pdptes`].
    pub fn new(cr0: u64, cr3: u64, cr4: u64, efer: u64, physical_bits: u8) -> Self {
        let (cr0, cr4) = (Cr0::from_bits_retain(cr0), Cr4::from_bits_retain(cr4));
        let efer = Efer::from_bits_retain(efer);
        let format = match (cr0.contains(Cr0::PG), cr4.contains(Cr4::PAE)) {
            (false, _) => Format::Off,
            (true, false) => Format::Bits32,
            (true, true) if efer.contains(Efer::LMA) => Format::Level4,
            (true, true) => Format::Pae,
        };
        let root = match format {
            Format::Pae => cr3 & PAE_ROOT_MASK,
            Format::Bits32 => cr3 & ROOT_MASK & 0xffff_ffff,
            _ => cr3 & ROOT_MASK,
        };
        Self {
            format,
            root,
            pdptes: [0; 4],
            wp: cr0.contains(Cr0::WP),
            pse: cr4.contains(Cr4::PSE),
            pages_2m_max: false,
            pge: cr4.contains(Cr4::PGE),
            smep: cr4.contains(Cr4::SMEP),
            smap: cr4.contains(Cr4::SMAP),
            nxe: efer.contains(Efer::NXE),
            physical_bits,
        }
    }

    /// Reads the four PDPTEs that PAE paging keeps in registers (SDM vol. 3A, 4.4.1). `None` when
    /// a present one has reserved bits set: #GP.
    #[must_use]
    pub fn load_pdptes(&self, memory: &mut impl crate::TableMemory) -> Option<[u64; 4]> {
        let reserved = self.beyond_physical() | 0x1e6 | 3 << 61 | 1 << 63;
        let mut pdptes = [0; 4];
        for (index, pdpte) in pdptes.iter_mut().enumerate() {
            *pdpte = memory.read64(self.root + index as u64 * 8);
            if *pdpte & 1 != 0 && *pdpte & reserved != 0 {
                return None;
            }
        }
        Some(pdptes)
    }

    /// Address bits 51 and below that the CPU does not have; in PAE entries, bits 62 and below.
    pub(crate) fn beyond_physical(&self) -> u64 {
        let top = if self.format == Format::Pae { 63 } else { 52 };
        ((1u64 << top) - 1) & !((1u64 << self.physical_bits) - 1)
    }
}
