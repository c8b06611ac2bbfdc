//! The page walk.

use crate::{Format, Paging};

/// What an access wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Load.
    Read,
    /// Store, or the load of a read-modify-write.
    Write,
    /// Fetch.
    Execute,
}

/// On whose behalf an access is (SDM vol. 3A, 4.6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// CPL 3.
    User,
    /// CPL below 3, with RFLAGS.AC lifting SMAP.
    SupervisorAc,
    /// CPL below 3 without RFLAGS.AC; or the CPU itself reading a table, at any CPL.
    Supervisor,
}

/// Bits of a page fault's error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorCode(pub u32);

impl ErrorCode {
    /// The translation is there, but does not allow the access.
    pub const PRESENT: u32 = 1 << 0;
    /// The access was a write.
    pub const WRITE: u32 = 1 << 1;
    /// The access was the user's.
    pub const USER: u32 = 1 << 2;
    /// An entry has a reserved bit set.
    pub const RESERVED: u32 = 1 << 3;
    /// The access was a fetch.
    pub const FETCH: u32 = 1 << 4;

    fn new(paging: &Paging, access: Access, privilege: Privilege, cause: u32) -> Self {
        let mut code = cause;
        if access == Access::Write {
            code |= Self::WRITE;
        }
        if privilege == Privilege::User {
            code |= Self::USER;
        }
        // SDM vol. 3A, 4.7: the bit is defined only where fetches can be told from loads.
        let nx = paging.nxe && paging.format != Format::Bits32;
        if access == Access::Execute && (nx || paging.smep) {
            code |= Self::FETCH;
        }
        Self(code)
    }
}

/// Physical memory, as a page walk sees it.
pub trait TableMemory {
    /// Reads a 4-byte entry.
    fn read32(&mut self, gpa: u64) -> u32;
    /// Reads an 8-byte entry.
    fn read64(&mut self, gpa: u64) -> u64;
    /// Replaces a 4-byte entry if it is still `old`; false when it is not.
    fn update32(&mut self, gpa: u64, old: u32, new: u32) -> bool;
    /// Replaces an 8-byte entry if it is still `old`; false when it is not.
    fn update64(&mut self, gpa: u64, old: u64, new: u64) -> bool;
}

/// Where a linear address leads, and what its page allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translation {
    /// Guest-physical address.
    pub gpa: u64,
    /// Size of the page, as a shift: 12, 21, 22 or 30.
    pub page_shift: u8,
    /// The user may access it.
    pub user: bool,
    /// It is writable to the user.
    pub writable: bool,
    /// It can be fetched from.
    pub executable: bool,
    /// It survives a load of CR3.
    pub global: bool,
    /// Its dirty bit is set.
    pub dirty: bool,
}

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const PAGE_SIZE: u64 = 1 << 7;
const GLOBAL: u64 = 1 << 8;
const NO_EXECUTE: u64 = 1 << 63;
/// Bits 51..=12 of an entry.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// How often a walk is begun anew because another CPU changed an entry under it. Each time that
/// CPU made progress; the bound is only there so that no guest can hold us.
const RETRIES_MAX: usize = 1000;

/// Translates for an access, and sets accessed and dirty bits.
///
/// # Errors
/// The page fault's error code.
pub fn walk(
    memory: &mut impl TableMemory,
    paging: &Paging,
    linear: u64,
    access: Access,
    privilege: Privilege,
) -> Result<Translation, ErrorCode> {
    if paging.format == Format::Off {
        return Ok(Translation::identity(linear));
    }
    for _ in 0..RETRIES_MAX {
        let path = Path::find(memory, paging, linear)
            .map_err(|cause| ErrorCode::new(paging, access, privilege, cause))?;
        if !path.leaf.allows(paging, access, privilege) {
            return Err(ErrorCode::new(paging, access, privilege, ErrorCode::PRESENT));
        }
        if let Some(translation) = path.set_bits(memory, paging, access) {
            return Ok(translation);
        }
    }
    // An entry that changes that often is as good as one that is not there: the guest's handler
    // returns and the access is tried again.
    Err(ErrorCode::new(paging, access, privilege, 0))
}

/// Translates for a debugger: no permissions, no accessed or dirty bits.
#[must_use]
pub fn inspect(memory: &mut impl TableMemory, paging: &Paging, linear: u64) -> Option<Translation> {
    if paging.format == Format::Off {
        return Some(Translation::identity(linear));
    }
    Path::find(memory, paging, linear).ok().map(|path| path.leaf)
}

impl Translation {
    fn identity(linear: u64) -> Self {
        Self {
            gpa: linear,
            page_shift: 12,
            user: true,
            writable: true,
            executable: true,
            global: false,
            dirty: true,
        }
    }

    /// SDM vol. 3A, 4.6.1.
    fn allows(&self, paging: &Paging, access: Access, privilege: Privilege) -> bool {
        if privilege == Privilege::User {
            return self.user
                && match access {
                    Access::Read => true,
                    Access::Write => self.writable,
                    Access::Execute => self.executable,
                };
        }
        let smap = paging.smap && privilege == Privilege::Supervisor;
        match access {
            Access::Execute => self.executable && !(self.user && paging.smep),
            Access::Read => !(self.user && smap),
            Access::Write => !(self.user && smap) && (self.writable || !paging.wp),
        }
    }
}

/// An entry that was used.
#[derive(Clone, Copy, Default)]
struct Step {
    gpa: u64,
    entry: u64,
}

/// The entries a walk used, last one the leaf.
struct Path {
    steps: [Step; 4],
    count: usize,
    leaf: Translation,
}

impl Path {
    /// Follows the structures; the error is the cause bits of the error code.
    fn find(memory: &mut impl TableMemory, paging: &Paging, linear: u64) -> Result<Self, u32> {
        match paging.format {
            Format::Level4 => Self::find_wide(memory, paging, linear, paging.root, 3),
            Format::Pae => {
                let pdpte = paging.pdptes[(linear >> 30 & 3) as usize];
                if pdpte & PRESENT == 0 {
                    return Err(0);
                }
                Self::find_wide(memory, paging, linear, pdpte & ADDRESS, 1)
            }
            Format::Bits32 | Format::Off => Self::find_narrow(memory, paging, linear),
        }
    }

    /// 8-byte entries, from the table of this level down (0: page table).
    fn find_wide(
        memory: &mut impl TableMemory,
        paging: &Paging,
        linear: u64,
        mut table: u64,
        top: u32,
    ) -> Result<Self, u32> {
        let always_reserved = paging.beyond_physical() | if paging.nxe { 0 } else { NO_EXECUTE };
        let mut steps = [Step::default(); 4];
        let mut rights = !NO_EXECUTE;
        for (count, level) in (0..=top).rev().enumerate() {
            let shift = 12 + 9 * level;
            let gpa = table + (linear >> shift & 0x1ff) * 8;
            let entry = memory.read64(gpa);
            if entry & PRESENT == 0 {
                return Err(0);
            }
            let large = level > 0 && entry & PAGE_SIZE != 0;
            let page_mask = (1u64 << shift) - 1;
            let reserved = match level {
                3 => PAGE_SIZE,
                2 if paging.pages_2m_max => PAGE_SIZE,
                // Bit 12 of a large page's entry is PAT.
                1 | 2 if large => page_mask & !0x1fff,
                _ => 0,
            };
            if entry & (reserved | always_reserved) != 0 {
                return Err(ErrorCode::PRESENT | ErrorCode::RESERVED);
            }
            rights = (rights & entry) | (rights | entry) & NO_EXECUTE;
            steps[count] = Step { gpa, entry };
            table = entry & ADDRESS;
            if level == 0 || large {
                let leaf = Translation {
                    gpa: table & !page_mask | linear & page_mask,
                    page_shift: shift as u8,
                    ..Translation::from_leaf(paging, entry, rights)
                };
                return Ok(Self { steps, count: count + 1, leaf });
            }
        }
        Err(0)
    }

    /// 4-byte entries.
    fn find_narrow(
        memory: &mut impl TableMemory,
        paging: &Paging,
        linear: u64,
    ) -> Result<Self, u32> {
        let mut steps = [Step::default(); 4];
        let gpa = paging.root + (linear >> 22 & 0x3ff) * 4;
        let pde = u64::from(memory.read32(gpa));
        if pde & PRESENT == 0 {
            return Err(0);
        }
        steps[0] = Step { gpa, entry: pde };
        if paging.pse && pde & PAGE_SIZE != 0 {
            // PSE-36: bits 20..=13 are address bits 39..=32, as far as the CPU has those.
            let high = u64::from(paging.physical_bits.clamp(32, 40)) - 32;
            let reserved = 0x3f_e000 & !(((1 << high) - 1) << 13);
            if pde & reserved != 0 {
                return Err(ErrorCode::PRESENT | ErrorCode::RESERVED);
            }
            let base = pde & 0xffc0_0000 | (pde >> 13 & 0xff) << 32;
            let leaf = Translation {
                gpa: base | linear & 0x3f_ffff,
                page_shift: 22,
                ..Translation::from_leaf(paging, pde, pde)
            };
            return Ok(Self { steps, count: 1, leaf });
        }
        let gpa = (pde & 0xffff_f000) + (linear >> 12 & 0x3ff) * 4;
        let pte = u64::from(memory.read32(gpa));
        if pte & PRESENT == 0 {
            return Err(0);
        }
        steps[1] = Step { gpa, entry: pte };
        let leaf = Translation {
            gpa: pte & 0xffff_f000 | linear & 0xfff,
            page_shift: 12,
            ..Translation::from_leaf(paging, pte, pde & pte)
        };
        Ok(Self { steps, count: 2, leaf })
    }

    /// Sets what is not yet set; `None` when another CPU was faster.
    fn set_bits(
        mut self,
        memory: &mut impl TableMemory,
        paging: &Paging,
        access: Access,
    ) -> Option<Translation> {
        for (index, step) in self.steps[..self.count].iter().enumerate() {
            let is_leaf = index + 1 == self.count;
            let dirty = if is_leaf && access == Access::Write { DIRTY } else { 0 };
            let new = step.entry | ACCESSED | dirty;
            if new == step.entry {
                continue;
            }
            let done = if paging.format == Format::Bits32 {
                memory.update32(step.gpa, step.entry as u32, new as u32)
            } else {
                memory.update64(step.gpa, step.entry, new)
            };
            if !done {
                return None;
            }
        }
        self.leaf.dirty |= access == Access::Write;
        Some(self.leaf)
    }
}

impl Translation {
    /// What a leaf entry and the rights of all entries say; the address is the caller's.
    fn from_leaf(paging: &Paging, leaf: u64, rights: u64) -> Self {
        Self {
            gpa: 0,
            page_shift: 12,
            user: rights & USER != 0,
            writable: rights & WRITABLE != 0,
            executable: rights & NO_EXECUTE == 0,
            global: paging.pge && leaf & GLOBAL != 0,
            dirty: leaf & DIRTY != 0,
        }
    }
}
