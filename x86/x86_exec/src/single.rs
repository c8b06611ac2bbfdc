//! One instruction at a time, at speed: for engines that execute most instructions in another way.

use x86_decode::{Code, INSN_SIZE_MAX, Insn};

use crate::careful::Step;
use crate::{Cpu, Env, Fault, Handler, HostAddr, RunExit};

/// Instructions kept. They recur: what is stepped is what another engine does not do.
const KEPT: usize = 1024;
const PAGE_SIZE: usize = 0x1000;

/// An instruction that was decoded before, of 64-bit code.
struct Single<E: Env> {
    at: HostAddr,
    generation: u32,
    insn: Insn,
    handler: Handler<E>,
}

/// Instructions by the host address of their first byte.
pub(crate) struct Singles<E: Env> {
    kept: Vec<Option<Single<E>>>,
    last: Code,
}

impl<E: Env> Default for Singles<E> {
    /// Without room: CPUs that are never stepped need none.
    fn default() -> Self {
        Self { kept: Vec::new(), last: Code::INVALID }
    }
}

impl<E: Env> Singles<E> {
    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        self.kept.clear();
    }

    fn place(at: HostAddr) -> usize {
        (at.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize % KEPT
    }

    fn find(&self, env: &E, at: HostAddr) -> Option<(Insn, Handler<E>)> {
        let kept = self.kept.get(Self::place(at))?.as_ref()?;
        let same = kept.at == at && kept.generation == env.code_generation(at);
        same.then_some((kept.insn, kept.handler))
    }

    fn keep(&mut self, single: Single<E>) {
        if self.kept.is_empty() {
            self.kept.resize_with(KEPT, || None);
        }
        let place = Self::place(single.at);
        self.kept[place] = Some(single);
    }
}

impl<E: Env> Cpu<E> {
    /// Executes the next instruction, whatever waits; exceptions are delivered. Says what
    /// [`Cpu::run`] would have ended for, had that been its budget.
    pub fn run_one(&mut self) -> RunExit {
        let end = self.retired.saturating_add(1);
        let delivered = if self.needs_care() || !self.mode.is_64() {
            match self.step_carefully() {
                Step::Done => Ok(()),
                Step::Raised => self.deliver_fault(),
            }
        } else {
            match self.step_known() {
                Ok(()) => Ok(()),
                Err(_) => self.deliver_fault(),
            }
        };
        if delivered.is_err() {
            return RunExit::TripleFault;
        }
        self.look(end).unwrap_or(RunExit::Budget)
    }

    /// What [`Cpu::run_one`] has executed last of 64-bit code, for counters.
    pub fn last_stepped(&self) -> Code {
        self.singles.last
    }

    fn step_known(&mut self) -> Result<(), Fault> {
        let linear = self.code_linear(self.rip)?;
        let at = self.fetch_address(linear)?;
        if let Some((insn, handler)) = self.singles.find(&self.env, at) {
            self.singles.last = insn.code;
            return self.execute_by(&insn, handler);
        }
        let inside = linear as usize % PAGE_SIZE <= PAGE_SIZE - INSN_SIZE_MAX;
        // In this order: what is read is no older than the generation, nor than the mark.
        let generation = self.env.code_generation(at);
        if inside {
            self.env.mark_code(at, INSN_SIZE_MAX);
        }
        let insn = self.fetch()?;
        let handler = crate::select(&insn);
        if inside {
            self.singles.keep(Single { at, generation, insn, handler });
        }
        self.singles.last = insn.code;
        self.execute_by(&insn, handler)
    }
}
