//! Exceptions, interrupts and NMIs on their way, and what the CPU does.

use kvm_bindings::{
    KVM_MP_STATE_HALTED, KVM_MP_STATE_INIT_RECEIVED, KVM_MP_STATE_RUNNABLE,
    KVM_MP_STATE_SIPI_RECEIVED, KVM_MP_STATE_UNINITIALIZED, KVM_VCPUEVENT_VALID_NMI_PENDING,
    KVM_VCPUEVENT_VALID_PAYLOAD, KVM_VCPUEVENT_VALID_SHADOW, KVM_VCPUEVENT_VALID_SIPI_VECTOR,
    KVM_X86_SHADOW_INT_MOV_SS, KVM_X86_SHADOW_INT_STI, kvm_mp_state, kvm_vcpu_events,
};
use x86_state::{Activity, Exception, InDelivery, InterruptShadow, Raised, VcpuState};

/// Takes over what the kernel says.
///
/// # Errors
/// When it speaks of an exception that does not exist.
pub(crate) fn events_from(e: &kvm_vcpu_events, state: &mut VcpuState) -> Result<(), String> {
    let error_code = (e.exception.has_error_code != 0).then_some(e.exception.error_code);
    state.raised = None;
    if e.exception.pending != 0 {
        let nr = e.exception.nr;
        let exception = Exception::from_vector(nr).ok_or(format!("exception {nr} is raised"))?;
        let payload = (e.exception_has_payload != 0).then_some(e.exception_payload);
        state.raised = Some(Raised { exception, error_code, payload });
    }
    state.in_delivery = if e.exception.injected != 0 {
        // INT3 and INTO: RIP is still at the instruction, and executing it again is delivery.
        let software = matches!(e.exception.nr, 3 | 4);
        (!software).then_some(InDelivery::Exception { vector: e.exception.nr, error_code })
    } else if e.nmi.injected != 0 {
        Some(InDelivery::Nmi)
    } else if e.interrupt.injected != 0 && e.interrupt.soft == 0 {
        Some(InDelivery::Interrupt(e.interrupt.nr))
    } else {
        None // INT n: as INT3
    };
    state.shadow = shadow_from(e.interrupt.shadow);
    state.nmi_masked = e.nmi.masked != 0;
    state.nmi_pending = e.nmi.pending != 0;
    Ok(())
}

fn shadow_from(shadow: u8) -> InterruptShadow {
    match u32::from(shadow) {
        0 => InterruptShadow::None,
        KVM_X86_SHADOW_INT_MOV_SS => InterruptShadow::MovSs,
        // Both bits: SVM does not tell the two apart, and STI is the common one.
        _ => InterruptShadow::Sti,
    }
}

/// What the kernel is to take over.
///
/// # Errors
/// When a second exception is raised while one is delivered: the kernel has one place for both,
/// and no engine saves such a state.
pub(crate) fn events_to(state: &VcpuState) -> Result<kvm_vcpu_events, String> {
    let mut e = kvm_vcpu_events {
        flags: KVM_VCPUEVENT_VALID_NMI_PENDING
            | KVM_VCPUEVENT_VALID_SIPI_VECTOR
            | KVM_VCPUEVENT_VALID_SHADOW
            | KVM_VCPUEVENT_VALID_PAYLOAD,
        ..Default::default()
    };
    if let Some(Raised { exception, error_code, payload }) = state.raised {
        e.exception.pending = 1;
        e.exception.nr = exception as u8;
        e.exception.has_error_code = u8::from(error_code.is_some());
        e.exception.error_code = error_code.unwrap_or(0);
        e.exception_has_payload = u8::from(payload.is_some());
        e.exception_payload = payload.unwrap_or(0);
    }
    match state.in_delivery {
        Some(InDelivery::Exception { vector, error_code }) => {
            if e.exception.pending != 0 {
                return Err(format!("exception {vector} is in delivery while one is raised"));
            }
            e.exception.injected = 1;
            e.exception.nr = vector;
            e.exception.has_error_code = u8::from(error_code.is_some());
            e.exception.error_code = error_code.unwrap_or(0);
        }
        Some(InDelivery::Interrupt(vector)) => {
            e.interrupt.injected = 1;
            e.interrupt.nr = vector;
        }
        Some(InDelivery::Nmi) => e.nmi.injected = 1,
        Some(InDelivery::Software { .. }) | None => {} // executing it again is delivery
    }
    e.interrupt.shadow = match state.shadow {
        InterruptShadow::None => 0,
        InterruptShadow::Sti => KVM_X86_SHADOW_INT_STI as u8,
        InterruptShadow::MovSs => KVM_X86_SHADOW_INT_MOV_SS as u8,
    };
    e.nmi.masked = u8::from(state.nmi_masked);
    e.nmi.pending = u8::from(state.nmi_pending);
    e.sipi_vector = state.sipi_pending.unwrap_or(0).into();
    Ok(e)
}

/// From the kernel. Reading its value makes the kernel act on a SIPI that has arrived, so none is
/// ever pending afterwards.
pub(crate) fn activity_from(mp: kvm_mp_state) -> Activity {
    match mp.mp_state {
        KVM_MP_STATE_HALTED => Activity::Halted,
        KVM_MP_STATE_UNINITIALIZED | KVM_MP_STATE_INIT_RECEIVED => Activity::WaitForSipi,
        _ => Activity::Running,
    }
}

/// To the kernel. `UNINITIALIZED` would ignore a SIPI without an INIT before it, which a CPU
/// after power-up does not.
pub(crate) fn activity_to(state: &VcpuState) -> kvm_mp_state {
    let mp_state = match (state.activity, state.sipi_pending) {
        (Activity::Running, _) => KVM_MP_STATE_RUNNABLE,
        (Activity::Halted, _) => KVM_MP_STATE_HALTED,
        (Activity::WaitForSipi, None) => KVM_MP_STATE_INIT_RECEIVED,
        (Activity::WaitForSipi, Some(_)) => KVM_MP_STATE_SIPI_RECEIVED,
    };
    kvm_mp_state { mp_state }
}
