//! The saved form of a vCPU: its own types, numbered fields, conversion both ways.
//!
//! Field numbers are never reused. A field that a newer program adds is optional here.

use minicbor::{Decode, Encode};
use statecodec::{Saved, Section, SectionError};
use x86_state::bits::Rflags;
use x86_state::{
    Activity, ApicState, ApicTimer, CpuProfile, DebugRegs, DescriptorTable, Exception, InDelivery,
    InterruptShadow, Msrs, MtrrState, Raised, Regs, Segment, VcpuId, VcpuState, XsaveImage,
};

/// Saves one vCPU.
pub fn save_vcpu(state: &VcpuState) -> Section {
    Section::encode(&SavedVcpu::from(state))
}

/// Reads one vCPU of a VM with this profile.
///
/// # Errors
/// When the section is not a vCPU's, or says what no vCPU of the profile can be.
pub fn restore_vcpu(
    section: &Section,
    profile: &CpuProfile,
    id: VcpuId,
) -> Result<VcpuState, SectionError> {
    section
        .decode::<SavedVcpu>()?
        .into_state(profile, id)
        .map_err(|reason| SectionError::Impossible { kind: SavedVcpu::KIND, reason })
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct SavedVcpu {
    #[n(0)]
    gpr: [u64; 16],
    #[n(1)]
    rip: u64,
    #[n(2)]
    rflags: u64,
    #[n(3)]
    segments: [SavedSegment; 6],
    #[n(4)]
    ldtr: SavedSegment,
    #[n(5)]
    tr: SavedSegment,
    #[n(6)]
    gdtr: SavedTable,
    #[n(7)]
    idtr: SavedTable,
    #[n(8)]
    cr0: u64,
    #[n(9)]
    cr2: u64,
    #[n(10)]
    cr3: u64,
    #[n(11)]
    cr4: u64,
    #[n(12)]
    efer: u64,
    #[n(13)]
    xcr0: u64,
    #[n(14)]
    xss: u64,
    #[n(15)]
    debug_address: [u64; 4],
    #[n(16)]
    dr6: u64,
    #[n(17)]
    dr7: u64,
    #[cbor(n(18), with = "minicbor::bytes")]
    xsave: Vec<u8>,
    #[n(19)]
    msrs: SavedMsrs,
    #[n(20)]
    tsc_offset: u64,
    #[n(21)]
    apic: SavedApic,
    /// 0 running, 1 halted, 2 waiting for a start-up message.
    #[n(22)]
    activity: u8,
    /// 0 none, 1 after STI, 2 after a load of SS.
    #[n(23)]
    shadow: u8,
    #[n(24)]
    nmi_masked: bool,
    #[n(25)]
    nmi_pending: bool,
    #[n(26)]
    sipi_pending: Option<u8>,
    #[n(27)]
    raised: Option<SavedRaised>,
    #[n(28)]
    in_delivery: Option<SavedDelivery>,
}

impl Saved for SavedVcpu {
    const KIND: &'static str = "vcpu";
    const VERSION: u16 = 1;
}

#[derive(Encode, Decode, Clone, Copy)]
#[cbor(map)]
struct SavedSegment {
    #[n(0)]
    base: u64,
    #[n(1)]
    limit: u32,
    #[n(2)]
    selector: u16,
    #[n(3)]
    attr: u16,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct SavedTable {
    #[n(0)]
    base: u64,
    #[n(1)]
    limit: u16,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct SavedMsrs {
    #[n(0)]
    star: u64,
    #[n(1)]
    lstar: u64,
    #[n(2)]
    cstar: u64,
    #[n(3)]
    fmask: u64,
    #[n(4)]
    kernel_gs_base: u64,
    #[n(5)]
    sysenter_cs: u64,
    #[n(6)]
    sysenter_esp: u64,
    #[n(7)]
    sysenter_eip: u64,
    #[n(8)]
    tsc_aux: u64,
    #[n(9)]
    tsc_adjust: u64,
    #[n(10)]
    pat: u64,
    #[n(11)]
    misc_enable: u64,
    #[n(12)]
    mtrr_def_type: u64,
    #[n(13)]
    mtrr_fixed: [u64; 11],
    #[n(14)]
    mtrr_variable: [(u64, u64); 8],
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct SavedApic {
    #[n(0)]
    base: u64,
    #[n(1)]
    regs: Vec<u32>,
    #[n(2)]
    timer_remaining_ns: Option<u64>,
    #[n(3)]
    tsc_deadline: u64,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct SavedRaised {
    #[n(0)]
    vector: u8,
    #[n(1)]
    error_code: Option<u32>,
    #[n(2)]
    payload: Option<u64>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct SavedDelivery {
    /// 0 interrupt, 1 NMI, 2 exception, 3 software.
    #[n(0)]
    kind: u8,
    #[n(1)]
    vector: u8,
    #[n(2)]
    error_code: Option<u32>,
    #[n(3)]
    length: u8,
}

impl From<&VcpuState> for SavedVcpu {
    fn from(state: &VcpuState) -> Self {
        // Destructured, so that a new field does not compile until someone decides its fate.
        let VcpuState {
            regs: Regs { gpr, rip, rflags },
            segments,
            ldtr,
            tr,
            gdtr,
            idtr,
            cr0,
            cr2,
            cr3,
            cr4,
            efer,
            xcr0,
            xss,
            debug: DebugRegs { address: debug_address, dr6, dr7 },
            xsave,
            msrs,
            tsc_offset,
            apic,
            activity,
            shadow,
            nmi_masked,
            nmi_pending,
            sipi_pending,
            raised,
            in_delivery,
        } = state.clone();
        Self {
            gpr,
            rip,
            rflags,
            segments: segments.map(SavedSegment::from),
            ldtr: ldtr.into(),
            tr: tr.into(),
            gdtr: gdtr.into(),
            idtr: idtr.into(),
            cr0,
            cr2,
            cr3,
            cr4,
            efer,
            xcr0,
            xss,
            debug_address,
            dr6,
            dr7,
            xsave: xsave.bytes().to_vec(),
            msrs: msrs.into(),
            tsc_offset,
            apic: apic.into(),
            activity: match activity {
                Activity::Running => 0,
                Activity::Halted => 1,
                Activity::WaitForSipi => 2,
            },
            shadow: match shadow {
                InterruptShadow::None => 0,
                InterruptShadow::Sti => 1,
                InterruptShadow::MovSs => 2,
            },
            nmi_masked,
            nmi_pending,
            sipi_pending,
            raised: raised.map(SavedRaised::from),
            in_delivery: in_delivery.map(SavedDelivery::from),
        }
    }
}

impl SavedVcpu {
    fn into_state(self, profile: &CpuProfile, id: VcpuId) -> Result<VcpuState, String> {
        let mut xsave = XsaveImage::initial(profile.xsave_size());
        if xsave.bytes().len() != self.xsave.len() {
            return Err(format!("an XSAVE image of {} bytes", self.xsave.len()));
        }
        xsave.bytes_mut().copy_from_slice(&self.xsave);
        if self.rflags & Rflags::FIXED.bits() == 0 {
            return Err(format!("RFLAGS {:#x}", self.rflags));
        }
        let mut state = VcpuState::at_reset(profile, id);
        state.regs = Regs { gpr: self.gpr, rip: self.rip, rflags: self.rflags };
        state.segments = self.segments.map(Segment::from);
        state.ldtr = self.ldtr.into();
        state.tr = self.tr.into();
        state.gdtr = self.gdtr.into();
        state.idtr = self.idtr.into();
        state.cr0 = self.cr0;
        state.cr2 = self.cr2;
        state.cr3 = self.cr3;
        state.cr4 = allowed("CR4", self.cr4, profile.cr4_mask())?;
        state.efer = allowed("EFER", self.efer, profile.efer_mask())?;
        state.xcr0 = allowed("XCR0", self.xcr0, profile.xcr0_mask())?;
        state.xss = self.xss;
        state.debug = DebugRegs { address: self.debug_address, dr6: self.dr6, dr7: self.dr7 };
        state.xsave = xsave;
        state.msrs = self.msrs.into();
        state.tsc_offset = self.tsc_offset;
        state.apic = self.apic.into_state()?;
        state.activity = match self.activity {
            0 => Activity::Running,
            1 => Activity::Halted,
            2 => Activity::WaitForSipi,
            other => return Err(format!("activity {other}")),
        };
        state.shadow = match self.shadow {
            0 => InterruptShadow::None,
            1 => InterruptShadow::Sti,
            2 => InterruptShadow::MovSs,
            other => return Err(format!("interrupt shadow {other}")),
        };
        state.nmi_masked = self.nmi_masked;
        state.nmi_pending = self.nmi_pending;
        state.sipi_pending = self.sipi_pending;
        state.raised = self.raised.map(SavedRaised::into_state).transpose()?;
        state.in_delivery = self.in_delivery.map(SavedDelivery::into_state).transpose()?;
        Ok(state)
    }
}

fn allowed(name: &str, value: u64, mask: u64) -> Result<u64, String> {
    if value & !mask != 0 {
        return Err(format!("{name} {value:#x} has bits that the profile does not"));
    }
    Ok(value)
}

impl From<Segment> for SavedSegment {
    fn from(segment: Segment) -> Self {
        let Segment { base, limit, selector, attr } = segment;
        Self { base, limit, selector, attr }
    }
}

impl From<SavedSegment> for Segment {
    fn from(saved: SavedSegment) -> Self {
        let SavedSegment { base, limit, selector, attr } = saved;
        Self { base, limit, selector, attr }.canonical()
    }
}

impl From<DescriptorTable> for SavedTable {
    fn from(table: DescriptorTable) -> Self {
        Self { base: table.base, limit: table.limit }
    }
}

impl From<SavedTable> for DescriptorTable {
    fn from(saved: SavedTable) -> Self {
        Self { base: saved.base, limit: saved.limit }
    }
}

impl From<Msrs> for SavedMsrs {
    fn from(msrs: Msrs) -> Self {
        let Msrs {
            star,
            lstar,
            cstar,
            fmask,
            kernel_gs_base,
            sysenter_cs,
            sysenter_esp,
            sysenter_eip,
            tsc_aux,
            tsc_adjust,
            pat,
            misc_enable,
            mtrr: MtrrState { def_type, fixed, variable },
        } = msrs;
        Self {
            star,
            lstar,
            cstar,
            fmask,
            kernel_gs_base,
            sysenter_cs,
            sysenter_esp,
            sysenter_eip,
            tsc_aux,
            tsc_adjust,
            pat,
            misc_enable,
            mtrr_def_type: def_type,
            mtrr_fixed: fixed,
            mtrr_variable: variable,
        }
    }
}

impl From<SavedMsrs> for Msrs {
    fn from(saved: SavedMsrs) -> Self {
        Self {
            star: saved.star,
            lstar: saved.lstar,
            cstar: saved.cstar,
            fmask: saved.fmask,
            kernel_gs_base: saved.kernel_gs_base,
            sysenter_cs: saved.sysenter_cs,
            sysenter_esp: saved.sysenter_esp,
            sysenter_eip: saved.sysenter_eip,
            tsc_aux: saved.tsc_aux,
            tsc_adjust: saved.tsc_adjust,
            pat: saved.pat,
            misc_enable: saved.misc_enable,
            mtrr: MtrrState {
                def_type: saved.mtrr_def_type,
                fixed: saved.mtrr_fixed,
                variable: saved.mtrr_variable,
            },
        }
    }
}

impl From<ApicState> for SavedApic {
    fn from(apic: ApicState) -> Self {
        let ApicState { base, regs, timer: ApicTimer { remaining_ns, tsc_deadline } } = apic;
        Self { base, regs: regs.to_vec(), timer_remaining_ns: remaining_ns, tsc_deadline }
    }
}

impl SavedApic {
    fn into_state(self) -> Result<ApicState, String> {
        let count = self.regs.len();
        let regs = self.regs.try_into().map_err(|_| format!("{count} APIC registers"))?;
        let timer =
            ApicTimer { remaining_ns: self.timer_remaining_ns, tsc_deadline: self.tsc_deadline };
        Ok(ApicState { base: self.base, regs, timer })
    }
}

impl From<Raised> for SavedRaised {
    fn from(raised: Raised) -> Self {
        let Raised { exception, error_code, payload } = raised;
        Self { vector: exception as u8, error_code, payload }
    }
}

impl SavedRaised {
    fn into_state(self) -> Result<Raised, String> {
        let exception = Exception::from_vector(self.vector)
            .ok_or_else(|| format!("a raised exception {}", self.vector))?;
        Ok(Raised { exception, error_code: self.error_code, payload: self.payload })
    }
}

impl From<InDelivery> for SavedDelivery {
    fn from(event: InDelivery) -> Self {
        let (kind, vector, error_code, length) = match event {
            InDelivery::Interrupt(vector) => (0, vector, None, 0),
            InDelivery::Nmi => (1, Exception::Nmi as u8, None, 0),
            InDelivery::Exception { vector, error_code } => (2, vector, error_code, 0),
            InDelivery::Software { vector, length } => (3, vector, None, length),
        };
        Self { kind, vector, error_code, length }
    }
}

impl SavedDelivery {
    fn into_state(self) -> Result<InDelivery, String> {
        let Self { kind, vector, error_code, length } = self;
        Ok(match kind {
            0 => InDelivery::Interrupt(vector),
            1 => InDelivery::Nmi,
            2 => InDelivery::Exception { vector, error_code },
            3 => InDelivery::Software { vector, length },
            other => return Err(format!("an event of kind {other} in delivery")),
        })
    }
}

#[cfg(test)]
mod tests;
