//! One vCPU on its thread: all but the loop, which is the engine's.

use std::sync::Arc;
use std::time::Duration;

use engine::{Bus, DebugStop, DebugStops, EngineError, Exit};
use x86_exec::{Cpu, RunExit, TripleFault};
use x86_state::bits::{Cr0, Rflags};
use x86_state::{Activity, InterruptShadow, SegReg, Segment, VcpuId, VcpuState};

use crate::{Complex, Mailbox, Slot, SoftEnv};

/// One vCPU.
pub struct SoftVcpu {
    /// Its registers, and what executes instructions.
    pub cpu: Cpu<SoftEnv>,
    /// What it shares with the others.
    pub complex: Arc<Complex>,
    id: VcpuId,
    nmi_pending: bool,
    sipi_pending: Option<u8>,
    stops: Option<DebugStops>,
}

/// What the engine's loop does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Execute instructions, until there is mail, [`SoftEnv::event_waiting`] has become
    /// deliverable, or it is time to look at the local APIC's timer.
    Execute,
    /// Sleep: [`SoftVcpu::sleep`].
    Sleep,
    /// Return from `run`.
    Return(Exit),
}

impl SoftVcpu {
    /// As after power-up.
    ///
    /// # Errors
    /// When the profile's reset state cannot be loaded.
    pub fn new(complex: &Arc<Complex>, id: VcpuId) -> Result<Self, EngineError> {
        let mut vcpu = Self {
            cpu: Cpu::new(SoftEnv::new(complex, id)),
            complex: complex.clone(),
            id,
            nmi_pending: false,
            sipi_pending: None,
            stops: None,
        };
        vcpu.load(&VcpuState::at_reset(&complex.profile, id))?;
        Ok(vcpu)
    }

    /// Its place in [`Complex::slots`].
    pub fn index(&self) -> usize {
        self.id.0 as usize
    }

    /// How the others see it.
    pub fn slot(&self) -> &Slot {
        &self.complex.slots[self.index()]
    }

    /// Reads the mail, and begins the delivery of what can be delivered.
    pub fn prepare(&mut self) -> Next {
        if self.slot().mail.take(Mailbox::STAND_STILL) != 0 {
            self.complex.standstill.leave();
            self.complex.standstill.enter();
        }
        self.read_mail();
        if self.slot().mail.take(Mailbox::KICK) != 0 {
            return Next::Return(Exit::Kicked);
        }
        self.start_up();
        if self.cpu.activity == Activity::WaitForSipi {
            return Next::Sleep;
        }
        if self.deliver().is_err() {
            return Next::Return(Exit::TripleFault);
        }
        match self.cpu.activity {
            Activity::Running => Next::Execute,
            Activity::Halted | Activity::WaitForSipi => Next::Sleep,
        }
    }

    /// All mail that is about the CPU becomes state.
    pub fn read_mail(&mut self) {
        let mail = self.slot().mail.take(!(Mailbox::KICK | Mailbox::STAND_STILL));
        if mail & Mailbox::MEMORY != 0 {
            self.cpu.env.refresh_view();
            self.cpu.flush_derived();
        }
        if mail & Mailbox::INIT != 0 {
            self.init();
        }
        if mail & Mailbox::START_UP != 0 && self.cpu.activity == Activity::WaitForSipi {
            self.sipi_pending = Some(self.slot().mail.start_up_vector());
        }
        self.nmi_pending |= mail & Mailbox::NMI != 0;
    }

    /// INIT (SDM vol. 3A, table 10-1): as reset, but for what survives it.
    fn init(&mut self) {
        let mut old = VcpuState::at_reset(&self.complex.profile, self.id);
        let mut state = old.clone();
        self.cpu.save_state(&mut old);
        self.slot().lapic().init();
        let cache = (Cr0::CD | Cr0::NW).bits();
        state.cr0 = state.cr0 & !cache | old.cr0 & cache;
        state.xsave = old.xsave;
        state.msrs = old.msrs;
        self.cpu.load_state(&state);
        self.nmi_pending = false;
        self.sipi_pending = None;
    }

    fn start_up(&mut self) {
        if let Some(vector) = self.sipi_pending.take() {
            let selector = u16::from(vector) << 8;
            self.cpu.segments[SegReg::Cs as usize] =
                Segment { attr: 0x9b, ..Segment::real(selector) };
            self.cpu.rip = 0;
            self.cpu.activity = Activity::Running;
            self.cpu.flush_derived();
        }
    }

    /// Delivers the most urgent event that the CPU takes now, and notes whether others wait.
    ///
    /// # Errors
    /// When it cannot be delivered.
    pub fn deliver(&mut self) -> Result<(), TripleFault> {
        let now = self.cpu.env.now();
        let open = self.cpu.shadow == InterruptShadow::None;
        if self.nmi_pending && !self.cpu.nmi_masked && open {
            self.nmi_pending = false;
            return self.begin(|cpu| cpu.deliver_nmi());
        }
        let enabled = open && self.cpu.system_flags & Rflags::IF.bits() != 0;
        let intr = self.complex.intr();
        let (vector, ext_int, more) = {
            let mut lapic = self.slot().lapic();
            lapic.tick(now);
            let vector = if enabled { lapic.acknowledge() } else { None };
            (vector, intr && lapic.takes_ext_int(), lapic.pending().is_some())
        };
        self.cpu.env.event_waiting = more || ext_int || self.nmi_pending;
        match vector {
            Some(vector) => self.begin(|cpu| cpu.deliver_interrupt(vector)),
            None if enabled && ext_int => {
                let vector = self.cpu.env.bus.as_ref().and_then(|bus| bus.ack_intr());
                vector.map_or(Ok(()), |v| self.begin(|cpu| cpu.deliver_interrupt(v)))
            }
            None => Ok(()),
        }
    }

    fn begin(
        &mut self,
        event: impl FnOnce(&mut Cpu<SoftEnv>) -> Result<(), TripleFault>,
    ) -> Result<(), TripleFault> {
        self.cpu.activity = Activity::Running;
        // What else waits is seen once the handler is entered: it begins with a fresh look.
        event(&mut self.cpu)
    }

    /// Interprets `budget` instructions, or one where a debugger looks on; less when an event or
    /// mail ends it. Gives what `run` is to return for.
    pub fn execute(&mut self, budget: u64) -> Option<Exit> {
        if self.stops.is_some() {
            return self.execute_debugged();
        }
        let exit = self.cpu.run(budget);
        self.cpu.env.retired = self.cpu.retired;
        (exit == RunExit::TripleFault).then_some(Exit::TripleFault)
    }

    /// Interprets one instruction, whatever waits. Gives what `run` is to return for.
    pub fn execute_one(&mut self) -> Option<Exit> {
        if self.stops.is_some() {
            return self.execute_debugged();
        }
        let exit = self.cpu.run_one();
        self.cpu.env.retired = self.cpu.retired;
        (exit == RunExit::TripleFault).then_some(Exit::TripleFault)
    }

    /// One instruction, then a look at the stops.
    fn execute_debugged(&mut self) -> Option<Exit> {
        let exit = self.cpu.run(1);
        self.cpu.env.retired = self.cpu.retired;
        let rip = self.cpu.linear_rip();
        let stops = self.stops.as_ref()?;
        if exit == RunExit::TripleFault {
            Some(Exit::TripleFault)
        } else if stops.breakpoints.contains(&rip) {
            Some(Exit::Debug(DebugStop::Breakpoint(rip)))
        } else {
            stops.step.then_some(Exit::Debug(DebugStop::Step))
        }
    }

    /// Until mail comes or the APIC's timer is due.
    pub fn sleep(&self) {
        let deadline = self.slot().lapic().next_deadline_ns();
        let limit = deadline.map(|d| d.saturating_sub(self.cpu.env.now().ns));
        self.complex.standstill.leave();
        self.slot().mail.sleep(limit.map(Duration::from_nanos));
        self.complex.standstill.enter();
    }

    /// `run` begins on this thread. What a loaded state had begun comes before its first
    /// instruction. To be ended by [`SoftVcpu::leave`], also when it fails.
    ///
    /// # Errors
    /// When that cannot be delivered.
    pub fn enter(&mut self, bus: &Arc<dyn Bus>) -> Result<(), TripleFault> {
        self.slot().mail.adopt_thread();
        self.cpu.env.bus = Some(bus.clone());
        self.complex.standstill.enter();
        self.cpu.deliver_pending()
    }

    /// `run` ends.
    pub fn leave(&mut self) {
        self.complex.standstill.leave();
        self.cpu.env.bus = None;
    }

    /// The state, canonical. All mail but kicks is in it.
    pub fn save(&mut self) -> VcpuState {
        self.read_mail();
        let mut state = VcpuState::at_reset(&self.complex.profile, self.id);
        self.cpu.save_state(&mut state);
        state.apic = self.slot().lapic().save(self.cpu.env.now());
        state.tsc_offset = self.cpu.env.time.tsc_offset;
        state.nmi_pending = self.nmi_pending;
        state.sipi_pending = self.sipi_pending;
        state
    }

    /// Takes over this state.
    ///
    /// # Errors
    /// When the local APIC's is not one.
    pub fn load(&mut self, state: &VcpuState) -> Result<(), EngineError> {
        self.cpu.env.refresh_view();
        self.cpu.load_state(state);
        self.cpu.flush_derived();
        self.cpu.env.time.tsc_offset = state.tsc_offset;
        let now = self.cpu.env.now();
        self.slot()
            .lapic()
            .load(&state.apic, now)
            .map_err(|e| EngineError::State(e.to_string()))?;
        self.nmi_pending = state.nmi_pending;
        self.sipi_pending = state.sipi_pending;
        self.slot().mail.post(Mailbox::INTERRUPT);
        Ok(())
    }

    /// Where to stop for a debugger; `None` for nowhere.
    pub fn set_debug(&mut self, stops: Option<&DebugStops>) {
        self.stops = stops.cloned();
    }

    /// A debugger looks on: only [`SoftVcpu::execute`] may execute.
    pub fn is_debugged(&self) -> bool {
        self.stops.is_some()
    }
}
