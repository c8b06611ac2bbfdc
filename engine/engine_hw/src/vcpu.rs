//! One vCPU: its state, and what `run` does before and after.

use std::io;
use std::sync::Arc;

use engine::{Bus, DebugStops, EngineError, Exit, Vcpu};
use kvm_bindings::{
    KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, KVM_GUESTDBG_USE_HW_BP, Msrs as KvmMsrs,
    kvm_guest_debug, kvm_guest_debug_arch, kvm_msr_entry, kvm_xcrs,
};
use kvm_ioctls::VcpuFd;
use x86_state::{APIC_BUS_CYCLE_NS, InDelivery, VcpuId, VcpuState, msr};

use crate::complex::Complex;
use crate::host_error;
use crate::kick::Kicker;
use crate::msr::numbered;
use crate::raw;
use crate::state::{apic, events, registers, xsave};

/// A vCPU of the kernel's.
pub(crate) struct HwVcpu {
    // Fixed configuration.
    pub(crate) fd: VcpuFd,
    pub(crate) id: VcpuId,
    pub(crate) complex: Arc<Complex>,
    // Wiring.
    pub(crate) kicker: Arc<Kicker>,
    // State that the kernel does not have.
    /// Was never loaded: the kernel's state is not quite that of reset.
    fresh: bool,
    /// The TSC as loaded, until the next `run`: it can be set only while the clock runs.
    loaded_tsc: Option<LoadedTsc>,
    /// The origin (see [`crate::time`]) the kernel's TSC offset counts from.
    origin: u64,
    /// Initial count of an APIC timer that does not run.
    parked_count: Option<u32>,
    /// Where the APIC's timer stood when `run` returned, or was loaded.
    pub(crate) timer_count: Option<u32>,
    /// Stopped at this breakpoint: the next `run` goes on from it.
    pub(crate) stopped_at: Option<u64>,
    /// What the debugger asked for, as the kernel takes it.
    debug: kvm_guest_debug,
    /// A step past a breakpoint stands in for `debug`.
    passing: bool,
    /// The run page says what the vCPU's state is, not what it was before a load.
    pub(crate) page_is_current: bool,
}

#[derive(Clone, Copy)]
struct LoadedTsc {
    offset: u64,
    deadline: u64,
}

fn refused<E: Into<io::Error>>(operation: &'static str) -> impl FnOnce(E) -> EngineError {
    host_error(operation)
}

impl HwVcpu {
    /// Around a vCPU that has its CPUID.
    pub(crate) fn new(fd: VcpuFd, id: VcpuId, complex: Arc<Complex>) -> io::Result<Self> {
        let kicker = Arc::new(Kicker::new(&fd)?);
        Ok(Self {
            fd,
            id,
            complex,
            kicker,
            fresh: true,
            loaded_tsc: None,
            origin: 0,
            parked_count: None,
            timer_count: None,
            stopped_at: None,
            debug: kvm_guest_debug::default(),
            passing: false,
            page_is_current: false,
        })
    }

    /// What reaches it from other threads.
    pub(crate) fn kicker(&self) -> Arc<Kicker> {
        self.kicker.clone()
    }

    /// Before the first entry of a `run`.
    fn prepare(&mut self) -> Result<(), EngineError> {
        if self.fresh {
            self.load(&VcpuState::at_reset(&self.complex.profile, self.id))?;
        }
        self.set_tsc().map_err(refused("set a vCPU's TSC"))?;
        if let Some(address) = self.stopped_at.take() {
            let regs = self.fd.get_regs().map_err(refused("read a vCPU's registers"))?;
            if regs.rip == address {
                // Past the breakpoint, which would be met again, by a step without it. (RF would
                // do the same, but not every KVM loads it.)
                let step = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
                let request = kvm_guest_debug { control: step, ..Default::default() };
                self.fd.set_guest_debug(&request).map_err(refused("pass a breakpoint"))?;
                self.passing = true;
            }
        }
        Ok(())
    }

    /// A step is done: was it the one past a breakpoint, that nobody asked for?
    pub(crate) fn has_passed(&mut self) -> io::Result<bool> {
        if !std::mem::take(&mut self.passing) {
            return Ok(false);
        }
        self.fd.set_guest_debug(&self.debug)?;
        Ok(self.debug.control & KVM_GUESTDBG_SINGLESTEP == 0)
    }

    fn set_tsc(&mut self) -> io::Result<()> {
        let origin = self.complex.tsc.running_origin();
        if let Some(LoadedTsc { offset, deadline }) = self.loaded_tsc {
            raw::set_tsc_offset(&self.fd, offset.wrapping_sub(origin))?;
            // By the new TSC: under the old one the kernel might think it over already.
            self.set_msrs(&[(msr::IA32_TSC_DEADLINE, deadline)])?;
        } else if origin != self.origin {
            // The machine clock stood; so did the TSC.
            let offset = raw::tsc_offset(&self.fd)?;
            let moved = origin.wrapping_sub(self.origin);
            raw::set_tsc_offset(&self.fd, offset.wrapping_sub(moved))?;
            let deadline = self.get_msrs(&[msr::IA32_TSC_DEADLINE])?[0];
            if deadline != 0 {
                self.set_msrs(&[(msr::IA32_TSC_DEADLINE, deadline)])?;
            }
        }
        self.loaded_tsc = None;
        self.origin = origin;
        Ok(())
    }

    fn get_msrs(&self, numbers: &[u32]) -> io::Result<Vec<u64>> {
        let entry = |index: &u32| kvm_msr_entry { index: *index, ..Default::default() };
        let entries: Vec<_> = numbers.iter().map(entry).collect();
        let mut msrs = KvmMsrs::from_entries(&entries).map_err(io::Error::other)?;
        let done = self.fd.get_msrs(&mut msrs)?;
        all_done(numbers.get(done).copied())?;
        Ok(msrs.as_slice().iter().map(|entry| entry.data).collect())
    }

    fn set_msrs(&self, values: &[(u32, u64)]) -> io::Result<()> {
        let entry = |&(index, data): &(u32, u64)| kvm_msr_entry { index, reserved: 0, data };
        let entries: Vec<_> = values.iter().map(entry).collect();
        let msrs = KvmMsrs::from_entries(&entries).map_err(io::Error::other)?;
        let done = self.fd.set_msrs(&msrs)?;
        all_done(values.get(done).map(|(number, _)| *number))
    }

    fn read(&mut self) -> io::Result<Result<VcpuState, String>> {
        let profile = &self.complex.profile;
        let mut state = VcpuState::at_reset(profile, self.id);
        // First, because the kernel acts on an INIT or SIPI that has arrived.
        state.activity = events::activity_from(self.fd.get_mp_state()?);
        state.regs = registers::regs_from(&self.fd.get_regs()?);
        registers::sregs_from(&self.fd.get_sregs()?, profile, &mut state);
        state.debug = registers::debug_from(&self.fd.get_debug_regs()?);
        state.xsave = xsave::image_from(&self.fd.get_xsave()?, profile.xsave_size());
        let xcrs = self.fd.get_xcrs()?;
        state.xcr0 = xcrs.xcrs[..xcrs.nr_xcrs as usize]
            .iter()
            .find(|x| x.xcr == 0)
            .map_or(state.xcr0, |x| x.value);
        let mut numbers: Vec<_> =
            numbered(&mut state.msrs, profile).iter().map(|(n, _)| *n).collect();
        let has_deadline = profile.allows_msr(msr::IA32_TSC_DEADLINE);
        numbers.extend(has_deadline.then_some(msr::IA32_TSC_DEADLINE));
        let mut values = self.get_msrs(&numbers)?;
        let mut tsc_deadline = if has_deadline { values.pop().unwrap_or(0) } else { 0 };
        for ((_, register), value) in numbered(&mut state.msrs, profile).into_iter().zip(values) {
            *register = value;
        }
        state.tsc_offset = match self.loaded_tsc {
            Some(loaded) => {
                tsc_deadline = loaded.deadline;
                loaded.offset
            }
            None => raw::tsc_offset(&self.fd)?.wrapping_add(self.complex.tsc.saved_origin()),
        };
        let page = self.fd.get_lapic()?;
        let count = self.timer_count.or_else(|| apic::current_count(&page));
        let parked = self.parked_count;
        let known = apic::Known { tsc_deadline, count, parked };
        state.apic = apic::page_from(&page, state.apic.base, known);
        Ok(events::events_from(&self.fd.get_vcpu_events()?, &mut state).map(|()| state))
    }

    fn write(&mut self, state: &VcpuState) -> io::Result<()> {
        if !self.fresh {
            // The kernel drops translations only when a control register changes.
            let reset = VcpuState::at_reset(&self.complex.profile, self.id);
            self.fd.set_sregs(&registers::sregs_to(&reset))?;
        }
        self.fd.set_sregs(&registers::sregs_to(state))?;
        self.fd.set_regs(&registers::regs_to(&state.regs))?;
        self.fd.set_debug_regs(&registers::debug_to(&state.debug))?;
        let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
        xcrs.xcrs[0].value = state.xcr0;
        self.fd.set_xcrs(&xcrs)?;
        raw::set_xsave(&self.fd, &xsave::image_to(&state.xsave))?;
        let (page, parked) = apic::page_to(&state.apic);
        self.parked_count = parked;
        self.timer_count = apic::current_count(&page);
        self.fd.set_lapic(&page)?;
        let mut msrs = state.msrs;
        let mut values: Vec<_> =
            numbered(&mut msrs, &self.complex.profile).iter().map(|(n, v)| (*n, **v)).collect();
        if self.complex.profile.allows_msr(msr::IA32_TSC_DEADLINE) {
            values.push((msr::IA32_TSC_DEADLINE, 0)); // what was armed before is over
        }
        self.set_msrs(&values)?;
        let deadline = state.apic.timer.tsc_deadline;
        self.loaded_tsc = Some(LoadedTsc { offset: state.tsc_offset, deadline });
        let events = events::events_to(state).map_err(io::Error::other)?;
        self.fd.set_vcpu_events(&events)?; // after the registers, which clear events
        Ok(self.fd.set_mp_state(events::activity_to(state))?)
    }

    /// What no profile's CPU can be, and the kernel would take without a word.
    fn check(&self, state: &VcpuState) -> Result<(), EngineError> {
        let profile = &self.complex.profile;
        let wrong = |what: String| Err(EngineError::State(what));
        if state.xsave.bytes().len() != profile.xsave_size() {
            return wrong(format!("its XSAVE image has {} bytes", state.xsave.bytes().len()));
        }
        if state.xcr0 & !profile.xcr0_mask() != 0 || state.xss != 0 {
            return wrong(format!("XCR0 is {:#x} and XSS {:#x}", state.xcr0, state.xss));
        }
        if state.efer & !profile.efer_mask() != 0 {
            return wrong(format!("EFER is {:#x}", state.efer));
        }
        events::events_to(state).map(drop).map_err(EngineError::State)
    }

    /// The form in which a load and a save agree.
    fn comparable(&self, state: &VcpuState) -> VcpuState {
        let mut state = state.clone();
        for segment in state.segments.iter_mut().chain([&mut state.ldtr, &mut state.tr]) {
            *segment = segment.canonical();
        }
        // One count is the kernel's resolution.
        let ns = state.apic.timer.remaining_ns;
        state.apic.timer.remaining_ns = ns.map(|_| APIC_BUS_CYCLE_NS);
        if matches!(state.in_delivery, Some(InDelivery::Software { .. })) {
            state.in_delivery = None; // executing it again is delivery
        }
        if state.shadow != x86_state::InterruptShadow::None {
            state.shadow = x86_state::InterruptShadow::Sti; // SVM has one bit for both
        }
        state
    }

    fn assert_loaded(&mut self, state: &VcpuState) -> Result<(), EngineError> {
        // An interrupt may arrive meanwhile, and reading acts on a SIPI.
        let mut read = self.save()?;
        if state.sipi_pending.is_none() {
            read.apic.regs[0x20..0x28].copy_from_slice(&state.apic.regs[0x20..0x28]);
            read.apic.regs[0x18..0x20].copy_from_slice(&state.apic.regs[0x18..0x20]);
            read.nmi_pending = state.nmi_pending;
            assert_eq!(self.comparable(&read), self.comparable(state), "read back after a load");
        }
        Ok(())
    }
}

fn all_done(failed: Option<u32>) -> io::Result<()> {
    match failed {
        Some(number) => Err(io::Error::other(format!("the kernel refuses MSR {number:#x}"))),
        None => Ok(()),
    }
}

impl Vcpu for HwVcpu {
    fn run(&mut self, bus: &Arc<dyn Bus>) -> Result<Exit, EngineError> {
        self.prepare()?;
        self.timer_count = None;
        self.kicker.enter();
        let exit = self.execute(&**bus);
        self.kicker.leave();
        // Kicked before the step past a breakpoint was done: it may still have to be passed.
        self.has_passed().map_err(refused("set breakpoints"))?;
        if let Ok(Exit::Debug(engine::DebugStop::Breakpoint(address))) = exit {
            self.stopped_at = Some(address);
        }
        exit
    }

    fn save(&mut self) -> Result<VcpuState, EngineError> {
        if self.fresh {
            return Ok(VcpuState::at_reset(&self.complex.profile, self.id));
        }
        self.read().map_err(refused("read a vCPU's state"))?.map_err(EngineError::State)
    }

    fn load(&mut self, state: &VcpuState) -> Result<(), EngineError> {
        self.check(state)?;
        self.write(state).map_err(refused("set a vCPU's state"))?;
        self.fresh = false;
        self.page_is_current = false;
        self.stopped_at = None;
        if cfg!(debug_assertions) {
            self.assert_loaded(state)?;
        }
        Ok(())
    }

    fn set_debug(&mut self, stops: Option<&DebugStops>) -> Result<(), EngineError> {
        let mut request = kvm_guest_debug::default();
        if let Some(stops) = stops {
            if stops.breakpoints.len() > 4 {
                return Err(EngineError::State("more than four breakpoints".to_owned()));
            }
            request.control = KVM_GUESTDBG_ENABLE;
            if stops.step {
                request.control |= KVM_GUESTDBG_SINGLESTEP;
            }
            if !stops.breakpoints.is_empty() {
                request.control |= KVM_GUESTDBG_USE_HW_BP;
                request.arch = hardware_breakpoints(&stops.breakpoints);
            }
        }
        (self.debug, self.passing) = (request, false);
        self.fd.set_guest_debug(&request).map_err(refused("set breakpoints"))
    }
}

fn hardware_breakpoints(addresses: &[u64]) -> kvm_guest_debug_arch {
    let mut arch = kvm_guest_debug_arch::default();
    arch.debugreg[7] = 0x600; // fixed bit, and GE as debuggers set it
    for (i, address) in addresses.iter().enumerate() {
        arch.debugreg[i] = *address;
        arch.debugreg[7] |= 2 << (2 * i); // enabled; type and length zero: execution
    }
    arch
}
