//! Guest-physical memory as a page walk sees it.

use x86_mmu::TableMemory;

use crate::{Backing, Env, HostAddr};

/// The environment, for one walk.
pub(crate) struct Tables<'a, E>(pub &'a mut E);

impl<E: Env> Tables<'_, E> {
    fn backing(&self, gpa: u64) -> Backing {
        let offset = gpa & 0xfff;
        match self.0.backing(gpa - offset) {
            Backing::Ram(at) => Backing::Ram(HostAddr(at.0 + offset)),
            Backing::Rom(at) => Backing::Rom(HostAddr(at.0 + offset)),
            Backing::Bus => Backing::Bus,
        }
    }

    fn updated(&self, at: HostAddr, size: usize) {
        if self.0.watched(at) {
            // Code in a page table's line: its decoded form is found stale by its generation.
            self.0.mark_written(at, size);
        }
    }
}

/// Entries are aligned, so each is inside one page. Tables outside of RAM are read from the bus;
/// bits set in ROM are lost, as on hardware.
impl<E: Env> TableMemory for Tables<'_, E> {
    fn read32(&mut self, gpa: u64) -> u32 {
        match self.backing(gpa) {
            Backing::Ram(at) | Backing::Rom(at) => self.0.load32(at),
            Backing::Bus => {
                let mut bytes = [0; 4];
                self.0.mmio_read(gpa, &mut bytes);
                u32::from_le_bytes(bytes)
            }
        }
    }

    fn read64(&mut self, gpa: u64) -> u64 {
        match self.backing(gpa) {
            Backing::Ram(at) | Backing::Rom(at) => self.0.load64(at),
            Backing::Bus => {
                let mut bytes = [0; 8];
                self.0.mmio_read(gpa, &mut bytes);
                u64::from_le_bytes(bytes)
            }
        }
    }

    fn update32(&mut self, gpa: u64, old: u32, new: u32) -> bool {
        match self.backing(gpa) {
            Backing::Ram(at) => {
                let done = self.0.cmpxchg32(at, old, new) == old;
                self.updated(at, 4);
                done
            }
            Backing::Rom(_) | Backing::Bus => {
                self.0.mmio_write(gpa, &new.to_le_bytes());
                true
            }
        }
    }

    fn update64(&mut self, gpa: u64, old: u64, new: u64) -> bool {
        match self.backing(gpa) {
            Backing::Ram(at) => {
                let done = self.0.cmpxchg64(at, old, new) == old;
                self.updated(at, 8);
                done
            }
            Backing::Rom(_) | Backing::Bus => {
                self.0.mmio_write(gpa, &new.to_le_bytes());
                true
            }
        }
    }
}
