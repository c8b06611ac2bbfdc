use super::*;
use x86_state::{CpuProfile, Gpr, Topology, VcpuId, VcpuState};

fn at_reset() -> VcpuState {
    let profile = CpuProfile::portable(Topology { cores: 1 }, 2_000_000).unwrap();
    VcpuState::at_reset(&profile, VcpuId(0))
}

#[test]
fn load_then_save_is_the_identity() {
    let mut state = at_reset();
    let mut cpu = long(3, &[]);
    let mut seen = state.clone();
    cpu.load_state(&state);
    cpu.save_state(&mut seen);
    assert_eq!(seen, state, "reset");

    // A state in which every field differs from reset's.
    let other = long(3, &[]);
    state.regs.gpr = std::array::from_fn(|i| 0x0101_0101_0101_0101 * (i as u64 + 1));
    state.regs.rip = 0x1234;
    state.regs.rflags = 0x4_0a97;
    state.segments = other.segments;
    state.segments[SegReg::Ds as usize] = Segment::unusable(0, 0);
    state.segments[SegReg::Fs as usize] = Segment::unusable(3, 0x7fff_0000_0000);
    state.ldtr = Segment::unusable(0, 0);
    state.tr = other.tr;
    (state.gdtr, state.idtr) = (other.gdtr, other.idtr);
    (state.cr0, state.cr2, state.cr3) = (other.cr0, 0xdead, other.cr3);
    (state.cr4, state.efer, state.xcr0) = (other.cr4, other.efer, 3);
    state.debug.address = [1, 2, 3, 4];
    state.debug.dr7 = 0x455;
    state.msrs.lstar = 0xffff_8000_0000_0000;
    state.msrs.mtrr.variable[3] = (6, 0x800);
    state.activity = x86_state::Activity::Halted;
    state.shadow = x86_state::InterruptShadow::MovSs;
    state.nmi_masked = true;
    state.raised = Some(x86_state::Raised {
        exception: x86_state::Exception::Gp,
        error_code: Some(8),
        payload: None,
    });
    state.in_delivery = Some(x86_state::InDelivery::Nmi);
    let image = state.xsave.bytes_mut();
    for (i, byte) in image[32..416].iter_mut().enumerate() {
        *byte = if i < 128 && i % 16 >= 10 { 0 } else { i as u8 };
    }
    image[2..4].copy_from_slice(&0x2800_u16.to_le_bytes());
    image[4] = 0x55;
    let mut seen = at_reset();
    cpu.load_state(&state);
    cpu.save_state(&mut seen);
    assert_eq!(seen, state);
    assert_eq!(cpu.cpl, 3);
    assert_eq!(cpu.fpu.top, 5);
}

#[test]
fn a_loaded_state_sees_memory_as_it_is_now() {
    let mut cpu = long(0, &[]);
    put64(&cpu, 0x40_0000, 1);
    put64(&cpu, 0x60_0000, 2);
    assert_eq!(cpu.read::<u64>(SegReg::Ds, 0x40_0000), Ok(1));
    let mut state = at_reset();
    cpu.save_state(&mut state);
    put64(&cpu, 0x3010, 0x60_0087);
    assert_eq!(cpu.read::<u64>(SegReg::Ds, 0x40_0000), Ok(1), "a translation is kept");
    cpu.load_state(&state);
    assert_eq!(cpu.read::<u64>(SegReg::Ds, 0x40_0000), Ok(2));
}

#[test]
fn a_held_debug_trap_is_part_of_the_state() {
    // mov ss, ecx
    let mut cpu = long(0, &[0x8e, 0xd1, 0x90]);
    cpu.gpr[Gpr::Rcx as usize] = DATA.into();
    cpu.debug_hits = 4;
    let mut state = at_reset();
    cpu.save_state(&mut state);
    let raised = state.raised.unwrap();
    assert_eq!((raised.exception, raised.payload), (x86_state::Exception::Db, Some(4)));
}
