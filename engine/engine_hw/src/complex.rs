//! What the vCPUs of one VM share.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use engine::{Bus, CpuComplex, EngineError, IndexRegister, IoApicRoutes, KernelPaths, Parts};
use guest_memory::{DirtyBitmap, FlatView, GuestMemory};
use kvm_bindings::kvm_msi;
use kvm_ioctls::{IoEventAddress, NoDatamatch, VcpuFd, VmFd};
use x86_state::{CpuProfile, Msi, VcpuId};

use crate::gate::Gate;
use crate::held_back::{HeldBack, zone};
use crate::host_error;
use crate::kick::Kicker;
use crate::raw;
use crate::routes::Routing;
use crate::slots::Slots;
use crate::time::TscClock;

/// *Locks*: `slots` before those of the gate; `routing` is a leaf.
pub(crate) struct Complex {
    pub(crate) vm: VmFd,
    pub(crate) profile: CpuProfile,
    pub(crate) gate: Gate,
    pub(crate) tsc: TscClock,
    /// The PIC's output pin.
    intr: AtomicBool,
    kickers: OnceLock<Box<[Arc<Kicker>]>>,
    held_back: OnceLock<HeldBack>,
    slots: Mutex<Slots>,
    routing: Mutex<Routing>,
    /// The slots point into it: it goes after `vm`.
    _memory: Arc<GuestMemory>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Complex {
    /// Around a VM that has no vCPUs yet.
    pub(crate) fn new(vm: VmFd, profile: &CpuProfile, parts: &Parts) -> Self {
        Self {
            vm,
            profile: profile.clone(),
            gate: Gate::new(profile.topology().cores as usize),
            tsc: TscClock::new(parts.clock.clone(), profile.tsc_khz()),
            intr: AtomicBool::new(false),
            kickers: OnceLock::new(),
            held_back: OnceLock::new(),
            slots: Mutex::new(Slots::new(parts.memory.clone())),
            routing: Mutex::default(),
            _memory: parts.memory.clone(),
        }
    }

    /// These are all the vCPUs there will be.
    pub(crate) fn set_kickers(&self, kickers: Box<[Arc<Kicker>]>) {
        assert!(self.kickers.set(kickers).is_ok(), "the vCPUs are set twice");
    }

    /// This is one of the vCPUs: the ring of writes the kernel holds back is reached through it.
    pub(crate) fn map_held_back(&self, vcpu: &VcpuFd) -> io::Result<()> {
        let mapped = self.held_back.set(HeldBack::map(vcpu)?);
        assert!(mapped.is_ok(), "the ring is mapped twice");
        Ok(())
    }

    /// Takes the writes that the kernel has held back to the bus.
    pub(crate) fn take_held_back(&self, bus: &dyn Bus) {
        if let Some(held_back) = self.held_back.get() {
            held_back.take_to(bus);
        }
    }

    /// The PIC's output pin.
    pub(crate) fn intr(&self) -> bool {
        self.intr.load(SeqCst)
    }

    fn poke_all(&self) {
        for kicker in self.kickers.get().into_iter().flatten() {
            kicker.poke();
        }
    }
}

impl CpuComplex for Complex {
    fn set_memory(&self, view: &FlatView) -> Result<(), EngineError> {
        let mut slots = lock(&self.slots);
        let difference = slots.difference(view);
        let removes = difference.removes();
        let apply = || slots.apply(&self.vm, difference);
        let done = if removes { self.gate.closed(|| self.poke_all(), apply) } else { apply() };
        done.map_err(host_error("map the guest's memory"))
    }

    fn set_dirty_log(&self, on: bool) -> Result<(), EngineError> {
        let done = lock(&self.slots).set_logging(&self.vm, on);
        done.map_err(host_error("log the guest's writes"))
    }

    fn harvest_dirty(&self, into: &DirtyBitmap) -> Result<(), EngineError> {
        let done = lock(&self.slots).harvest(&self.vm, into);
        done.map_err(host_error("read the log of the guest's writes"))
    }

    fn send_msi(&self, msi: Msi) {
        let message = kvm_msi {
            address_lo: msi.address as u32,
            address_hi: (msi.address >> 32) as u32,
            data: msi.data,
            ..Default::default()
        };
        // Fails where no APIC is addressed, or its vector is none: the guest's mistake, and as on
        // a real bus nobody answers.
        let _ = self.vm.signal_msi(message);
    }

    fn set_intr(&self, level: bool) {
        if self.intr.swap(level, SeqCst) != level && level {
            self.poke_all();
        }
    }

    fn set_ioapic_routes(&self, routes: &IoApicRoutes) -> Result<(), EngineError> {
        let done = lock(&self.routing).set_inputs(&self.vm, routes);
        done.map_err(host_error("route the IOAPIC's interrupts"))
    }

    fn kick(&self, vcpu: VcpuId) {
        let kickers = self.kickers.get().map_or(&[][..], |k| k);
        assert!((vcpu.0 as usize) < kickers.len(), "there is no {vcpu:?}");
        kickers[vcpu.0 as usize].kick();
    }

    fn kernel_paths(&self) -> Option<&dyn KernelPaths> {
        Some(self)
    }
}

impl KernelPaths for Complex {
    fn hold_back(&self, register: IndexRegister) -> Result<(), EngineError> {
        let (at, size) = zone(register);
        let done = self.vm.register_coalesced_mmio(at, size);
        done.map_err(host_error("hold back writes"))
    }

    fn release(&self, register: IndexRegister) {
        let (at, size) = zone(register);
        // Fails where it was not held back: then it is released.
        let _ = self.vm.unregister_coalesced_mmio(at, size);
    }

    fn attach_doorbell(&self, gpa: u64, event: BorrowedFd<'_>) -> Result<(), EngineError> {
        let attach = || -> io::Result<()> {
            let event = raw::event_of(event)?;
            Ok(self.vm.register_ioevent(&event, &IoEventAddress::Mmio(gpa), NoDatamatch)?)
        };
        attach().map_err(host_error("attach a doorbell"))
    }

    fn detach_doorbell(&self, gpa: u64, event: BorrowedFd<'_>) {
        if let Ok(event) = raw::event_of(event) {
            // Fails where it was not attached: then it is detached.
            let _ = self.vm.unregister_ioevent(&event, &IoEventAddress::Mmio(gpa), NoDatamatch);
        }
    }

    fn attach_interrupt(&self, event: BorrowedFd<'_>, msi: Msi) -> Result<(), EngineError> {
        let done = lock(&self.routing).attach(&self.vm, event, msi);
        done.map_err(host_error("attach an interrupt"))
    }

    fn detach_interrupt(&self, event: BorrowedFd<'_>) {
        // Fails where the kernel does not know it: then it is detached.
        let _ = lock(&self.routing).detach(&self.vm, event);
    }
}
