use x86_state::Topology;

use super::*;

fn profile() -> CpuProfile {
    CpuProfile::portable(Topology { cores: 2 }, 2_000_000).unwrap()
}

/// A state in which no field has its reset value.
fn busy() -> VcpuState {
    let mut state = VcpuState::at_reset(&profile(), VcpuId(1));
    state.regs = Regs { gpr: std::array::from_fn(|i| 100 + i as u64), rip: 7, rflags: 0x246 };
    state.segments = std::array::from_fn(|i| Segment {
        base: i as u64,
        limit: 0xfffff,
        selector: 8,
        attr: 0x93,
    });
    state.segments[0] = Segment::unusable(3, 4);
    state.ldtr.base = 5;
    state.tr.selector = 0x40;
    state.gdtr = DescriptorTable { base: 9, limit: 10 };
    state.idtr = DescriptorTable { base: 11, limit: 12 };
    (state.cr0, state.cr2, state.cr3, state.cr4) = (0x8005_0033, 13, 14, 0x20);
    (state.efer, state.xcr0, state.xss) = (0xd01, 3, 0);
    state.debug = DebugRegs { address: [1, 2, 3, 4], dr6: 5, dr7: 6 };
    state.xsave.bytes_mut()[40] = 0x80;
    state.msrs.star = 15;
    state.msrs.mtrr.fixed[10] = 16;
    state.msrs.mtrr.variable[7] = (17, 18);
    state.tsc_offset = u64::MAX;
    state.apic.regs[63] = 19;
    state.apic.timer = ApicTimer { remaining_ns: Some(20), tsc_deadline: 21 };
    state.activity = Activity::Halted;
    state.shadow = InterruptShadow::MovSs;
    (state.nmi_masked, state.nmi_pending, state.sipi_pending) = (true, true, Some(22));
    let raised = Raised { exception: Exception::Pf, error_code: Some(2), payload: Some(23) };
    state.raised = Some(raised);
    state.in_delivery = Some(InDelivery::Software { vector: 0x80, length: 2 });
    state
}

fn round_trip(state: &VcpuState) -> Result<VcpuState, SectionError> {
    restore_vcpu(&save_vcpu(state), &profile(), VcpuId(1))
}

#[test]
fn what_is_saved_is_what_is_restored() {
    for state in [busy(), VcpuState::at_reset(&profile(), VcpuId(1))] {
        assert_eq!(round_trip(&state).unwrap(), state);
    }
}

#[test]
fn each_kind_of_event_survives() {
    for event in [
        InDelivery::Interrupt(0x30),
        InDelivery::Nmi,
        InDelivery::Exception { vector: 13, error_code: Some(0) },
        InDelivery::Exception { vector: 6, error_code: None },
    ] {
        let state = VcpuState { in_delivery: Some(event), ..busy() };
        assert_eq!(round_trip(&state).unwrap().in_delivery, Some(event));
    }
}

#[test]
fn impossible_states_are_refused() {
    let edits: [fn(&mut SavedVcpu); 9] = [
        |s| s.xsave.push(0),
        |s| s.rflags = 0,
        |s| s.cr4 = 1 << 12,
        |s| s.efer = 1 << 12,
        |s| s.xcr0 = 1 << 2,
        |s| s.activity = 3,
        |s| s.shadow = 3,
        |s| s.apic.regs.truncate(3),
        |s| s.raised = Some(SavedRaised { vector: 15, error_code: None, payload: None }),
    ];
    for (i, edit) in edits.iter().enumerate() {
        let mut saved = SavedVcpu::from(&busy());
        edit(&mut saved);
        let result = restore_vcpu(&Section::encode(&saved), &profile(), VcpuId(1));
        assert!(matches!(result, Err(SectionError::Impossible { .. })), "edit {i}");
    }
}
