//! One instruction at a time: single step, instruction breakpoints, interrupt shadows, and
//! instructions that no block can hold.

use x86_decode::{DecodeError, Decoder, GPR_RIP, INSN_SIZE_MAX, Insn, Mnemonic};
use x86_state::bits::{Dr6, Rflags};
use x86_state::{Exception, InterruptShadow};

use crate::cpu::ITERATIONS_MAX;
use crate::{Cpu, Env, Fault, FaultInfo, Handler, select};

/// The outcome of a careful step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The instruction, or some iterations of it, are done.
    Done,
    /// An exception is in [`Cpu::fault`]: a fault of the instruction, RIP at it, or a debug trap,
    /// RIP after it.
    Raised,
}

/// DR7: any of the enable bits.
const BREAKPOINTS_ENABLED: u64 = 0xff;

impl<E: Env> Cpu<E> {
    /// The next instruction cannot be one of many.
    pub(crate) fn needs_care(&self) -> bool {
        self.system_flags & (Rflags::TF | Rflags::RF).bits() != 0
            || self.shadow != InterruptShadow::None
            || self.debug.dr7 & BREAKPOINTS_ENABLED != 0
            || self.debug_hits != 0
    }

    /// Nothing in force asks for a look at each instruction or each access: what executes code in
    /// another way may do so.
    pub fn is_plain(&self) -> bool {
        !self.needs_care() && !self.alignment_checked
    }

    /// Executes one instruction, without a look at events, and without debug exceptions. A
    /// repeated string instruction may have iterations left.
    ///
    /// # Errors
    /// The exception the instruction raised, not delivered; RIP is at the instruction.
    pub fn step(&mut self) -> Result<(), Fault> {
        let insn = self.fetch()?;
        self.execute(&insn)
    }

    fn execute(&mut self, insn: &Insn) -> Result<(), Fault> {
        self.execute_by(insn, select(insn))
    }

    /// Executes a decoded instruction by its handler.
    pub(crate) fn execute_by(&mut self, insn: &Insn, handler: Handler<E>) -> Result<(), Fault> {
        let rip = self.rip;
        self.gpr[usize::from(GPR_RIP)] = rip;
        self.rip = self.next_rip(insn);
        let done = handler(self, insn);
        self.code_written = false;
        if done.is_err() || self.again {
            self.rip = rip;
        } else {
            self.retired += 1;
        }
        self.again = false;
        done
    }

    /// Executes one instruction with all that debugging asks for (SDM vol. 3B, 18.3.1).
    pub(crate) fn step_carefully(&mut self) -> Step {
        if self.debug_hits & Dr6::BT.bits() != 0 {
            // Before the new task's first instruction (SDM vol. 3B, 18.3.1.5).
            let payload = std::mem::take(&mut self.debug_hits);
            self.fault = FaultInfo { exception: Exception::Db, error_code: 0, payload };
            return Step::Raised;
        }
        let trap = self.system_flag(Rflags::TF);
        let resume = self.system_flag(Rflags::RF);
        let shadow = std::mem::replace(&mut self.shadow, InterruptShadow::None);
        if !resume && shadow != InterruptShadow::MovSs {
            let hits = self.instruction_breakpoints();
            if hits != 0 {
                self.fault = FaultInfo { exception: Exception::Db, error_code: 0, payload: hits };
                return Step::Raised;
            }
        }
        let Ok(insn) = self.fetch() else { return Step::Raised };
        // For one instruction only; IRET may set it for the next.
        self.system_flags &= !Rflags::RF.bits();
        self.iterations_max = if trap { 1 } else { ITERATIONS_MAX };
        let done = self.execute(&insn);
        self.iterations_max = ITERATIONS_MAX;
        if done.is_err() {
            self.debug_hits = 0;
            return Step::Raised;
        }
        if shadow == self.shadow {
            // Of several loads of SS in a row, only the first casts a shadow (SDM vol. 3A, 6.8.3).
            self.shadow = InterruptShadow::None;
        }
        self.check_events |= shadow != InterruptShadow::None;
        self.debug_trap(&insn, trap)
    }

    /// After an instruction: single step, data and I/O breakpoints. After MOV SS they wait.
    fn debug_trap(&mut self, insn: &Insn, trap: bool) -> Step {
        if self.shadow == InterruptShadow::MovSs {
            return Step::Done;
        }
        let mut payload = std::mem::take(&mut self.debug_hits);
        if trap && (self.system_flag(Rflags::TF) || !clears_trap(insn)) {
            payload |= Dr6::BS.bits();
        }
        if payload == 0 {
            return Step::Done;
        }
        self.fault = FaultInfo { exception: Exception::Db, error_code: 0, payload };
        Step::Raised
    }

    /// Instruction breakpoints at RIP, as bits of DR6.
    fn instruction_breakpoints(&self) -> u64 {
        let (linear, dr7) = (self.linear_rip(), self.debug.dr7);
        (0..4)
            .filter(|i| dr7 >> (2 * i) & 3 != 0 && dr7 >> (16 + 4 * i) & 3 == 0)
            .filter(|i| self.debug.address[*i] == linear)
            .fold(0, |bits, i| bits | 1 << i)
    }

    /// Fetches and decodes the instruction at RIP, which may lie on two pages.
    pub(crate) fn fetch(&mut self) -> Result<Insn, Fault> {
        let mut bytes = [0; INSN_SIZE_MAX];
        let mut have = 0;
        loop {
            let linear = self.code_linear(self.rip.wrapping_add(have as u64))?;
            let at = self.fetch_address(linear)?;
            let on_page = 0x1000 - (linear as usize & 0xfff);
            let in_limit = self.code_room(self.rip.wrapping_add(have as u64));
            let part = on_page.min(in_limit).min(INSN_SIZE_MAX - have);
            self.env.read(at, &mut bytes[have..have + part]);
            have += part;
            let decoder = Decoder::new(self.mode.code_bits(), &bytes[..have]);
            match decoder.with_features(self.env.features()).next_insn() {
                Ok(insn) => return Ok(insn),
                Err(DecodeError::Truncated) => {}
                Err(DecodeError::Invalid(_)) => return Err(self.ud()),
                Err(DecodeError::TooLong) => return Err(self.gp0()),
            }
        }
    }

    /// Bytes from a valid `rip` to the end of the code segment.
    fn code_room(&self, rip: u64) -> usize {
        if self.mode.is_64() {
            return usize::MAX;
        }
        let limit = u64::from(self.segment(x86_state::SegReg::Cs).limit);
        (limit - rip) as usize + 1
    }
}

/// Entering a handler this way clears TF before the trap would be due; there is none then.
fn clears_trap(insn: &Insn) -> bool {
    use Mnemonic as M;
    matches!(insn.mnemonic(), M::Int | M::Int1 | M::Int3 | M::Into | M::Syscall | M::Sysenter)
}
