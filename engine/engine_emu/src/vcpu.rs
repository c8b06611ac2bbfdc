//! One vCPU on its thread: events in, instructions, time.

use std::sync::Arc;
use std::time::Duration;

use engine::{Bus, DebugStop, DebugStops, EngineError, Exit, Vcpu};
use x86_exec::{Cpu, RunExit, TripleFault};
use x86_state::bits::{Cr0, Rflags};
use x86_state::{Activity, InterruptShadow, SegReg, Segment, VcpuId, VcpuState};

use crate::complex::{Complex, Slot};
use crate::env::EmuEnv;
use crate::mailbox::{INIT, INTERRUPT, KICK, MEMORY, NMI, START_UP};

/// Instructions between two looks at the APIC's timer: well below a tenth of a millisecond.
const SLICE: u64 = 20_000;
/// Counted clock: instructions of one turn. Short, because spinning for another vCPU's turn is
/// lost time.
const TURN: u64 = 5_000;

/// One interpreted vCPU.
pub(crate) struct EmuVcpu {
    cpu: Cpu<EmuEnv>,
    complex: Arc<Complex>,
    id: VcpuId,
    nmi_pending: bool,
    sipi_pending: Option<u8>,
    stops: Option<DebugStops>,
}

/// What the loop does next.
enum Next {
    Execute,
    Sleep,
    Return(Exit),
}

impl EmuVcpu {
    pub(crate) fn new(complex: &Arc<Complex>, id: VcpuId) -> Result<Self, EngineError> {
        let mut vcpu = Self {
            cpu: Cpu::new(EmuEnv::new(complex, id)),
            complex: complex.clone(),
            id,
            nmi_pending: false,
            sipi_pending: None,
            stops: None,
        };
        vcpu.load(&VcpuState::at_reset(&complex.profile, id))?;
        Ok(vcpu)
    }

    fn index(&self) -> usize {
        self.id.0 as usize
    }

    fn slot(&self) -> &Slot {
        &self.complex.slots[self.index()]
    }

    fn run_host_clock(&mut self) -> Exit {
        loop {
            match self.prepare() {
                Next::Return(exit) => return exit,
                Next::Sleep => self.sleep(),
                Next::Execute => {
                    if let Some(exit) = self.execute(SLICE) {
                        return exit;
                    }
                }
            }
        }
    }

    fn run_counted_clock(&mut self) -> Exit {
        let complex = self.complex.clone();
        let (Some(turns), index) = (&complex.turns, self.index()) else {
            return self.run_host_clock();
        };
        loop {
            let mail = &complex.slots[index].mail;
            if !turns.wait(index, || mail.has(KICK)) && mail.take(KICK) != 0 {
                turns.leave(index);
                return Exit::Kicked;
            }
            let next = self.prepare();
            let exit = match next {
                Next::Return(exit) => Some(exit),
                Next::Execute => self.execute(TURN),
                Next::Sleep => {
                    let own = self.slot().lapic().next_deadline_ns();
                    if let Some(earliest) = turns.idle(index, own) {
                        let device = self.cpu.env.time.next_device_deadline_ns();
                        match earliest.into_iter().chain(device).min() {
                            Some(ns) => self.cpu.env.time.skip_to(ns),
                            None => turns.sleep(),
                        }
                        turns.everyone_looks(index);
                    }
                    continue;
                }
            };
            self.cpu.env.time.account(self.cpu.retired);
            match exit {
                Some(exit) => {
                    turns.leave(index);
                    return exit;
                }
                None => turns.pass(index),
            }
        }
    }

    /// Reads the mail, and begins the delivery of what can be delivered.
    fn prepare(&mut self) -> Next {
        self.read_mail();
        if self.slot().mail.take(KICK) != 0 {
            return Next::Return(Exit::Kicked);
        }
        self.start_up();
        if self.cpu.activity == Activity::WaitForSipi {
            return Next::Sleep;
        }
        if self.deliver() == Delivery::TripleFault {
            return Next::Return(Exit::TripleFault);
        }
        match self.cpu.activity {
            Activity::Running => Next::Execute,
            Activity::Halted | Activity::WaitForSipi => Next::Sleep,
        }
    }

    /// All mail but kicks becomes state.
    fn read_mail(&mut self) {
        let mail = self.slot().mail.take(!KICK);
        if mail & MEMORY != 0 {
            self.cpu.env.refresh_view();
            self.cpu.flush_derived();
        }
        if mail & INIT != 0 {
            self.init();
        }
        if mail & START_UP != 0 && self.cpu.activity == Activity::WaitForSipi {
            self.sipi_pending = Some(self.slot().mail.start_up_vector());
        }
        self.nmi_pending |= mail & NMI != 0;
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
    fn deliver(&mut self) -> Delivery {
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
                vector.map_or(Delivery::Done, |v| self.begin(|cpu| cpu.deliver_interrupt(v)))
            }
            None => Delivery::Done,
        }
    }

    fn begin(
        &mut self,
        event: impl FnOnce(&mut Cpu<EmuEnv>) -> Result<(), TripleFault>,
    ) -> Delivery {
        self.cpu.activity = Activity::Running;
        // What else waits is seen once the handler is entered: it begins with a fresh look.
        if event(&mut self.cpu).is_ok() { Delivery::Done } else { Delivery::TripleFault }
    }

    fn execute(&mut self, budget: u64) -> Option<Exit> {
        if let Some(stops) = &self.stops {
            return self.execute_debugged(&stops.clone());
        }
        let exit = self.cpu.run(budget);
        self.cpu.env.retired = self.cpu.retired;
        (exit == RunExit::TripleFault).then_some(Exit::TripleFault)
    }

    /// One instruction, then a look at the stops.
    fn execute_debugged(&mut self, stops: &DebugStops) -> Option<Exit> {
        let exit = self.cpu.run(1);
        self.cpu.env.retired = self.cpu.retired;
        let rip = self.cpu.linear_rip();
        if exit == RunExit::TripleFault {
            Some(Exit::TripleFault)
        } else if stops.breakpoints.contains(&rip) {
            Some(Exit::Debug(DebugStop::Breakpoint(rip)))
        } else {
            stops.step.then_some(Exit::Debug(DebugStop::Step))
        }
    }

    /// Until mail comes or the APIC's timer is due.
    fn sleep(&self) {
        let deadline = self.slot().lapic().next_deadline_ns();
        let limit = deadline.map(|d| d.saturating_sub(self.cpu.env.now().ns));
        self.slot().mail.sleep(limit.map(Duration::from_nanos));
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Delivery {
    Done,
    TripleFault,
}

impl Vcpu for EmuVcpu {
    fn run(&mut self, bus: &Arc<dyn Bus>) -> Result<Exit, EngineError> {
        self.slot().mail.adopt_thread();
        self.cpu.env.bus = Some(bus.clone());
        // What a loaded state had begun comes before its first instruction.
        let exit = match self.cpu.deliver_pending() {
            Ok(()) => self.run_counted_clock(),
            Err(TripleFault) => Exit::TripleFault,
        };
        self.cpu.env.bus = None;
        Ok(exit)
    }

    fn save(&mut self) -> Result<VcpuState, EngineError> {
        self.read_mail();
        let mut state = VcpuState::at_reset(&self.complex.profile, self.id);
        self.cpu.save_state(&mut state);
        state.apic = self.slot().lapic().save(self.cpu.env.now());
        state.tsc_offset = self.cpu.env.time.tsc_offset;
        state.nmi_pending = self.nmi_pending;
        state.sipi_pending = self.sipi_pending;
        Ok(state)
    }

    fn load(&mut self, state: &VcpuState) -> Result<(), EngineError> {
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
        self.slot().mail.post(INTERRUPT);
        Ok(())
    }

    fn set_debug(&mut self, stops: Option<&DebugStops>) -> Result<(), EngineError> {
        self.stops = stops.cloned();
        Ok(())
    }
}
