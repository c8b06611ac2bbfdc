//! Single accesses to guest memory.
//!
//! Loads and stores compile to one MOV each. The compiler keeps volatile accesses in their order,
//! and the host is x86, so guests see x86's memory order. Accesses may be misaligned.
//!
//! UNSAFETY: reads and writes raw pointers into the mapping after checking their range.
#![allow(unsafe_code, reason = "guest memory is shared with the guest: no reference may exist")]

use std::arch::asm;

use crate::{GuestMemory, RamOffset};

/// Unaligned, so that one volatile access is one instruction whatever the address.
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Packed<T>(T);

mod sealed {
    pub trait Sealed {}
}

/// An integer the host moves in one instruction (two for 128 bits, as the architecture allows).
pub trait Word: Copy + PartialEq + sealed::Sealed + 'static {
    /// LOCK CMPXCHG: writes `new` if `*at == old`; returns what was there.
    ///
    /// # Safety
    /// `at` is valid for reads and writes of `Self`.
    #[doc(hidden)]
    unsafe fn lock_cmpxchg(at: *mut Self, old: Self, new: Self) -> Self;
    /// XCHG.
    ///
    /// # Safety
    /// `at` is valid for reads and writes of `Self`.
    #[doc(hidden)]
    unsafe fn xchg(at: *mut Self, new: Self) -> Self;
}

macro_rules! word {
    ($type:ty, $reg:tt, $rax:tt, $modifier:tt) => {
        impl sealed::Sealed for $type {}
        impl Word for $type {
            unsafe fn lock_cmpxchg(at: *mut Self, old: Self, new: Self) -> Self {
                let found;
                // SAFETY: the caller vouches for the pointer. The instruction works at any
                // alignment, which `Atomic*` does not promise.
                unsafe {
                    asm!(concat!("lock cmpxchg [{at}], {new", $modifier, "}"),
                        at = in(reg) at, new = in($reg) new, inlateout($rax) old => found,
                        options(nostack));
                }
                found
            }
            unsafe fn xchg(at: *mut Self, new: Self) -> Self {
                let mut value = new;
                // SAFETY: the caller vouches for the pointer; XCHG locks by itself.
                unsafe {
                    asm!(concat!("xchg [{at}], {value", $modifier, "}"),
                        at = in(reg) at, value = inout($reg) value,
                        options(nostack, preserves_flags));
                }
                value
            }
        }
    };
}
word!(u8, reg_byte, "al", "");
word!(u16, reg, "ax", ":x");
word!(u32, reg, "eax", ":e");
word!(u64, reg, "rax", ":r");

impl GuestMemory {
    /// Reads one word.
    ///
    /// # Panics
    /// When the word is not inside guest memory: the caller's map is wrong.
    #[inline(always)]
    pub fn load<T: Word>(&self, at: RamOffset) -> T {
        let pointer = self.pointer::<T>(at);
        // SAFETY: `pointer` checked the range; the mapping lives as long as `self`.
        unsafe { pointer.cast::<Packed<T>>().read_volatile().0 }
    }

    /// Writes one word. The caller then looks at [`crate::PageBits::watched`].
    ///
    /// # Panics
    /// When the word is not inside guest memory: the caller's map is wrong.
    #[inline(always)]
    pub fn store<T: Word>(&self, at: RamOffset, value: T) {
        let pointer = self.pointer::<T>(at);
        // SAFETY: `pointer` checked the range; the mapping lives as long as `self`.
        unsafe { pointer.cast::<Packed<T>>().write_volatile(Packed(value)) }
    }

    /// Writes `new` if the word is `old`, atomically; returns what was there. The caller then
    /// looks at [`crate::PageBits::watched`].
    ///
    /// # Panics
    /// When the word is not inside guest memory: the caller's map is wrong.
    #[inline]
    pub fn compare_exchange<T: Word>(&self, at: RamOffset, old: T, new: T) -> T {
        // SAFETY: `pointer` checked the range; the mapping lives as long as `self`.
        unsafe { T::lock_cmpxchg(self.pointer(at), old, new) }
    }

    /// Exchanges the word, atomically. The caller then looks at [`crate::PageBits::watched`].
    ///
    /// # Panics
    /// When the word is not inside guest memory: the caller's map is wrong.
    #[inline]
    pub fn exchange<T: Word>(&self, at: RamOffset, new: T) -> T {
        // SAFETY: `pointer` checked the range; the mapping lives as long as `self`.
        unsafe { T::xchg(self.pointer(at), new) }
    }

    /// CMPXCHG16B; `at` is a multiple of 16.
    ///
    /// # Panics
    /// When the word is misaligned or not inside guest memory: the caller did not check.
    pub fn compare_exchange_16b(&self, at: RamOffset, old: u128, new: u128) -> u128 {
        assert!(at.0.is_multiple_of(16), "CMPXCHG16B of {at:?}");
        let pointer = self.pointer::<[u64; 2]>(at);
        let (mut low, mut high) = (old as u64, (old >> 64) as u64);
        // SAFETY: range and alignment were checked. RBX cannot be an operand (LLVM keeps it), so
        // it is exchanged around the instruction.
        unsafe {
            asm!("xchg rbx, rsi", "lock cmpxchg16b [rdi]", "mov rbx, rsi",
                in("rdi") pointer, inout("rsi") new as u64 => _,
                in("rcx") (new >> 64) as u64, inout("rax") low, inout("rdx") high,
                options(nostack));
        }
        u128::from(high) << 64 | u128::from(low)
    }

    /// Copies out of guest memory. Not atomic.
    ///
    /// # Panics
    /// When the range is not inside guest memory.
    pub fn read(&self, at: RamOffset, data: &mut [u8]) {
        let pointer = self.range(at, data.len());
        // SAFETY: the range was checked; `data` is not guest memory, because no reference to
        // guest memory exists.
        unsafe { std::ptr::copy_nonoverlapping(pointer, data.as_mut_ptr(), data.len()) }
    }

    /// Copies into guest memory and marks the pages. Not atomic.
    ///
    /// # Panics
    /// When the range is not inside guest memory.
    pub fn write(&self, at: RamOffset, data: &[u8]) {
        let pointer = self.range(at, data.len());
        // SAFETY: as in `read`.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), pointer, data.len()) }
        self.bits().mark_written(at, data.len());
    }

    /// Fills with one byte and marks the pages. Not atomic.
    ///
    /// # Panics
    /// When the range is not inside guest memory.
    pub fn fill(&self, at: RamOffset, size: usize, byte: u8) {
        let pointer = self.range(at, size);
        // SAFETY: the range was checked.
        unsafe { std::ptr::write_bytes(pointer, byte, size) }
        self.bits().mark_written(at, size);
    }

    #[inline(always)]
    fn pointer<T>(&self, at: RamOffset) -> *mut T {
        self.range(at, size_of::<T>()).cast()
    }

    #[inline(always)]
    fn range(&self, at: RamOffset, size: usize) -> *mut u8 {
        let offset = at.0 as usize;
        let total = self.mapping().size();
        if size > total || offset > total - size {
            outside(at);
        }
        // SAFETY: the offset is inside the mapping.
        unsafe { self.mapping().base().add(offset) }
    }
}

/// Apart, so that a load or store of one word needs no stack frame for what never happens.
#[cold]
#[inline(never)]
fn outside(at: RamOffset) -> ! {
    panic!("{at:?} is outside of guest memory");
}
