//! Accesses to linear memory: translation, permissions, page crossing, MMIO.

use x86_state::SegReg;

use crate::{Backing, Cpu, Env, Fault, HostAddr};

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

/// Accesses by segment and offset. `offset` is an effective address, already cut to the address
/// size.
impl<E: Env> Cpu<E> {
    /// Loads.
    ///
    /// # Errors
    /// #GP, #SS, #PF, #AC.
    #[inline(always)]
    pub fn read<T: Word>(&mut self, seg: SegReg, offset: u64) -> Result<T, Fault> {
        let at = self.locate(seg, offset, T::SIZE)?;
        Ok(T::load(&self.env, at))
    }

    /// Stores.
    ///
    /// # Errors
    /// #GP, #SS, #PF, #AC.
    #[inline(always)]
    pub fn write<T: Word>(&mut self, seg: SegReg, offset: u64, value: T) -> Result<(), Fault> {
        let at = self.locate(seg, offset, T::SIZE)?;
        T::store(&self.env, at, value);
        self.stored(at, T::SIZE);
        Ok(())
    }

    /// Loads, changes and stores; atomically when `lock`. `change` gives the new value and what
    /// the caller wants to know; with `lock` it may run more than once.
    ///
    /// # Errors
    /// #GP, #SS, #PF, #AC.
    #[inline(always)]
    pub fn modify<T: Word, R>(
        &mut self,
        seg: SegReg,
        offset: u64,
        lock: bool,
        change: impl Fn(T) -> (T, R),
    ) -> Result<R, Fault> {
        let at = self.locate(seg, offset, T::SIZE)?;
        let mut old = T::load(&self.env, at);
        let result = loop {
            let (new, result) = change(old);
            if !lock {
                T::store(&self.env, at, new);
                break result;
            }
            let found = T::cmpxchg(&self.env, at, old, new);
            if found == old {
                break result;
            }
            old = found;
        };
        self.stored(at, T::SIZE);
        Ok(result)
    }

    /// A store of `size` bytes would not fault.
    ///
    /// # Errors
    /// #GP, #SS, #PF.
    pub fn check_write(&mut self, seg: SegReg, offset: u64, size: usize) -> Result<(), Fault> {
        self.locate(seg, offset, size).map(|_| ())
    }

    #[inline(always)]
    fn locate(&mut self, seg: SegReg, offset: u64, _size: usize) -> Result<HostAddr, Fault> {
        let linear = match seg {
            SegReg::Fs | SegReg::Gs => self.segment(seg).base.wrapping_add(offset),
            _ if self.mode.is_64() => offset,
            _ => self.segment(seg).base.wrapping_add(offset) & 0xffff_ffff,
        };
        self.fetch_address(linear)
    }

    /// Where the byte at this linear address is, to be fetched as code.
    ///
    /// # Errors
    /// #PF; #GP when it is not canonical or not memory.
    pub fn fetch_address(&mut self, linear: u64) -> Result<HostAddr, Fault> {
        match self.env.backing(linear & !0xfff) {
            Backing::Ram(at) | Backing::Rom(at) => Ok(HostAddr(at.0 | linear & 0xfff)),
            Backing::Bus => Err(self.page_fault(linear, 0)),
        }
    }

    #[inline(always)]
    fn stored(&mut self, at: HostAddr, size: usize) {
        if self.env.watched(at) && self.env.mark_written(at, size) {
            self.code_written = true;
        }
    }
}
