//! Accesses to linear memory: translation, permissions, page crossing, MMIO.

use crate::{Cpu, Env, Fault, HostAddr};

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
