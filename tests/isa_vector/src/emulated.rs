//! The interpreter.

use x86_exec::Cpu;
use x86_exec::plain::PlainEnv;

use crate::state::{ARITHMETIC, DATA_SIZE};
use crate::{CODE, DATA, End, State};

/// A CPU at ring 3 in 64-bit mode.
pub struct Emulated {
    cpu: Cpu<PlainEnv>,
}

impl Default for Emulated {
    fn default() -> Self {
        Self { cpu: Cpu::flat64(3, CODE, &[]) }
    }
}

impl Emulated {
    /// Runs one instruction.
    pub fn run(&mut self, code: &[u8], state: &State) -> (End, State) {
        let cpu = &mut self.cpu;
        cpu.env.put(CODE, code);
        cpu.env.put(DATA, &state.data[..]);
        cpu.rip = CODE;
        cpu.gpr[..16].copy_from_slice(&state.gpr);
        cpu.set_rflags(state.flags | 0x202);
        let top = (state.fsw >> 11 & 7) as u8;
        cpu.fpu.fcw = state.fcw;
        cpu.fpu.fsw = state.fsw & !0x3800;
        cpu.fpu.top = top;
        cpu.fpu.in_use = state.in_use;
        for (i, value) in (0..).zip(state.st) {
            cpu.fpu.st[(i + usize::from(top)) & 7] = value;
        }
        cpu.fpu.xmm = state.xmm;
        cpu.fpu.mxcsr = state.mxcsr;

        let done = cpu.step();
        let end = match done {
            Ok(()) => End::Done,
            Err(_) => End::Exception(cpu.fault.exception as u8),
        };
        if end == End::Done {
            assert_eq!(cpu.rip, CODE + code.len() as u64, "the length of {code:02x?}");
        }
        let mut after = State {
            flags: cpu.rflags() & ARITHMETIC,
            fcw: cpu.fpu.fcw,
            fsw: cpu.fpu.fsw | u16::from(cpu.fpu.top) << 11,
            in_use: cpu.fpu.in_use,
            xmm: cpu.fpu.xmm,
            mxcsr: cpu.fpu.mxcsr,
            ..State::default()
        };
        after.gpr.copy_from_slice(&cpu.gpr[..16]);
        for (i, value) in (0..).zip(&mut after.st) {
            *value = cpu.fpu.st[(i + usize::from(cpu.fpu.top)) & 7] & ((1 << 80) - 1);
        }
        after.data.copy_from_slice(&cpu.env.get(DATA, DATA_SIZE));
        (end, after)
    }
}
