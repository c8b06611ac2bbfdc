//! What the vCPUs share: memory view, local APICs, mailboxes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use engine::{CpuComplex, EngineError, IoApicRoutes, Parts};
use guest_memory::{DirtyBitmap, FlatView, GuestMemory};
use machine_clock::MachineClock;
use x86_lapic::{Accepted, Ipi, Lapic, Shorthand};
use x86_state::{CpuProfile, DeliveryMode, Msi, VcpuId};

use crate::Mailbox;
use crate::standstill::Standstill;

/// One vCPU, as the others see it.
pub struct Slot {
    lapic: Mutex<Lapic>,
    /// What others want of it.
    pub mail: Arc<Mailbox>,
}

impl Slot {
    /// Its local APIC, locked.
    pub fn lapic(&self) -> MutexGuard<'_, Lapic> {
        self.lapic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(&self, mode: DeliveryMode, vector: u8, level: bool) {
        let accepted = self.lapic().accept(mode, vector, level);
        self.act(accepted);
    }

    fn act(&self, accepted: Accepted) {
        match accepted {
            Accepted::Nothing => {}
            Accepted::Pending => self.mail.post(Mailbox::INTERRUPT),
            Accepted::Nmi => self.mail.post(Mailbox::NMI),
            Accepted::Init => self.mail.post(Mailbox::INIT),
            Accepted::StartUp(vector) => self.mail.post_start_up(vector),
        }
    }
}

/// Inside the socket. An engine plugs it in as it is, or in a complex of its own that delegates.
pub struct Complex {
    /// What the CPUs are.
    pub profile: CpuProfile,
    /// The VM's memory.
    pub memory: Arc<GuestMemory>,
    /// The VM's time.
    pub clock: Arc<MachineClock>,
    /// By vCPU ID.
    pub slots: Vec<Slot>,
    pub(crate) standstill: Standstill,
    view: RwLock<Arc<FlatView>>,
    intr: AtomicBool,
}

impl Complex {
    /// With the local APICs as after power-up, and an empty memory view.
    pub fn new(profile: &CpuProfile, parts: &Parts) -> Arc<Self> {
        let cores = profile.topology().cores;
        let slots = (0..cores)
            .map(|id| Slot { lapic: Mutex::new(Lapic::new(id, id == 0)), mail: Arc::default() });
        Arc::new(Self {
            profile: profile.clone(),
            memory: parts.memory.clone(),
            clock: parts.clock.clone(),
            slots: slots.collect(),
            standstill: Standstill::default(),
            view: RwLock::default(),
            intr: AtomicBool::new(false),
        })
    }

    /// The memory view that was set last.
    pub fn view(&self) -> Arc<FlatView> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The PIC's pin is high.
    pub fn intr(&self) -> bool {
        self.intr.load(Ordering::Acquire)
    }

    /// Delivers an interrupt message to whom it addresses; `sender` is by index.
    pub fn deliver(&self, ipi: Ipi, sender: Option<usize>) {
        let wanted = |index: &usize| match ipi.shorthand {
            Shorthand::None => self.slots[*index].lapic().is_addressed_by(ipi.destination),
            Shorthand::Own => sender == Some(*index),
            Shorthand::All => true,
            Shorthand::Others => sender != Some(*index),
        };
        let targets = (0..self.slots.len()).filter(wanted);
        if ipi.mode == DeliveryMode::LowestPriority {
            let least = targets.min_by_key(|index| self.slots[*index].lapic().ppr());
            if let Some(index) = least {
                self.slots[index].accept(ipi.mode, ipi.vector, ipi.level);
            }
        } else {
            for index in targets {
                self.slots[index].accept(ipi.mode, ipi.vector, ipi.level);
            }
        }
    }
}

impl CpuComplex for Complex {
    fn set_memory(&self, view: &FlatView) -> Result<(), EngineError> {
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(view.clone());
        for slot in &self.slots {
            slot.mail.post(Mailbox::MEMORY);
        }
        Ok(())
    }

    fn set_dirty_log(&self, _on: bool) -> Result<(), EngineError> {
        Ok(()) // every store looks at guest_memory's own bits
    }

    fn harvest_dirty(&self, _into: &DirtyBitmap) -> Result<(), EngineError> {
        Ok(()) // as above: nothing is known here alone
    }

    fn send_msi(&self, msi: Msi) {
        if let Some(ipi) = Ipi::from_msi(msi) {
            self.deliver(ipi, None);
        }
    }

    fn set_intr(&self, level: bool) {
        if self.intr.swap(level, Ordering::AcqRel) || !level {
            return;
        }
        for slot in &self.slots {
            let (ext_int, accepted) = {
                let mut lapic = slot.lapic();
                (lapic.takes_ext_int(), lapic.raise_lint0())
            };
            slot.act(if ext_int { Accepted::Pending } else { accepted });
        }
    }

    fn set_ioapic_routes(&self, _routes: &IoApicRoutes) -> Result<(), EngineError> {
        Ok(()) // the APIC's trigger-mode bits say whose EOI is to be reported
    }

    fn kick(&self, vcpu: VcpuId) {
        if let Some(slot) = self.slots.get(vcpu.0 as usize) {
            slot.mail.post(Mailbox::KICK);
        }
    }
}
