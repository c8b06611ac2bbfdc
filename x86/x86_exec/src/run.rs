//! The loop.

use x86_decode::{DecodeError, Decoder, GPR_RIP, INSN_SIZE_MAX, Insn};
use x86_state::SegReg;

use crate::{Cpu, Env, Fault, select};

/// Why the loop has returned. RIP is at an instruction that has not begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunExit {
    /// The budget is used up.
    Budget,
    /// [`Env::attention`] or [`Cpu::check_events`]: look for what to do or deliver.
    Events,
    /// The CPU is no longer running: see [`Cpu::activity`].
    Halted,
    /// An exception could not be delivered: shutdown.
    TripleFault,
}

impl<E: Env> Cpu<E> {
    /// Executes one instruction, without a look at events.
    ///
    /// # Errors
    /// The exception the instruction raised, not delivered; RIP is at the instruction.
    pub fn step(&mut self) -> Result<(), Fault> {
        let rip = self.rip;
        self.gpr[usize::from(GPR_RIP)] = rip;
        let insn = self.fetch_one()?;
        if insn.ends_block() {
            self.rip = self.next_rip(&insn);
        }
        let done = select(&insn)(self, &insn);
        if done.is_err() {
            self.rip = rip;
            return done;
        }
        if std::mem::take(&mut self.again) {
            self.rip = rip;
            return Ok(());
        }
        if !insn.ends_block() {
            self.rip = self.next_rip(&insn);
        }
        self.retired += 1;
        Ok(())
    }

    fn fetch_one(&mut self) -> Result<Insn, Fault> {
        let mut bytes = [0; INSN_SIZE_MAX];
        let mut have = 0;
        loop {
            let offset = self.rip.wrapping_add(have as u64);
            let linear = if self.mode.is_64() {
                offset
            } else {
                self.segment(SegReg::Cs).base.wrapping_add(offset) & 0xffff_ffff
            };
            let at = self.fetch_address(linear)?;
            let on_page = (0x1000 - (linear as usize & 0xfff)).min(INSN_SIZE_MAX - have);
            self.env.read(at, &mut bytes[have..have + on_page]);
            have += on_page;
            match Decoder::new(self.mode.code_bits(), &bytes[..have]).next_insn() {
                Ok(insn) => return Ok(insn),
                Err(DecodeError::Truncated) => {}
                Err(DecodeError::Invalid(_)) => return Err(self.ud()),
                Err(DecodeError::TooLong) => return Err(self.gp0()),
            }
        }
    }
}
