//! The canonical form, without a kernel.

use kvm_bindings::{kvm_sregs, kvm_xsave};
use x86_state::{
    Activity, ApicState, ApicTimer, CpuProfile, Exception, InDelivery, InterruptShadow, Raised,
    SegReg, Segment, Topology, VcpuId, VcpuState, XsaveImage,
};

use super::{apic, events, registers, xsave};

fn profile() -> CpuProfile {
    CpuProfile::portable(Topology { cores: 2 }, 2_000_000).unwrap()
}

fn reset() -> VcpuState {
    VcpuState::at_reset(&profile(), VcpuId(1))
}

#[test]
fn registers_survive_both_ways() {
    let mut state = reset();
    state.regs.gpr = std::array::from_fn(|i| 0x1111 * i as u64);
    state.segments[SegReg::Gs as usize] = Segment::unusable(3, 0xffff_8000_0000_0000);
    state.segments[SegReg::Fs as usize] =
        Segment { base: 16, limit: 0xffff_ffff, selector: 0x2b, attr: 0xc0f3 };
    state.cr3 = 0x1234_5000;
    let mut back = reset();
    back.regs = registers::regs_from(&registers::regs_to(&state.regs));
    registers::sregs_from(&registers::sregs_to(&state), &profile(), &mut back);
    back.debug = registers::debug_from(&registers::debug_to(&state.debug));
    assert_eq!(back, state);
}

#[test]
fn a_segment_that_is_not_present_is_unusable_whatever_its_rights() {
    let mut sregs: kvm_sregs = registers::sregs_to(&reset());
    sregs.ds.present = 0;
    let mut state = reset();
    registers::sregs_from(&sregs, &profile(), &mut state);
    assert_eq!(*state.segment(SegReg::Ds), Segment::unusable(0, 0));
}

#[test]
fn a_null_stack_segment_keeps_the_privilege_level_in_its_selector() {
    let mut state = reset();
    state.segments[SegReg::Ss as usize] = Segment::unusable(2, 0);
    assert_eq!(registers::sregs_to(&state).ss.dpl, 2);
}

#[test]
fn xsave_components_in_their_initial_state_have_its_bytes() {
    let mut kernel = kvm_xsave::default();
    kernel.region[0] = 0xdead; // FCW, of a component that is said not to be there
    kernel.region[6] = 0x1fa0; // MXCSR
    kernel.region[7] = 0x2_ffff;
    kernel.region[116] = 0x4650_5853; // the kernel's note in the bytes for software
    let image = xsave::image_from(&kernel, 576);
    let mut wanted = XsaveImage::initial(576);
    wanted.bytes_mut()[24] = 0xa0;
    assert_eq!(image, wanted);
    assert_eq!(xsave::image_from(&xsave::image_to(&image), 576), image);
}

#[test]
fn events_survive_both_ways() {
    let mut state = reset();
    state.activity = Activity::Halted;
    state.shadow = InterruptShadow::MovSs;
    state.nmi_masked = true;
    state.in_delivery = Some(InDelivery::Interrupt(0x31));
    state.raised =
        Some(Raised { exception: Exception::Pf, error_code: Some(2), payload: Some(0x1000) });
    let mut back = reset();
    back.activity = events::activity_from(events::activity_to(&state));
    events::events_from(&events::events_to(&state).unwrap(), &mut back).unwrap();
    assert_eq!(back, state);
}

#[test]
fn two_exceptions_at_once_are_refused() {
    let mut state = reset();
    state.raised = Some(Raised { exception: Exception::Ud, error_code: None, payload: None });
    state.in_delivery = Some(InDelivery::Exception { vector: 14, error_code: Some(0) });
    assert!(events::events_to(&state).is_err());
}

fn timer(lvt: u32, initial: u32, timer: ApicTimer) -> ApicState {
    let mut apic = ApicState::at_reset(0, true);
    apic.regs[0x32] = lvt;
    apic.regs[0x38] = initial;
    apic.regs[0x3e] = 0b1011; // divide by 1
    apic.timer = timer;
    apic
}

fn through_the_kernel(apic: &ApicState) -> ApicState {
    let (page, parked) = apic::page_to(apic);
    let count = apic::current_count(&page);
    let tsc_deadline = apic.timer.tsc_deadline;
    apic::page_from(&page, apic.base, apic::Known { tsc_deadline, count, parked })
}

#[test]
fn timers_survive_both_ways() {
    let running = ApicTimer { remaining_ns: Some(700), tsc_deadline: 0 };
    let deadline = ApicTimer { remaining_ns: None, tsc_deadline: 12345 };
    for apic in [
        timer(0x31, 1000, running),
        timer(0x2_0031, 1000, running),
        timer(0x4_0031, 0, deadline),
        timer(0x31, 0, ApicTimer::default()),
        timer(0x31, 1000, ApicTimer::default()),
    ] {
        assert_eq!(through_the_kernel(&apic), apic);
    }
}

#[test]
fn a_timer_that_stands_is_not_started_by_the_kernel() {
    let (page, parked) = apic::page_to(&timer(0x31, 1000, ApicTimer::default()));
    assert_eq!((page.regs[0x380], parked), (0, Some(1000)));
}

#[test]
fn processor_priority_follows_from_what_is_in_service() {
    let mut apic = timer(0x31, 0, ApicTimer::default());
    apic.regs[0x08] = 0x25;
    apic.regs[0x12] = 1 << 3; // vector 0x43
    assert_eq!(through_the_kernel(&apic).regs[0x0a], 0x40);
    apic.regs[0x08] = 0x51;
    assert_eq!(through_the_kernel(&apic).regs[0x0a], 0x51);
}
