//! The CPU's state as the engines exchange it.

use x86_state::bits::MXCSR_MASK;
use x86_state::{
    InDelivery, Raised, Regs, Segment, VcpuState, XSAVE_HEADER_OFFSET, XSAVE_SSE, XSAVE_X87,
};

use crate::system::TripleFault;
use crate::{Cpu, Env, FaultInfo};

impl<E: Env> Cpu<E> {
    /// Writes everything a CPU owns into `state`. What the environment owns (APIC, TSC, CR8,
    /// pending NMI and start-up) is the caller's.
    pub fn save_state(&self, state: &mut VcpuState) {
        let mut gpr = [0; 16];
        gpr.copy_from_slice(&self.gpr[..16]);
        state.regs = Regs { gpr, rip: self.rip, rflags: self.rflags() };
        state.segments = self.segments.map(Segment::canonical);
        state.ldtr = self.ldtr.canonical();
        state.tr = self.tr.canonical();
        state.gdtr = self.gdtr;
        state.idtr = self.idtr;
        state.cr0 = self.cr0;
        state.cr2 = self.cr2;
        state.cr3 = self.cr3;
        state.cr4 = self.cr4;
        state.efer = self.efer;
        state.xcr0 = self.xcr0;
        state.xss = self.xss;
        state.debug = self.debug;
        state.msrs = self.msrs;
        state.activity = self.activity;
        state.shadow = self.shadow;
        state.nmi_masked = self.nmi_masked;
        state.raised = self.raised.or_else(|| self.held_debug_trap());
        state.in_delivery = self.in_delivery;
        self.save_fpu(state);
    }

    /// A debug trap that a load of SS holds.
    fn held_debug_trap(&self) -> Option<Raised> {
        (self.debug_hits != 0).then_some(Raised {
            exception: x86_state::Exception::Db,
            error_code: None,
            payload: Some(self.debug_hits),
        })
    }

    fn save_fpu(&self, state: &mut VcpuState) {
        let bytes = state.xsave.bytes_mut();
        bytes.fill(0);
        let mut image = [0; XSAVE_HEADER_OFFSET];
        self.fpu.put_x87(&mut image, true);
        self.fpu.put_mxcsr(&mut image);
        self.fpu.put_xmm(&mut image, 16);
        bytes[..XSAVE_HEADER_OFFSET].copy_from_slice(&image);
        bytes[XSAVE_HEADER_OFFSET] = (XSAVE_X87 | XSAVE_SSE) as u8;
    }

    /// Takes over everything a CPU owns, and drops what is derived.
    pub fn load_state(&mut self, state: &VcpuState) {
        self.gpr[..16].copy_from_slice(&state.regs.gpr);
        self.rip = state.regs.rip;
        self.set_rflags(state.regs.rflags);
        self.segments = state.segments;
        self.ldtr = state.ldtr;
        self.tr = state.tr;
        self.gdtr = state.gdtr;
        self.idtr = state.idtr;
        self.cr0 = state.cr0;
        self.cr2 = state.cr2;
        self.cr3 = state.cr3;
        self.cr4 = state.cr4;
        self.efer = state.efer;
        self.xcr0 = state.xcr0;
        self.xss = state.xss;
        self.debug = state.debug;
        self.msrs = state.msrs;
        self.activity = state.activity;
        self.shadow = state.shadow;
        self.nmi_masked = state.nmi_masked;
        self.raised = state.raised;
        self.in_delivery = state.in_delivery;
        self.debug_hits = 0;
        self.code_written = false;
        self.again = false;
        self.check_events = true;
        self.load_fpu(state);
        self.update_mode();
        self.reload_translation();
        self.blocks.clear();
        self.singles.clear();
    }

    /// Takes over the registers of another CPU that is between two instructions. What is derived
    /// from memory is kept: where that has changed, the caller says so.
    pub fn take_registers_of<F: Env>(&mut self, other: &Cpu<F>) {
        self.gpr = other.gpr;
        self.rip = other.rip;
        self.flags = other.flags;
        self.system_flags = other.system_flags;
        self.segments = other.segments;
        self.ldtr = other.ldtr;
        self.tr = other.tr;
        self.gdtr = other.gdtr;
        self.idtr = other.idtr;
        self.cr0 = other.cr0;
        self.cr2 = other.cr2;
        self.cr3 = other.cr3;
        self.cr4 = other.cr4;
        self.efer = other.efer;
        self.xcr0 = other.xcr0;
        self.xss = other.xss;
        self.debug = other.debug;
        self.msrs = other.msrs;
        self.fpu = other.fpu;
        self.activity = other.activity;
        self.shadow = other.shadow;
        self.nmi_masked = other.nmi_masked;
        self.update_mode();
        self.update_paging();
    }

    fn load_fpu(&mut self, state: &VcpuState) {
        let mut image = [0; XSAVE_HEADER_OFFSET];
        image.copy_from_slice(&state.xsave.bytes()[..XSAVE_HEADER_OFFSET]);
        self.fpu.take_x87(&image, true);
        self.fpu.take_xmm(&image, 16);
        self.fpu.mxcsr = crate::Fpu::mxcsr_in(&image) & MXCSR_MASK;
    }

    /// Delivers what the state that was loaded had begun or raised. To be called before the first
    /// instruction.
    ///
    /// # Errors
    /// On shutdown.
    pub fn deliver_pending(&mut self) -> Result<(), TripleFault> {
        if let Some(event) = self.in_delivery.take() {
            match event {
                InDelivery::Interrupt(vector) => self.deliver_interrupt(vector)?,
                InDelivery::Nmi => self.deliver_nmi()?,
                InDelivery::Exception { vector, error_code } => {
                    self.deliver_exception(vector, error_code)?;
                }
                InDelivery::Software { vector, length } => {
                    self.deliver_software(vector, length)?;
                }
            }
        }
        let Some(raised) = self.raised.take() else { return Ok(()) };
        self.fault = FaultInfo {
            exception: raised.exception,
            error_code: raised.error_code.unwrap_or(0),
            payload: raised.payload.unwrap_or(match raised.exception {
                x86_state::Exception::Pf => self.cr2,
                _ => self.debug.dr6 & 0xf,
            }),
        };
        self.deliver_fault()
    }
}
