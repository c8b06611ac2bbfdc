//! The calls `kvm-ioctls` has no safe form of, and the run page as seen from other threads.
//!
//! UNSAFETY: raw ioctls, a shared mapping of the kernel's run page, and handing host addresses of
//! guest memory to the kernel. Each wrapper takes only what makes the call sound.
#![allow(unsafe_code, reason = "system calls without a safe wrapper")]

use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, RawFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU8, Ordering};

use guest_memory::{GuestMemory, RamOffset};
use kvm_bindings::{
    KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, KVMIO, kvm_device_attr, kvm_run, kvm_signal_mask,
    kvm_userspace_memory_region, kvm_xsave,
};
use kvm_ioctls::{VcpuFd, VmFd};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::ioctl::{ioctl, ioctl_with_ptr, ioctl_with_ref, ioctl_with_val};
use vmm_sys_util::{ioctl_io_nr, ioctl_iow_nr};

ioctl_iow_nr!(KVM_SET_DEVICE_ATTR, KVMIO, 0xe1, kvm_device_attr);
ioctl_iow_nr!(KVM_GET_DEVICE_ATTR, KVMIO, 0xe2, kvm_device_attr);
ioctl_iow_nr!(KVM_SET_SIGNAL_MASK, KVMIO, 0x8b, kvm_signal_mask);
ioctl_io_nr!(KVM_GET_TSC_KHZ, KVMIO, 0xa3);
ioctl_io_nr!(KVM_CHECK_EXTENSION, KVMIO, 0x03);

fn result(ret: libc::c_int) -> io::Result<libc::c_int> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

/// What the host's kernel answers for a capability of a VM that `kvm-ioctls` does not name.
pub(crate) fn capability(vm: &VmFd, number: u32) -> u32 {
    // SAFETY: the ioctl takes a number and touches no memory of ours.
    let answer = unsafe { ioctl_with_val(vm, KVM_CHECK_EXTENSION(), u64::from(number)) };
    u32::try_from(answer).unwrap_or(0)
}

/// The TSC rate VMs are created with, in kHz (Linux 5.18 and newer).
pub(crate) fn vm_tsc_khz(vm: &VmFd) -> io::Result<u32> {
    // SAFETY: the ioctl takes no argument.
    result(unsafe { ioctl(vm, KVM_GET_TSC_KHZ()) }).map(|khz| khz as u32)
}

fn tsc_offset_attr(addr: u64) -> kvm_device_attr {
    kvm_device_attr {
        flags: 0,
        group: KVM_VCPU_TSC_CTRL,
        attr: u64::from(KVM_VCPU_TSC_OFFSET),
        addr,
    }
}

/// Guest TSC less host TSC.
pub(crate) fn tsc_offset(vcpu: &VcpuFd) -> io::Result<u64> {
    let mut offset = 0u64;
    let attr = tsc_offset_attr(&raw mut offset as u64);
    // SAFETY: for this attribute the kernel writes eight bytes to `addr`, which outlives the call.
    result(unsafe { ioctl_with_ref(vcpu, KVM_GET_DEVICE_ATTR(), &attr) })?;
    Ok(offset)
}

/// Sets what [`tsc_offset`] reads.
pub(crate) fn set_tsc_offset(vcpu: &VcpuFd, offset: u64) -> io::Result<()> {
    let attr = tsc_offset_attr(&raw const offset as u64);
    // SAFETY: for this attribute the kernel reads eight bytes from `addr`, which outlives the call.
    result(unsafe { ioctl_with_ref(vcpu, KVM_SET_DEVICE_ATTR(), &attr) }).map(drop)
}

/// Makes `size` bytes of guest memory a slot, changes its flags, or (with size 0) removes it.
///
/// # Panics
/// When the range is not inside the guest memory.
pub(crate) fn set_slot(
    vm: &VmFd,
    memory: &GuestMemory,
    slot: u32,
    flags: u32,
    gpa: u64,
    (at, size): (RamOffset, u64),
) -> io::Result<()> {
    let end = at.0.checked_add(size);
    let total = memory.bits().pages() as u64 * guest_memory::PAGE_SIZE;
    assert!(end.is_some_and(|end| end <= total), "slot {slot} at {at:?} of {size} bytes");
    let region = kvm_userspace_memory_region {
        slot,
        flags,
        guest_phys_addr: gpa,
        memory_size: size,
        userspace_addr: memory.host_base() as u64 + at.0,
    };
    // SAFETY: the range is inside the guest memory's mapping (asserted above), which the complex
    // holds alive longer than the VM, and which nobody refers to by Rust references.
    unsafe { vm.set_user_memory_region(region) }.map_err(io::Error::from)
}

/// Loads an XSAVE image of at most 4 KiB.
pub(crate) fn set_xsave(vcpu: &VcpuFd, xsave: &kvm_xsave) -> io::Result<()> {
    // SAFETY: no process of ours asks for dynamic XSAVE components (arch_prctl), so the kernel
    // reads only the 4 KiB that `kvm_xsave` has.
    unsafe { vcpu.set_xsave(xsave) }.map_err(io::Error::from)
}

/// The signal mask while in guest mode; `None` for the thread's own.
pub(crate) fn set_signal_mask(vcpu: &VcpuFd, set: Option<&libc::sigset_t>) -> io::Result<()> {
    /// The kernel's form, with the set it knows: 64 signals.
    #[repr(C)]
    struct Mask {
        len: u32,
        set: [u8; 8],
    }
    let mask = set.map(|set| Mask {
        len: 8,
        // SAFETY: the C library's set begins with the kernel's, and is larger.
        set: unsafe { (&raw const *set).cast::<[u8; 8]>().read() },
    });
    let at = mask.as_ref().map_or(ptr::null(), |mask| &raw const *mask);
    // SAFETY: the kernel reads four bytes, then the eight that `len` says; or nothing.
    result(unsafe { ioctl_with_ptr(vcpu, KVM_SET_SIGNAL_MASK(), at) }).map(drop)
}

/// The same eventfd, in the type `kvm-ioctls` wants.
pub(crate) fn event_of(fd: BorrowedFd<'_>) -> io::Result<EventFd> {
    let owned = fd.try_clone_to_owned()?.into_raw_fd();
    // SAFETY: `owned` is ours alone and open.
    Ok(unsafe { EventFd::from_raw_fd(owned) })
}

/// A second mapping of a vCPU's run page, for those who do not own the vCPU.
///
/// The owner's thread uses the one in `VcpuFd`; this one is read and written only in single
/// volatile or atomic accesses, as the kernel may at any time.
pub(crate) struct RunPage(NonNull<kvm_run>);

// SAFETY: all accesses are atomic or volatile, single and of plain integers.
unsafe impl Send for RunPage {}
// SAFETY: as above.
unsafe impl Sync for RunPage {}

impl RunPage {
    const SIZE: usize = 4096;

    /// Maps it.
    pub(crate) fn map(vcpu: &VcpuFd) -> io::Result<Self> {
        const { assert!(size_of::<kvm_run>() <= Self::SIZE) };
        let fd: RawFd = vcpu.as_raw_fd();
        // SAFETY: a new shared mapping at an address of the kernel's choice. A vCPU's mapping is
        // at least one page, the run page being the first.
        let at = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(ptr::null_mut(), Self::SIZE, access, libc::MAP_SHARED, fd, 0)
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(at.cast()).map(Self).ok_or_else(|| io::Error::other("mapped at zero"))
    }

    fn byte(&self, offset: usize) -> &AtomicU8 {
        // SAFETY: callers name bytes of `kvm_run`, all inside the mapping, which lives as long
        // as `self`.
        unsafe { AtomicU8::from_ptr(self.0.as_ptr().cast::<u8>().add(offset)) }
    }

    /// The next (or this) entry returns at once, when set.
    pub(crate) fn set_immediate_exit(&self, on: bool) {
        self.byte(offset_of!(kvm_run, immediate_exit)).store(u8::from(on), Ordering::SeqCst);
    }

    /// The next entry returns as soon as the guest takes interrupts, when set.
    pub(crate) fn set_window_request(&self, on: bool) {
        self.byte(offset_of!(kvm_run, request_interrupt_window))
            .store(u8::from(on), Ordering::Relaxed);
    }

    /// At its last exit the guest took interrupts from the PIC.
    pub(crate) fn takes_interrupts(&self) -> bool {
        self.byte(offset_of!(kvm_run, ready_for_interrupt_injection)).load(Ordering::Relaxed) != 0
    }

    /// Bytes of one access of the port exit that just happened.
    pub(crate) fn port_access_size(&self) -> usize {
        // SAFETY: inside the mapping; any bytes are a valid `io`, which is plain integers.
        unsafe { (&raw const (*self.0.as_ptr()).__bindgen_anon_1.io.size).read_volatile() }.into()
    }

    /// What the internal error that just happened says of itself: kind, and the bytes of the
    /// instruction where the kernel has them.
    pub(crate) fn internal_error(&self) -> (u32, Vec<u8>) {
        // SAFETY: inside the mapping; any bytes are a valid `emulation_failure`, which is plain
        // integers.
        let failure = unsafe {
            (&raw const (*self.0.as_ptr()).__bindgen_anon_1.emulation_failure).read_volatile()
        };
        // SAFETY: the union has one member, of plain bytes.
        let text = unsafe { failure.__bindgen_anon_1.__bindgen_anon_1 };
        let known = failure.suberror == kvm_bindings::KVM_INTERNAL_ERROR_EMULATION
            && failure.ndata >= 3
            && failure.flags & 1 != 0; // KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES
        let size = if known { usize::from(text.insn_size).min(15) } else { 0 };
        (failure.suberror, text.insn_bytes[..size].to_vec())
    }
}

impl Drop for RunPage {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and nobody borrows from it any more.
        let unmapped = unsafe { libc::munmap(self.0.as_ptr().cast(), Self::SIZE) };
        debug_assert_eq!(unmapped, 0);
    }
}
