//! Which instructions the decoder calls [`Class::System`] are translated all the same, and what
//! only looks at the CPU's state.

use x86_decode::Code;
use x86_decode::native::{Access, Class, Native};
use x86_encode::Reg;

use super::{GUEST_R10, GUEST_R11, HOST, Translator, context, in_context};
use crate::cache::Mode;
use crate::context::field;

/// An instruction that is translated in its own way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum System {
    /// CLI.
    Cli,
    /// STI.
    Sti,
    /// CLD, STD.
    Direction(bool),
    /// MOV from a segment register.
    ReadSelector,
    /// BT, BTS, BTR, BTC of a bit string in memory.
    BitString,
    /// MOV from a control register.
    ReadControl,
    /// RDFSBASE; of GS when true.
    ReadBase(bool),
    /// WRFSBASE; of GS when true.
    WriteBase(bool),
    /// SWAPGS.
    SwapGs,
    /// CLAC, STAC.
    Access(bool),
    /// SYSCALL.
    Syscall,
    /// SYSRET to 64-bit code.
    Sysret,
    /// IRET of 64-bit operands.
    Iret,
    /// RDTSC; RDTSCP when true.
    ReadTsc(bool),
}

impl System {
    /// None, when it is the interpreter's.
    pub(super) fn of(insn: &Native, mode: Mode) -> Option<Self> {
        let user = mode.contains(Mode::USER);
        match insn.code {
            Code::Cli if !user => Some(Self::Cli),
            Code::Sti if !user => Some(Self::Sti),
            Code::Cld => Some(Self::Direction(false)),
            Code::Std => Some(Self::Direction(true)),
            Code::Mov_rm16_Sreg | Code::Mov_r32m16_Sreg | Code::Mov_r64m16_Sreg => {
                (insn.reg() < 6 && !insn.lock).then_some(Self::ReadSelector)
            }
            Code::Mov_r64_cr if !user => {
                let known = matches!(insn.reg(), 0 | 2 | 3 | 4) && !insn.lock;
                known.then_some(Self::ReadControl)
            }
            Code::Rdfsbase_r32 | Code::Rdfsbase_r64 => Some(Self::ReadBase(false)),
            Code::Rdgsbase_r32 | Code::Rdgsbase_r64 => Some(Self::ReadBase(true)),
            Code::Wrfsbase_r32 | Code::Wrfsbase_r64 => Some(Self::WriteBase(false)),
            Code::Wrgsbase_r32 | Code::Wrgsbase_r64 => Some(Self::WriteBase(true)),
            Code::Swapgs if !user => Some(Self::SwapGs),
            Code::Clac if !user => Some(Self::Access(false)),
            Code::Stac if !user => Some(Self::Access(true)),
            Code::Syscall if user && !mode.contains(Mode::COMPAT) => Some(Self::Syscall),
            Code::Sysretq if !user => Some(Self::Sysret),
            Code::Iretq if !user => Some(Self::Iret),
            Code::Rdtsc => Some(Self::ReadTsc(false)),
            Code::Rdtscp => Some(Self::ReadTsc(true)),
            _ if is_bit_string(insn) => Some(Self::BitString),
            _ => None,
        }
    }

    /// Nothing follows it.
    pub(super) fn transfers(self) -> bool {
        matches!(self, Self::Syscall | Self::Sysret | Self::Iret)
    }
}

/// A bit string in memory, its offset in a register that has a place of its own.
fn is_bit_string(insn: &Native) -> bool {
    let named = matches!(insn.opcode(), 0xa3 | 0xab | 0xb3 | 0xbb) && insn.opcode_len == 2;
    let placed = !matches!(insn.reg(), GUEST_R10 | GUEST_R11);
    let Some(mem) = insn.mem else { return false };
    let legal = !insn.lock || mem.access != Access::Read;
    named && placed && legal && insn.op_size >= 4 && mem.addr_size == 8
}

/// Changes what the decoder says to what this host is to do.
pub(super) fn adapt(mut insn: Native) -> Native {
    use x86_decode::native::{Features, flag};
    match insn.class {
        Class::PushFlags => (insn.flags_read, insn.flags_written) = (flag::ALL, 0),
        Class::PopFlags => (insn.flags_read, insn.flags_written) = (0, flag::ALL),
        Class::System if insn.code == Code::Syscall => {
            (insn.flags_read, insn.flags_written) = (flag::ALL, 0);
        }
        Class::System if matches!(insn.code, Code::Sysretq | Code::Iretq) => {
            (insn.flags_read, insn.flags_written) = (0, flag::ALL);
        }
        Class::Copy if is_prefixed_scan(&insn) => {
            // BSF and BSR keep the destination when there is no bit.
            insn.features = Features::empty();
            insn.rep_mandatory = false;
            insn.rep = 0;
            insn.gpr_read |= 1 << insn.reg();
            insn.flags_written = flag::ZF;
        }
        _ => {}
    }
    insn
}

/// TZCNT or LZCNT: to CPUs that have neither, as the profile's, the prefix means nothing.
fn is_prefixed_scan(insn: &Native) -> bool {
    insn.opcode_len == 2 && matches!(insn.opcode(), 0xbc | 0xbd) && insn.rep_mandatory
}

impl Translator {
    /// True when nothing follows it.
    pub(super) fn system(&mut self, index: usize, insn: &Native, what: System) -> bool {
        match what {
            System::Cli => self.clear_interrupts(),
            System::Sti => self.set_interrupts(insn),
            System::Direction(down) => self.set_direction(down),
            System::ReadSelector => self.read_selector(index, insn),
            System::BitString => self.bit_string(index, insn),
            System::ReadControl => self.read_control(insn),
            System::ReadBase(gs) => self.read_base(insn, gs),
            System::WriteBase(gs) => self.write_base(insn, gs),
            System::SwapGs => self.swap_gs(),
            System::Access(on) => self.set_access(on),
            System::Syscall => self.syscall(insn),
            System::Sysret => self.sysret(insn),
            System::Iret => self.iret(index, insn),
            System::ReadTsc(with_number) => self.read_tsc(insn, with_number),
        }
        what.transfers()
    }

    /// MOV from a segment register: 16 bits to memory, and to whatever fits the register.
    fn read_selector(&mut self, index: usize, insn: &Native) {
        let selector = context(field!(selectors) + 8 * i32::from(insn.reg()));
        if let Some(mem) = insn.mem {
            let place = self.operand(index, insn, &mem);
            self.asm.lea(8, Reg::R10, place);
            self.unit.distance_at_hand = false;
            self.asm.load(8, Reg::RCX, selector);
            self.asm.store(2, x86_encode::Mem::at(Reg::R10, 0), Reg::RCX);
            return;
        }
        let size = if insn.op66 && insn.rex & 8 == 0 { 2 } else { 8 };
        self.unit.distance_at_hand = false;
        self.asm.load(8, Reg::RCX, selector);
        match insn.rm() {
            to @ (GUEST_R10 | GUEST_R11) => self.asm.store(size, in_context(to), Reg::RCX),
            to => self.asm.mov_rr(size, HOST[usize::from(to)], Reg::RCX),
        }
    }

    /// The bit's word is found here, so that the host need not look beyond it.
    fn bit_string(&mut self, index: usize, insn: &Native) {
        use x86_encode::{Mem, Shift};
        let Some(mem) = insn.mem else { return };
        let offset = HOST[usize::from(insn.reg())];
        let log = insn.op_size.trailing_zeros() as u8;
        self.address(index, insn, &mem);
        self.unit.distance_at_hand = false;
        self.asm.mov_ri(Reg::RCX, u64::from(log) + 3);
        self.asm.shiftx(Shift::Sar, insn.op_size, Reg::RCX, offset, Reg::RCX);
        if insn.op_size == 4 {
            self.asm.movsx(4, Reg::RCX, Reg::RCX);
        }
        self.asm.lea(8, Reg::R10, Mem::at(Reg::R10, 0).index(Reg::RCX, log));
        let write = mem.access != Access::Read;
        let word = self.check(index, insn, u16::from(insn.op_size), write, 1);
        self.asm.lea(8, Reg::R10, word);
        let low = context(field!(low_mask) + 8 * (i32::from(log) + 3));
        self.asm.pext_rm(Reg::RCX, offset, low);
        if insn.lock {
            self.asm.raw(&[0xf0]);
        }
        // BTx [R10], RCX.
        let rex = if insn.op_size == 8 { 0x49 } else { 0x41 };
        self.asm.raw(&[rex, 0x0f, insn.opcode(), 0x0a]);
    }
}
