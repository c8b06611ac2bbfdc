//! What is around a CPU in software: guest memory, the board's bus, its APIC, time.

use std::sync::Arc;

use engine::Bus;
use guest_memory::{Backing as ViewBacking, FlatView, GuestMemory, PAGE_SHIFT, RamOffset};
use x86_exec::{Backing, Env, HostAddr};
use x86_lapic::{Effect, Lapic, Now};
use x86_state::{CpuFeatures, VcpuId, msr};

use crate::{Complex, Mailbox, Time};

/// Around one CPU.
pub struct SoftEnv {
    /// What it shares with the others.
    pub complex: Arc<Complex>,
    /// Whose this is.
    pub id: VcpuId,
    /// This CPU's, at hand: it is looked at once a block.
    mail: Arc<Mailbox>,
    memory: Arc<GuestMemory>,
    view: Arc<FlatView>,
    /// The board's. There while `run` runs.
    pub bus: Option<Arc<dyn Bus>>,
    /// Clock and TSC.
    pub time: Time,
    /// An event waits for the CPU to be interruptible.
    pub event_waiting: bool,
    /// The CPU has reached its local APIC: when its timer is due may have changed. Cleared by
    /// whoever has looked.
    pub apic_used: bool,
    random: Random,
    /// Retired instructions, as far as [`SoftEnv::now`] knows: kept by whoever executes.
    pub retired: u64,
}

impl SoftEnv {
    /// Around this CPU of the complex.
    pub fn new(complex: &Arc<Complex>, id: VcpuId) -> Self {
        let time = Time::new(complex.clock.clone(), complex.profile.tsc_khz());
        Self {
            complex: complex.clone(),
            id,
            mail: complex.slots[id.0 as usize].mail.clone(),
            memory: complex.memory.clone(),
            view: complex.view(),
            bus: None,
            time,
            event_waiting: false,
            apic_used: false,
            random: Random::new(),
            retired: 0,
        }
    }

    /// Takes the complex's current memory view. The caller drops what was derived from the old.
    pub fn refresh_view(&mut self) {
        self.view = self.complex.view();
    }

    /// The time, for the local APIC.
    pub fn now(&self) -> Now {
        self.time.now(self.retired)
    }

    fn index(&self) -> usize {
        self.id.0 as usize
    }

    /// Calls the local APIC, and does what it asks for.
    fn with_apic<R>(&mut self, access: impl FnOnce(&mut Lapic, Now) -> (R, Effect)) -> R {
        let now = self.now();
        self.apic_used = true;
        let slot = &self.complex.slots[self.index()];
        let (result, effect, pending) = {
            let mut lapic = slot.lapic();
            let (result, effect) = access(&mut lapic, now);
            (result, effect, lapic.pending().is_some())
        };
        if pending {
            slot.mail.post(Mailbox::INTERRUPT);
        }
        match effect {
            Effect::None => {}
            Effect::Send(ipi) => self.complex.deliver(ipi, Some(self.index())),
            Effect::Eoi(vector) => {
                if let Some(bus) = &self.bus {
                    bus.eoi(vector);
                }
            }
        }
        result
    }

    fn apic_page(&self, gpa: u64) -> bool {
        // One compare for nearly every access: the page is where it is after reset, or unused.
        let slot = &self.complex.slots[self.index()];
        slot.lapic().mmio_page() == Some(gpa & !0xfff)
    }
}

const fn ram(at: HostAddr) -> RamOffset {
    RamOffset(at.0)
}

impl Env for SoftEnv {
    fn backing(&self, gpa: u64) -> Backing {
        if self.apic_page(gpa) {
            return Backing::Bus;
        }
        match self.view.lookup(gpa) {
            Some((at, ViewBacking::Ram)) => Backing::Ram(HostAddr(at.0)),
            Some((at, ViewBacking::Rom)) => Backing::Rom(HostAddr(at.0)),
            None => Backing::Bus,
        }
    }

    #[inline(always)]
    fn load8(&self, at: HostAddr) -> u8 {
        self.memory.load(ram(at))
    }
    #[inline(always)]
    fn load16(&self, at: HostAddr) -> u16 {
        self.memory.load(ram(at))
    }
    #[inline(always)]
    fn load32(&self, at: HostAddr) -> u32 {
        self.memory.load(ram(at))
    }
    #[inline(always)]
    fn load64(&self, at: HostAddr) -> u64 {
        self.memory.load(ram(at))
    }
    #[inline(always)]
    fn store8(&self, at: HostAddr, value: u8) {
        self.memory.store(ram(at), value);
    }
    #[inline(always)]
    fn store16(&self, at: HostAddr, value: u16) {
        self.memory.store(ram(at), value);
    }
    #[inline(always)]
    fn store32(&self, at: HostAddr, value: u32) {
        self.memory.store(ram(at), value);
    }
    #[inline(always)]
    fn store64(&self, at: HostAddr, value: u64) {
        self.memory.store(ram(at), value);
    }
    fn cmpxchg8(&self, at: HostAddr, old: u8, new: u8) -> u8 {
        self.memory.compare_exchange(ram(at), old, new)
    }
    fn cmpxchg16(&self, at: HostAddr, old: u16, new: u16) -> u16 {
        self.memory.compare_exchange(ram(at), old, new)
    }
    fn cmpxchg32(&self, at: HostAddr, old: u32, new: u32) -> u32 {
        self.memory.compare_exchange(ram(at), old, new)
    }
    fn cmpxchg64(&self, at: HostAddr, old: u64, new: u64) -> u64 {
        self.memory.compare_exchange(ram(at), old, new)
    }
    fn cmpxchg128(&self, at: HostAddr, old: u128, new: u128) -> u128 {
        self.memory.compare_exchange_16b(ram(at), old, new)
    }
    fn read(&self, at: HostAddr, data: &mut [u8]) {
        self.memory.read(ram(at), data);
    }
    fn write(&self, at: HostAddr, data: &[u8]) -> bool {
        let generation = self.code_generation(at);
        self.memory.write(ram(at), data);
        self.code_generation(at) != generation
    }
    #[inline(always)]
    fn watched(&self, at: HostAddr) -> bool {
        self.memory.bits().watched(ram(at))
    }
    fn mark_written(&self, at: HostAddr, size: usize) -> bool {
        self.memory.bits().mark_written(ram(at), size)
    }
    fn mark_code(&self, at: HostAddr, size: usize) {
        let first = at.0 & ((1 << PAGE_SHIFT) - 1);
        let last = first + (size as u64).saturating_sub(1);
        self.memory.bits().mark_code(ram(at).page(), first, last);
    }
    #[inline(always)]
    fn code_generation(&self, at: HostAddr) -> u32 {
        self.memory.bits().code_generation(ram(at).page())
    }

    fn stop_others(&mut self) {
        // By a counted clock vCPUs run in turn.
        if self.time.is_counted() {
            return;
        }
        let (complex, own) = (&self.complex, self.index());
        complex.standstill.begin(|| {
            let others = complex.slots.iter().enumerate().filter(|(index, _)| *index != own);
            others.for_each(|(_, slot)| slot.mail.post(Mailbox::STAND_STILL));
        });
    }
    fn let_others_go(&mut self) {
        if !self.time.is_counted() {
            self.complex.standstill.end();
        }
    }

    fn mmio_read(&mut self, gpa: u64, data: &mut [u8]) {
        if self.apic_page(gpa) {
            self.with_apic(|apic, now| (apic.read_mmio(gpa & 0xfff, data, now), Effect::None));
        } else if let Some(bus) = &self.bus {
            bus.mmio_read(gpa, data);
        }
    }
    fn mmio_write(&mut self, gpa: u64, data: &[u8]) {
        if self.apic_page(gpa) {
            self.with_apic(|apic, now| ((), apic.write_mmio(gpa & 0xfff, data, now)));
        } else if let Some(bus) = &self.bus {
            bus.mmio_write(gpa, data);
        }
    }
    fn pio_read(&mut self, port: u16, data: &mut [u8]) {
        if let Some(bus) = &self.bus {
            bus.pio_read(port, data);
        }
    }
    fn pio_write(&mut self, port: u16, data: &[u8]) {
        if let Some(bus) = &self.bus {
            bus.pio_write(port, data);
        }
    }

    fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        self.complex.profile.cpuid(leaf, subleaf, self.id)
    }
    fn features(&self) -> CpuFeatures {
        self.complex.profile.features()
    }
    fn allows_msr(&self, number: u32) -> bool {
        self.complex.profile.allows_msr(number)
    }
    fn cr4_mask(&self) -> u64 {
        self.complex.profile.cr4_mask()
    }
    fn efer_mask(&self) -> u64 {
        self.complex.profile.efer_mask()
    }
    fn xcr0_mask(&self) -> u64 {
        self.complex.profile.xcr0_mask()
    }
    fn physical_bits(&self) -> u8 {
        self.complex.profile.physical_bits()
    }
    fn arch_capabilities(&self) -> u64 {
        self.complex.profile.arch_capabilities()
    }
    fn random(&mut self, retired: u64) -> Option<u64> {
        if self.time.is_counted() {
            return Some(number_at(self.time.now_ns(retired), self.id));
        }
        self.random.next()
    }

    fn tsc(&mut self, retired: u64) -> u64 {
        self.time.tsc(retired)
    }
    fn set_tsc(&mut self, value: u64, retired: u64) {
        self.time.set_tsc(value, retired);
    }

    fn apic_read_msr(&mut self, number: u32) -> Option<u64> {
        self.with_apic(|apic, now| (apic.read_msr(number, now), Effect::None))
    }
    fn apic_write_msr(&mut self, number: u32, value: u64) -> Option<()> {
        let bits = self.physical_bits();
        let written = self.with_apic(|apic, now| match apic.write_msr(number, value, bits, now) {
            Some(effect) => (Some(()), effect),
            None => (None, Effect::None),
        });
        if number == msr::IA32_APIC_BASE && written.is_some() {
            // The register page may have moved: what was derived from its place is dropped.
            self.complex.slots[self.index()].mail.post(Mailbox::MEMORY);
        }
        written
    }
    fn cr8(&self) -> u8 {
        self.complex.slots[self.index()].lapic().cr8()
    }
    fn set_cr8(&mut self, value: u8) {
        self.with_apic(|apic, _| (apic.set_cr8(value), Effect::None));
    }

    #[inline(always)]
    fn attention(&self) -> bool {
        self.mail.any()
    }
    #[inline(always)]
    fn event_waiting(&self) -> bool {
        self.event_waiting
    }
}

/// RDRAND of runs that are to be identical, saved and restored or not: a CPU executes one
/// instruction a nanosecond, so the time is all there is to know. The mixing is SplitMix64's.
fn number_at(ns: u64, id: VcpuId) -> u64 {
    let z = (ns << 5 | u64::from(id.0)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// RDRAND: the host kernel's numbers, some at a time.
struct Random {
    pool: Box<[u8; 256]>,
    used: usize,
}

impl Random {
    fn new() -> Self {
        Self { pool: Box::new([0; 256]), used: 256 }
    }

    fn next(&mut self) -> Option<u64> {
        let Self { pool, used } = self;
        if *used + 8 > pool.len() {
            let flags = rustix::rand::GetRandomFlags::empty();
            rustix::rand::getrandom(&mut pool[..], flags).ok().filter(|n| *n == 256)?;
            *used = 0;
        }
        let bytes = pool[*used..*used + 8].try_into().ok()?;
        *used += 8;
        Some(u64::from_le_bytes(bytes))
    }
}
