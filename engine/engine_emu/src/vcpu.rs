//! One vCPU on its thread: slices of instructions, one after the other or in turn.

use std::sync::Arc;

use engine::{Bus, DebugStops, EngineError, Exit, Vcpu};
use engine_soft::{Complex, Mailbox, Next, SoftVcpu};
use x86_exec::TripleFault;
use x86_state::{VcpuId, VcpuState};

use crate::turns::Turns;

/// Instructions between two looks at the APIC's timer: well below a tenth of a millisecond.
const SLICE: u64 = 20_000;
/// Counted clock: instructions of one turn. Short, because spinning for another vCPU's turn is
/// lost time.
const TURN: u64 = 5_000;

/// One interpreted vCPU.
pub(crate) struct EmuVcpu {
    soft: SoftVcpu,
    /// Counted clock: who runs.
    turns: Option<Arc<Turns>>,
}

impl EmuVcpu {
    pub(crate) fn new(
        complex: &Arc<Complex>,
        id: VcpuId,
        turns: Option<Arc<Turns>>,
    ) -> Result<Self, EngineError> {
        let soft = SoftVcpu::new(complex, id)?;
        if let Some(turns) = &turns {
            soft.slot().mail.set_alarm(turns.clone());
        }
        Ok(Self { soft, turns })
    }

    fn run_host_clock(&mut self) -> Exit {
        loop {
            match self.soft.prepare() {
                Next::Return(exit) => return exit,
                Next::Sleep => self.soft.sleep(),
                Next::Execute => {
                    if let Some(exit) = self.soft.execute(SLICE) {
                        return exit;
                    }
                }
            }
        }
    }

    fn run_counted_clock(&mut self, turns: &Turns) -> Exit {
        let Self { soft, .. } = self;
        let index = soft.index();
        loop {
            let mail = &soft.slot().mail;
            if !turns.wait(index, || mail.has(Mailbox::KICK)) && mail.take(Mailbox::KICK) != 0 {
                turns.leave(index);
                return Exit::Kicked;
            }
            let exit = match soft.prepare() {
                Next::Return(exit) => Some(exit),
                Next::Execute => soft.execute(TURN),
                Next::Sleep => {
                    let own = soft.slot().lapic().next_deadline_ns();
                    if let Some(earliest) = turns.idle(index, own) {
                        let device = soft.cpu.env.time.next_device_deadline_ns();
                        match earliest.into_iter().chain(device).min() {
                            Some(ns) => soft.cpu.env.time.skip_to(ns),
                            None => turns.sleep(),
                        }
                        turns.everyone_looks(index);
                    }
                    continue;
                }
            };
            soft.cpu.env.time.account(soft.cpu.retired);
            match exit {
                Some(exit) => {
                    turns.leave(index);
                    return exit;
                }
                None => turns.pass(index),
            }
        }
    }
}

impl Vcpu for EmuVcpu {
    fn run(&mut self, bus: &Arc<dyn Bus>) -> Result<Exit, EngineError> {
        let exit = match (self.soft.enter(bus), self.turns.clone()) {
            (Ok(()), Some(turns)) => self.run_counted_clock(&turns),
            (Ok(()), None) => self.run_host_clock(),
            (Err(TripleFault), _) => Exit::TripleFault,
        };
        self.soft.leave();
        Ok(exit)
    }

    fn save(&mut self) -> Result<VcpuState, EngineError> {
        Ok(self.soft.save())
    }

    fn load(&mut self, state: &VcpuState) -> Result<(), EngineError> {
        self.soft.load(state)
    }

    fn set_debug(&mut self, stops: Option<&DebugStops>) -> Result<(), EngineError> {
        self.soft.set_debug(stops);
        Ok(())
    }
}
