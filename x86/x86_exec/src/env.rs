//! What is around a CPU.

/// A byte of memory, as the environment names it. Bytes of one 4 KiB page are contiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct HostAddr(pub u64);

impl HostAddr {
    /// The byte this far up, on the same page.
    pub const fn plus(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}

/// What is at a guest-physical page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// Memory, from this address.
    Ram(HostAddr),
    /// Memory whose writes go to the bus.
    Rom(HostAddr),
    /// Nothing: every access goes to the bus.
    Bus,
}

/// What is around a CPU: memory, bus, APIC, clock, identity.
///
/// Memory words may be misaligned but do not cross a page. After each store the CPU asks
/// [`Env::watched`], and reports to [`Env::mark_written`] when it is.
pub trait Env {
    /// What is at the page of this guest-physical address (`gpa` is page-aligned).
    fn backing(&self, gpa: u64) -> Backing;
    /// Reads a byte.
    fn load8(&self, at: HostAddr) -> u8;
    /// Reads two bytes at once.
    fn load16(&self, at: HostAddr) -> u16;
    /// Reads four bytes at once.
    fn load32(&self, at: HostAddr) -> u32;
    /// Reads eight bytes at once.
    fn load64(&self, at: HostAddr) -> u64;
    /// Writes a byte.
    fn store8(&self, at: HostAddr, value: u8);
    /// Writes two bytes at once.
    fn store16(&self, at: HostAddr, value: u16);
    /// Writes four bytes at once.
    fn store32(&self, at: HostAddr, value: u32);
    /// Writes eight bytes at once.
    fn store64(&self, at: HostAddr, value: u64);
    /// LOCK CMPXCHG: returns what was there.
    fn cmpxchg8(&self, at: HostAddr, old: u8, new: u8) -> u8;
    /// LOCK CMPXCHG: returns what was there.
    fn cmpxchg16(&self, at: HostAddr, old: u16, new: u16) -> u16;
    /// LOCK CMPXCHG: returns what was there.
    fn cmpxchg32(&self, at: HostAddr, old: u32, new: u32) -> u32;
    /// LOCK CMPXCHG: returns what was there.
    fn cmpxchg64(&self, at: HostAddr, old: u64, new: u64) -> u64;
    /// LOCK CMPXCHG16B, aligned: returns what was there.
    fn cmpxchg128(&self, at: HostAddr, old: u128, new: u128) -> u128;
    /// Copies out of one page.
    fn read(&self, at: HostAddr, data: &mut [u8]);
    /// Copies into one page, and does what [`Env::mark_written`] does.
    fn write(&self, at: HostAddr, data: &[u8]) -> bool;
    /// Stores to this page must be reported. Asked after the store.
    fn watched(&self, at: HostAddr) -> bool;
    /// `size` bytes of one page were written. Returns true when decoded code was there.
    fn mark_written(&self, at: HostAddr, size: usize) -> bool;
    /// Bytes `at..at + size` of one page are about to be read, decoded and kept.
    fn mark_code(&self, at: HostAddr, size: usize);
    /// Changes when a byte given to [`Env::mark_code`] on this page is written.
    fn code_generation(&self, at: HostAddr) -> u32;

    /// No other CPU accesses memory until [`Env::let_others_go`]: a LOCKed access begins that no
    /// operation of the host does at once.
    fn stop_others(&mut self);
    /// Ends that.
    fn let_others_go(&mut self);

    /// A read of what is not memory.
    fn mmio_read(&mut self, gpa: u64, data: &mut [u8]);
    /// A write to what is not RAM.
    fn mmio_write(&mut self, gpa: u64, data: &[u8]);
    /// IN: `data` is 1, 2 or 4 bytes.
    fn pio_read(&mut self, port: u16, data: &mut [u8]);
    /// OUT: `data` is 1, 2 or 4 bytes.
    fn pio_write(&mut self, port: u16, data: &[u8]);

    /// CPUID without the bits that follow other registers.
    fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4];
    /// Features of the profile, of those that not every profile has.
    fn features(&self) -> x86_state::CpuFeatures;
    /// The profile lets the guest reach this MSR.
    fn allows_msr(&self, number: u32) -> bool;
    /// CR4 bits the profile has.
    fn cr4_mask(&self) -> u64;
    /// EFER bits the profile has.
    fn efer_mask(&self) -> u64;
    /// XCR0 bits the profile has.
    fn xcr0_mask(&self) -> u64;
    /// Width of physical addresses in bits.
    fn physical_bits(&self) -> u8;
    /// IA32_ARCH_CAPABILITIES.
    fn arch_capabilities(&self) -> u64;
    /// A random number, for RDRAND; `None` when there is none now. `retired` is as for [`Env::tsc`].
    fn random(&mut self, retired: u64) -> Option<u64>;

    /// The TSC, offset included. `retired` is the CPU's count of instructions, for environments
    /// whose time it drives.
    fn tsc(&mut self, retired: u64) -> u64;
    /// Sets the TSC.
    fn set_tsc(&mut self, value: u64, retired: u64);

    /// Reads an MSR of the local APIC: IA32_APIC_BASE, IA32_TSC_DEADLINE, x2APIC. `None`: #GP.
    fn apic_read_msr(&mut self, number: u32) -> Option<u64>;
    /// Writes one. `None`: #GP.
    fn apic_write_msr(&mut self, number: u32, value: u64) -> Option<()>;
    /// CR8.
    fn cr8(&self) -> u8;
    /// Sets CR8, 0 to 15.
    fn set_cr8(&mut self, value: u8);

    /// Someone wants the CPU's loop to return. Asked at every block.
    fn attention(&self) -> bool;
    /// An event waits until the CPU can take it. Asked at the end of an instruction that set
    /// [`crate::Cpu::check_events`]; the loop returns when it does.
    fn event_waiting(&self) -> bool;
}
