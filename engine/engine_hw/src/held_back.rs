//! Writes that the kernel holds back: its "coalesced" MMIO and ports.
//!
//! The kernel puts them into a ring that all vCPUs of a VM share, and goes on with the guest. They
//! reach the bus when any vCPU has returned from guest mode, before what it returned for. A ring
//! that is full holds back no more: the write itself is an exit then.
//!
//! UNSAFETY: a shared mapping of the ring, which the kernel changes at any time.
#![allow(unsafe_code, reason = "the ring is memory that is shared with the kernel")]

use std::io;
use std::mem::offset_of;
use std::os::fd::AsRawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use engine::{Bus, IndexRegister};
use kvm_bindings::{KVM_COALESCED_MMIO_PAGE_OFFSET, kvm_coalesced_mmio, kvm_coalesced_mmio_ring};
use kvm_ioctls::{IoEventAddress, VcpuFd};

const PAGE_SIZE: usize = 4096;
/// Entries of the ring: `KVM_COALESCED_MMIO_MAX`.
const ENTRIES: u32 =
    ((PAGE_SIZE - size_of::<kvm_coalesced_mmio_ring>()) / size_of::<kvm_coalesced_mmio>()) as u32;

/// The ring of one VM.
pub(crate) struct HeldBack {
    ring: NonNull<kvm_coalesced_mmio_ring>,
    /// Held by the vCPU that takes writes to the bus. *Lock*: before those of devices.
    taking: Mutex<()>,
}

// SAFETY: the kernel's indices are accessed atomically, and entries only by who holds `taking`.
unsafe impl Send for HeldBack {}
// SAFETY: as above.
unsafe impl Sync for HeldBack {}

impl HeldBack {
    /// The ring of this vCPU's VM.
    pub(crate) fn map(vcpu: &VcpuFd) -> io::Result<Self> {
        let offset = libc::off_t::from(KVM_COALESCED_MMIO_PAGE_OFFSET) * PAGE_SIZE as libc::off_t;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new shared mapping at an address of the kernel's choice.
        let at = unsafe {
            let fd = vcpu.as_raw_fd();
            libc::mmap(ptr::null_mut(), PAGE_SIZE, access, libc::MAP_SHARED, fd, offset)
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let ring = NonNull::new(at.cast()).ok_or_else(|| io::Error::other("mapped at zero"))?;
        Ok(Self { ring, taking: Mutex::new(()) })
    }

    fn index(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: callers name one of the ring's two indices, which are aligned and inside the
        // mapping, which lives as long as `self`.
        unsafe { AtomicU32::from_ptr(self.ring.as_ptr().cast::<u8>().add(offset).cast()) }
    }

    /// The next one to take; ours to change.
    fn first(&self) -> &AtomicU32 {
        self.index(offset_of!(kvm_coalesced_mmio_ring, first))
    }

    /// One past the last; the kernel's to change.
    fn last(&self) -> &AtomicU32 {
        self.index(offset_of!(kvm_coalesced_mmio_ring, last))
    }

    /// Takes what is held back to the bus. When it returns, all that was written before the
    /// caller's vCPU left guest mode is there, whoever took it.
    pub(crate) fn take_to(&self, bus: &dyn Bus) {
        // `first` moves only behind a write that the bus has: an empty ring is one that is done.
        if self.first().load(Ordering::Acquire) == self.last().load(Ordering::Acquire) {
            return;
        }
        let _taking = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let first = self.first().load(Ordering::Relaxed);
            if first == self.last().load(Ordering::Acquire) {
                return;
            }
            let write = self.entry(first % ENTRIES);
            let data = &write.data[..(write.len as usize).min(write.data.len())];
            // SAFETY: both members are one plain word: whether the write was to a port.
            if unsafe { write.__bindgen_anon_1.pio } != 0 {
                bus.pio_write(write.phys_addr as u16, data);
            } else {
                bus.mmio_write(write.phys_addr, data);
            }
            self.first().store((first + 1) % ENTRIES, Ordering::Release);
        }
    }

    fn entry(&self, index: u32) -> kvm_coalesced_mmio {
        assert!(index < ENTRIES);
        // SAFETY: inside the mapping (asserted above; the entries follow the header without a
        // gap), and the kernel leaves entries between the two indices alone.
        unsafe {
            let entries = self.ring.as_ptr().add(1).cast::<kvm_coalesced_mmio>();
            entries.add(index as usize).read_volatile()
        }
    }
}

impl Drop for HeldBack {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and nobody borrows from it any more.
        let unmapped = unsafe { libc::munmap(self.ring.as_ptr().cast(), PAGE_SIZE) };
        debug_assert_eq!(unmapped, 0);
    }
}

/// A register as the kernel wants it, with its size.
pub(crate) fn zone(register: IndexRegister) -> (IoEventAddress, u32) {
    match register {
        IndexRegister::Port(port) => (IoEventAddress::Pio(port.into()), 1),
        IndexRegister::Mmio(gpa) => (IoEventAddress::Mmio(gpa), 4),
    }
}
