//! Runs instructions in the interpreter.

use x86_exec::plain::PlainEnv;
use x86_exec::{Cpu, Flags};
use x86_state::bits::Rflags;
use x86_state::{SegReg, Segment};

use crate::native::FLAGS;
use crate::{CODE, DATA, DATA_SIZE, Outcome, State, X87};

/// An interpreted CPU with the host's memory layout.
pub(crate) struct Interpreter {
    cpu: Cpu<PlainEnv>,
}

impl Interpreter {
    pub(crate) fn new() -> Self {
        Self { cpu: Cpu::flat64(3, CODE, &[]) }
    }

    pub(crate) fn set_data(&mut self, data: &[u8]) {
        self.cpu.env.put(DATA, data);
    }

    pub(crate) fn data(&self) -> Vec<u8> {
        self.cpu.env.get(DATA, DATA_SIZE)
    }

    /// Runs `count` instructions of `code`. RIP in `state` is set to where it ended.
    pub(crate) fn run(
        &mut self,
        code: &[u8],
        count: usize,
        code_bits: u32,
        state: &mut State,
    ) -> Outcome {
        self.put(code, code_bits, state);
        let mut outcome = Outcome::Done;
        if count > 1 {
            // Through blocks. What raises is told by the single steps of other cases.
            self.cpu.run(count as u64);
        } else if self.cpu.step().is_err() {
            outcome = Outcome::Raised(self.cpu.fault.exception);
        }
        self.get(state);
        outcome
    }

    fn put(&mut self, code: &[u8], code_bits: u32, state: &State) {
        let cpu = &mut self.cpu;
        let mut page = code.to_vec();
        page.resize(code.len() + 16, 0xcc);
        cpu.env.put(CODE, &page);
        let cs = &mut cpu.segments[SegReg::Cs as usize];
        cs.attr &= !(Segment::L | Segment::DB);
        cs.attr |= if code_bits == 32 { Segment::DB } else { Segment::L };
        cpu.update_mode();
        cpu.gpr[..16].copy_from_slice(&state.gpr);
        cpu.rip = CODE;
        cpu.flags = Flags::from_bits(state.flags);
        cpu.system_flags = Rflags::FIXED.bits() | state.flags & Rflags::DF.bits();
        let fpu = &mut cpu.fpu;
        fpu.xmm = state.xmm;
        fpu.mxcsr = state.mxcsr;
        fpu.fcw = state.x87.control;
        fpu.top = (state.x87.status >> 11 & 7) as u8;
        fpu.fsw = state.x87.status & !0x3800;
        fpu.in_use = state.x87.in_use;
        for (i, value) in state.x87.st.iter().enumerate() {
            fpu.st[(usize::from(fpu.top) + i) & 7] = *value;
        }
    }

    fn get(&self, state: &mut State) {
        let (cpu, fpu) = (&self.cpu, &self.cpu.fpu);
        state.gpr.copy_from_slice(&cpu.gpr[..16]);
        state.rip = cpu.rip;
        state.flags = cpu.rflags() & FLAGS;
        state.xmm = fpu.xmm;
        state.mxcsr = fpu.mxcsr;
        state.x87 = X87 {
            control: fpu.fcw,
            status: fpu.fsw | u16::from(fpu.top) << 11,
            in_use: fpu.in_use,
            st: std::array::from_fn(|i| fpu.st[(usize::from(fpu.top) + i) & 7]),
        };
    }
}
