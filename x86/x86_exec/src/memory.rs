//! Accesses to linear memory: translation, permissions, page crossing, MMIO.
//!
//! The hit path is inline: one compare against the segment's window, one TLB lookup, one load.
//! Everything else (limits that fail, misses, page crossings, MMIO, alignment checks, data
//! breakpoints) is in [`slow`], which repeats the access from its start.

mod bulk;
mod fetch;
mod flat;
mod page;
mod slow;
mod tables;
mod window;

pub use bulk::{Run, STRUCTURE_MAX};
pub(crate) use flat::{Address, Base, Form, Indexed, by_address};
pub use page::PageAt;
pub(crate) use slow::{in_limit, is_canonical};
pub(crate) use tables::Tables;
pub(crate) use window::{SegmentWindow, dr7_condition, dr7_enabled, dr7_length};
pub use x86_mmu::Access;

use x86_state::SegReg;

use crate::{Cpu, Env, Fault, HostAddr};

/// An operand of a size the ISA has.
pub trait Word: Copy + Eq + Default + 'static {
    /// Bytes.
    const SIZE: usize;
    /// Reads from memory.
    fn load<E: Env>(env: &E, at: HostAddr) -> Self;
    /// Writes to memory.
    fn store<E: Env>(env: &E, at: HostAddr, value: Self);
    /// LOCK CMPXCHG.
    fn cmpxchg<E: Env>(env: &E, at: HostAddr, old: Self, new: Self) -> Self;
    /// Zero-extends.
    fn to_u64(self) -> u64;
    /// Truncates.
    fn from_u64(value: u64) -> Self;
}

macro_rules! word {
    ($type:ty, $load:ident, $store:ident, $cmpxchg:ident) => {
        impl Word for $type {
            const SIZE: usize = size_of::<$type>();
            #[inline(always)]
            fn load<E: Env>(env: &E, at: HostAddr) -> Self {
                env.$load(at)
            }
            #[inline(always)]
            fn store<E: Env>(env: &E, at: HostAddr, value: Self) {
                env.$store(at, value);
            }
            #[inline(always)]
            fn cmpxchg<E: Env>(env: &E, at: HostAddr, old: Self, new: Self) -> Self {
                env.$cmpxchg(at, old, new)
            }
            #[inline(always)]
            fn to_u64(self) -> u64 {
                u64::from(self)
            }
            #[inline(always)]
            fn from_u64(value: u64) -> Self {
                value as $type
            }
        }
    };
}
word!(u8, load8, store8, cmpxchg8);
word!(u16, load16, store16, cmpxchg16);
word!(u32, load32, store32, cmpxchg32);
word!(u64, load64, store64, cmpxchg64);

impl<E: Env> Cpu<E> {
    /// Linear address of `size` bytes when the segment's window allows them without further look.
    #[inline(always)]
    fn window_read(&self, seg: SegReg, offset: u64, size: u64) -> Option<u64> {
        let window = &self.windows[seg as usize];
        let inside = offset.wrapping_add(size - 1) < window.read_end;
        inside.then(|| window.base.wrapping_add(offset))
    }

    #[inline(always)]
    fn window_write(&self, seg: SegReg, offset: u64, size: u64) -> Option<u64> {
        let window = &self.windows[seg as usize];
        let inside = offset.wrapping_add(size - 1) < window.write_end;
        inside.then(|| window.base.wrapping_add(offset))
    }

    #[inline(always)]
    fn hit_read(&self, seg: SegReg, offset: u64, size: u64) -> Option<HostAddr> {
        self.window_read(seg, offset, size)
            .and_then(|linear| self.mmu.hit_read(linear, size))
            .map(HostAddr)
    }

    #[inline(always)]
    fn hit_write(&self, seg: SegReg, offset: u64, size: u64) -> Option<HostAddr> {
        self.window_write(seg, offset, size)
            .and_then(|linear| self.mmu.hit_write(linear, size))
            .map(HostAddr)
    }

    /// To be called after each store.
    #[inline(always)]
    pub(crate) fn stored(&mut self, at: HostAddr, size: usize) {
        if self.env.watched(at) {
            self.stored_watched(at, size);
        }
    }

    #[cold]
    #[inline(never)]
    fn stored_watched(&mut self, at: HostAddr, size: usize) {
        self.code_written |= self.env.mark_written(at, size);
    }

    /// Reads an operand.
    ///
    /// # Errors
    /// The exception.
    #[inline(always)]
    pub fn read<T: Word>(&mut self, seg: SegReg, offset: u64) -> Result<T, Fault> {
        match self.hit_read(seg, offset, T::SIZE as u64) {
            Some(at) => Ok(T::load(&self.env, at)),
            None => self.read_slow(seg, offset),
        }
    }

    /// Writes an operand.
    ///
    /// # Errors
    /// The exception.
    #[inline(always)]
    pub fn write<T: Word>(&mut self, seg: SegReg, offset: u64, value: T) -> Result<(), Fault> {
        match self.hit_write(seg, offset, T::SIZE as u64) {
            Some(at) => {
                T::store(&self.env, at, value);
                self.stored(at, T::SIZE);
                Ok(())
            }
            None => self.write_slow(seg, offset, value),
        }
    }

    /// Reads, applies `change`, writes; with `lock`, as one atomic operation, for which `change`
    /// may run more than once. Returns what `change` returned beside the new value.
    ///
    /// # Errors
    /// The exception; nothing is written then, and `change` does not run.
    #[inline(always)]
    pub fn modify<T: Word, R>(
        &mut self,
        seg: SegReg,
        offset: u64,
        lock: bool,
        mut change: impl FnMut(T) -> (T, R),
    ) -> Result<R, Fault> {
        match self.hit_write(seg, offset, T::SIZE as u64) {
            Some(at) => Ok(self.modify_at(at, lock, change)),
            None => {
                let place = self.place_for_modify(seg, offset, T::SIZE)?;
                match place.ram() {
                    Some(at) => Ok(self.modify_at(at, lock, change)),
                    None => {
                        if lock {
                            self.env.stop_others();
                        }
                        let old = T::from_u64(self.place_read(&place));
                        let (new, result) = change(old);
                        self.place_write(&place, new.to_u64());
                        if lock {
                            self.env.let_others_go();
                        }
                        Ok(result)
                    }
                }
            }
        }
    }

    #[inline(always)]
    fn modify_at<T: Word, R>(
        &mut self,
        at: HostAddr,
        lock: bool,
        mut change: impl FnMut(T) -> (T, R),
    ) -> R {
        let mut old = T::load(&self.env, at);
        let result = loop {
            let (new, result) = change(old);
            if !lock {
                T::store(&self.env, at, new);
                break result;
            }
            let seen = T::cmpxchg(&self.env, at, old, new);
            if seen == old {
                break result;
            }
            old = seen;
        };
        self.stored(at, T::SIZE);
        result
    }

    /// A store of `size` bytes would not fault.
    ///
    /// # Errors
    /// #GP, #SS, #PF.
    pub fn check_write(&mut self, seg: SegReg, offset: u64, size: usize) -> Result<(), Fault> {
        match self.hit_write(seg, offset, size as u64) {
            Some(_) => Ok(()),
            None => self.probe(seg, offset, size, Access::Write),
        }
    }

    /// Reads 16 bytes.
    ///
    /// # Errors
    /// The exception.
    #[inline(always)]
    pub fn read_u128(&mut self, seg: SegReg, offset: u64) -> Result<u128, Fault> {
        match self.hit_read(seg, offset, 16) {
            Some(at) => Ok(self.load_u128(at)),
            None => self.read_u128_slow(seg, offset, false),
        }
    }

    /// Reads 16 aligned bytes; #GP(0) when they are not.
    ///
    /// # Errors
    /// The exception.
    #[inline(always)]
    pub fn read_u128_aligned(&mut self, seg: SegReg, offset: u64) -> Result<u128, Fault> {
        match self.hit_read(seg, offset, 16) {
            Some(at) if at.0 & 15 == 0 => Ok(self.load_u128(at)),
            _ => self.read_u128_slow(seg, offset, true),
        }
    }

    /// Writes 16 bytes.
    ///
    /// # Errors
    /// The exception.
    #[inline(always)]
    pub fn write_u128(&mut self, seg: SegReg, offset: u64, value: u128) -> Result<(), Fault> {
        match self.hit_write(seg, offset, 16) {
            Some(at) => {
                self.store_u128(at, value);
                Ok(())
            }
            None => self.write_u128_slow(seg, offset, value, false),
        }
    }

    /// Writes 16 aligned bytes; #GP(0) when they are not.
    ///
    /// # Errors
    /// The exception.
    #[inline(always)]
    pub fn write_u128_aligned(
        &mut self,
        seg: SegReg,
        offset: u64,
        value: u128,
    ) -> Result<(), Fault> {
        match self.hit_write(seg, offset, 16) {
            Some(at) if at.0 & 15 == 0 => {
                self.store_u128(at, value);
                Ok(())
            }
            _ => self.write_u128_slow(seg, offset, value, true),
        }
    }

    #[inline(always)]
    fn load_u128(&self, at: HostAddr) -> u128 {
        let low = self.env.load64(at);
        u128::from(self.env.load64(HostAddr(at.0 + 8))) << 64 | u128::from(low)
    }

    #[inline(always)]
    fn store_u128(&mut self, at: HostAddr, value: u128) {
        self.env.store64(at, value as u64);
        self.env.store64(HostAddr(at.0 + 8), (value >> 64) as u64);
        self.stored(at, 16);
    }
}
