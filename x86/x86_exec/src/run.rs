//! The loop: block after block, at speed, while nothing needs a look at each instruction.

use x86_decode::GPR_RIP;
use x86_state::{Activity, SegReg};

use crate::blocks::{BlockId, Blocks, NO_BLOCK};
use crate::careful::Step;
use crate::{Cpu, Env, Fault, HostAddr};

/// Why the loop has returned. RIP is at an instruction that has not begun, or at a string
/// instruction that has iterations left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunExit {
    /// The budget is used up.
    Budget,
    /// Someone has asked for attention, or an event that waited may be deliverable now.
    Events,
    /// The CPU is no longer running: see [`Cpu::activity`].
    Halted,
    /// An exception could not be delivered: shutdown.
    TripleFault,
}

/// Why blocks cannot go on for now.
enum Pause {
    /// An instruction raised an exception.
    Fault(Fault),
    /// The next instructions are to be done one by one.
    Careful,
    /// The loop has to look at everything anew.
    Look,
}

/// Where the last block's page is. No plain block can change that, so it holds while they run.
#[derive(Debug, Clone, Copy)]
struct CodePage {
    /// The linear page.
    number: u64,
    /// From linear to host addresses.
    distance: u64,
}

impl CodePage {
    /// No page has this number.
    const UNKNOWN: Self = Self { number: u64::MAX, distance: 0 };
}

const PAGE_SHIFT: u32 = 12;

impl<E: Env> Cpu<E> {
    /// Runs until `budget` instructions have retired, or something else ends it. Exceptions are
    /// delivered; interrupts are the caller's.
    pub fn run(&mut self, budget: u64) -> RunExit {
        // Handlers get the whole CPU, so the blocks are elsewhere meanwhile.
        let mut blocks = std::mem::take(&mut self.blocks);
        let end = self.retired.saturating_add(budget);
        let exit = self.run_until(&mut blocks, end);
        self.blocks = blocks;
        exit
    }

    fn run_until(&mut self, blocks: &mut Blocks<E>, end: u64) -> RunExit {
        loop {
            if let Some(exit) = self.look(end) {
                return exit;
            }
            let pause =
                if self.needs_care() { Pause::Careful } else { self.run_blocks(blocks, end) };
            let delivered = match pause {
                Pause::Look => Ok(()),
                Pause::Fault(_) => self.deliver_fault(),
                Pause::Careful => match self.step_carefully() {
                    Step::Done => Ok(()),
                    Step::Raised => self.deliver_fault(),
                },
            };
            if delivered.is_err() {
                return RunExit::TripleFault;
            }
        }
    }

    /// What the loop must return for, between two instructions.
    pub(crate) fn look(&mut self, end: u64) -> Option<RunExit> {
        if self.activity != Activity::Running {
            return Some(RunExit::Halted);
        }
        if std::mem::take(&mut self.check_events) && self.env.event_waiting()
            || self.env.attention()
        {
            return Some(RunExit::Events);
        }
        (self.retired >= end).then_some(RunExit::Budget)
    }

    fn run_blocks(&mut self, blocks: &mut Blocks<E>, end: u64) -> Pause {
        let mut previous = NO_BLOCK;
        let mut page = CodePage::UNKNOWN;
        loop {
            let id = match self.enter(blocks, previous, &mut page) {
                Ok(Some(id)) => id,
                Ok(None) => return Pause::Careful,
                Err(fault) => return Pause::Fault(fault),
            };
            let block = *blocks.block(id);
            let before_last = u64::from(block.len - 1);
            if end - self.retired <= before_last {
                return Pause::Careful;
            }
            let ops = blocks.ops(&block);
            self.gpr[usize::from(GPR_RIP)] = self.rip;
            let Some((last, body)) = ops.split_last() else { return Pause::Careful };
            for (done, op) in (0..).zip(body) {
                if let Err(fault) = (op.handler)(self, &op.insn) {
                    self.retired += done;
                    self.rip = self.this_rip(&op.insn);
                    return Pause::Fault(fault);
                }
                if self.code_written {
                    self.code_written = false;
                    self.retired += done + 1;
                    self.rip = self.next_rip(&op.insn);
                    return Pause::Look;
                }
            }
            self.retired += before_last;
            self.rip = self.next_rip(&last.insn);
            if let Err(fault) = (last.handler)(self, &last.insn) {
                self.rip = self.this_rip(&last.insn);
                return Pause::Fault(fault);
            }
            if !block.plain {
                return self.after_special(&last.insn);
            }
            self.retired += 1;
            self.code_written = false;
            if self.env.attention() || self.retired >= end {
                return Pause::Look;
            }
            previous = id;
        }
    }

    /// After an instruction that may have changed anything.
    fn after_special(&mut self, insn: &x86_decode::Insn) -> Pause {
        self.code_written = false;
        if std::mem::take(&mut self.again) {
            self.rip = self.this_rip(insn);
        } else {
            self.retired += 1;
        }
        Pause::Look
    }

    /// The block at RIP; `None` when there is none, because of the first instruction.
    #[inline(always)]
    fn enter(
        &mut self,
        blocks: &mut Blocks<E>,
        previous: BlockId,
        page: &mut CodePage,
    ) -> Result<Option<BlockId>, Fault> {
        if self.mode.is_64() {
            if self.rip >> PAGE_SHIFT != page.number {
                let at = self.fetch_address(self.rip)?;
                *page = CodePage {
                    number: self.rip >> PAGE_SHIFT,
                    distance: at.0.wrapping_sub(self.rip),
                };
            }
            let at = HostAddr(self.rip.wrapping_add(page.distance));
            return Ok(blocks.find(&self.env, at, self.mode, previous));
        }
        let linear = self.code_linear(self.rip)?;
        let at = self.fetch_address(linear)?;
        let found = blocks.find(&self.env, at, self.mode, previous);
        // Decoded for whatever limit was in force: this one may end inside of it.
        let last = |id| self.rip + u64::from(blocks.block(id).size) - 1;
        let limit = u64::from(self.segment(SegReg::Cs).limit);
        Ok(found.filter(|id| last(*id) <= limit))
    }

    /// Drops everything that is derived from memory or from other registers. For whoever has
    /// changed registers, or where memory is, from outside.
    pub fn flush_derived(&mut self) {
        self.update_mode();
        self.update_paging();
        self.mmu.flush();
        self.blocks.clear();
        self.singles.clear();
    }

    /// The linear address of the next instruction.
    pub fn linear_rip(&self) -> u64 {
        if self.mode.is_64() {
            return self.rip;
        }
        self.segment(SegReg::Cs).base.wrapping_add(self.rip) & 0xffff_ffff
    }
}

#[cfg(test)]
mod tests;
