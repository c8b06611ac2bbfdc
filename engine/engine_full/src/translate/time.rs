//! RDTSC and RDTSCP: the host's, as the guest's (see [`crate::tsc`]).

use x86_decode::native::Native;
use x86_encode::{Mem, Reg};

use super::{Translator, context};
use crate::context::field;

impl Translator {
    /// No flag is touched. The interpreter's, where CR4.TSD or the host want it so.
    pub(super) fn read_tsc(&mut self, insn: &Native, with_number: bool) {
        let out = self.interpret(insn);
        self.asm.load(8, Reg::RCX, context(field!(tsc_rate)));
        self.need_rcx(out);
        if with_number {
            // RDTSCP, which waits for loads before it as the guest's does.
            self.asm.raw(&[0x0f, 0x01, 0xf9]);
            self.asm.load(8, Reg::R11, context(field!(tsc_number)));
        } else {
            self.asm.rdtsc();
        }
        // RORX RDX, RDX, 32.
        self.asm.raw(&[0xc4, 0xe3, 0xfb, 0xf0, 0xd2, 32]);
        self.asm.lea(8, Reg::RDX, Mem::at(Reg::RDX, 0).index(Reg::RAX, 0));
        self.asm.load(8, Reg::RCX, context(field!(tsc_bias)));
        self.asm.lea(8, Reg::RDX, Mem::at(Reg::RCX, 0).index(Reg::RDX, 1));
        // MULX R10, RCX, GS:[rate]: R10 is the product's high half.
        self.asm.raw(&[0x65, 0xc4, 0x62, 0xf3, 0xf6, 0x14, 0x25]);
        self.asm.raw(&field!(tsc_rate).to_le_bytes());
        self.asm.load(8, Reg::RCX, context(field!(tsc_base)));
        self.asm.lea(8, Reg::R10, Mem::at(Reg::R10, 0).index(Reg::RCX, 0));
        self.asm.mov_rr(4, Reg::RAX, Reg::R10);
        // RORX RDX, R10, 32.
        self.asm.raw(&[0xc4, 0xc3, 0xfb, 0xf0, 0xd2, 32]);
        self.asm.mov_rr(4, Reg::RDX, Reg::RDX);
    }
}
