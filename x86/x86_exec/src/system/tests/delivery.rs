use super::*;
use crate::TripleFault;

/// The five or six words of a long-mode frame, from the current stack.
fn frame<const N: usize>(cpu: &TestCpu) -> [u64; N] {
    std::array::from_fn(|i| get64(cpu, cpu.gpr[RSP] + i as u64 * 8))
}

#[test]
fn int_and_iret_come_back_to_where_they_were() {
    let mut cpu = long(0, &[0xcd, 0x40, HLT]);
    long_gate(&cpu, 0x40, INTERRUPT_GATE, 0, &[0x48, 0xcf]);
    cpu.system_flags |= Rflags::IF.bits();
    let before = (cpu.gpr[RSP], cpu.segments);
    run(&mut cpu);
    assert_eq!((cpu.gpr[RSP], cpu.segments, cpu.rip), (before.0, before.1, CODE + 3));
    assert!(has(&cpu, Rflags::IF));
}

#[test]
fn a_handler_of_the_kernel_gets_the_stack_of_the_tss() {
    let mut cpu = long(3, &[0xcd, 0x40]);
    cpu.gpr[RSP] = 0x80_0003;
    cpu.system_flags |= (Rflags::IF | Rflags::AC).bits();
    let flags = cpu.rflags();
    long_gate(&cpu, 0x40, USER_GATE, 0, &[HLT]);
    runs_into(&mut cpu, 0x40);
    assert_eq!(cpu.gpr[RSP], STACK0 - 40);
    let expected = [CODE + 2, USER_CODE64.into(), flags, 0x80_0003, USER_DATA.into()];
    assert_eq!(frame::<5>(&cpu), expected);
    assert!(!has(&cpu, Rflags::IF) && has(&cpu, Rflags::AC));
    assert_eq!((cpu.cpl, cpu.segment(SegReg::Cs).selector), (0, CODE64));
    assert_eq!(*cpu.segment(SegReg::Ss), Segment::unusable(0, 0));
}

#[test]
fn a_trap_gate_leaves_interrupts_on() {
    let mut cpu = long(0, &[0xcc]);
    long_gate(&cpu, 3, TRAP_GATE, 0, &[HLT]);
    cpu.system_flags |= Rflags::IF.bits();
    runs_into(&mut cpu, 3);
    assert!(has(&cpu, Rflags::IF));
}

#[test]
fn the_same_ring_keeps_its_stack_aligned_and_ist_takes_another() {
    for (ist, top) in [(0, 0x7f_fff0), (1, IST1)] {
        let mut cpu = long(0, &[0x0f, 0x0b]);
        cpu.gpr[RSP] = 0x7f_fffd;
        long_gate(&cpu, 6, INTERRUPT_GATE, ist, &[HLT]);
        runs_into(&mut cpu, 6);
        assert_eq!(cpu.gpr[RSP], top - 40);
        let [rip, _, flags, rsp, ss] = frame(&cpu);
        assert_eq!((rip, rsp, ss), (CODE, 0x7f_fffd, DATA.into()));
        assert!(flags & Rflags::RF.bits() != 0, "a fault");
        assert_eq!(cpu.segment(SegReg::Ss).selector, DATA, "no change of ring");
    }
}

#[test]
fn a_page_fault_tells_address_and_cause() {
    // mov [0x123456789], eax: above what is mapped.
    let mut cpu = long(3, &[0xa3, 0x89, 0x67, 0x45, 0x23, 0x01, 0, 0, 0]);
    long_gate(&cpu, 14, INTERRUPT_GATE, 0, &[HLT]);
    runs_into(&mut cpu, 14);
    assert_eq!(cpu.cr2, 0x1_2345_6789);
    let [code, rip, ..] = frame::<6>(&cpu);
    assert_eq!((code, rip), (6, CODE));
}

#[test]
fn software_cannot_call_the_gates_of_the_kernel() {
    let mut cpu = long(3, &[0xcd, 0x40]);
    long_gate(&cpu, 0x40, INTERRUPT_GATE, 0, &[HLT]);
    long_gate(&cpu, 13, INTERRUPT_GATE, 0, &[HLT]);
    runs_into(&mut cpu, 13);
    let [code, rip, ..] = frame::<6>(&cpu);
    assert_eq!((code, rip), (0x40 << 3 | 2, CODE));
}

#[test]
fn an_interrupt_passes_the_gates_of_the_kernel() {
    let mut cpu = long(3, &[0xeb, 0xfe]);
    long_gate(&cpu, 0x40, INTERRUPT_GATE, 0, &[HLT]);
    cpu.deliver_interrupt(0x40).unwrap();
    runs_into(&mut cpu, 0x40);
    assert_eq!(frame::<5>(&cpu)[0], CODE);
}

#[test]
fn a_fault_in_the_delivery_of_a_benign_event_is_delivered_itself() {
    let mut cpu = long(0, &[0x0f, 0x0b]);
    long_gate(&cpu, 6, 0x0e, 0, &[]);
    long_gate(&cpu, 11, INTERRUPT_GATE, 0, &[HLT]);
    runs_into(&mut cpu, 11);
    let [code, rip, ..] = frame::<6>(&cpu);
    assert_eq!((code, rip), (6 << 3 | 2 | 1, CODE), "IDT and EXT");
}

#[test]
fn contributory_and_page_faults_combine_by_the_manuals_table() {
    /// Raises #DE: div ecx, with ECX zero.
    const DIVIDE: &[u8] = &[0xf7, 0xf1];
    /// Raises #PF.
    const LOAD: &[u8] = &[0xa1, 0, 0, 0, 0, 1, 0, 0, 0];
    // The first exception; how its gate is broken; what is delivered.
    let not_present: fn(&TestCpu, u8) = |cpu, vector| long_gate(cpu, vector, 0x0e, 0, &[]);
    let no_stack: fn(&TestCpu, u8) = |cpu, vector| {
        long_gate(cpu, vector, INTERRUPT_GATE, 2, &[]);
        put64(cpu, TSS + 44, 0x9000_0000);
    };
    type Row = (&'static [u8], u8, fn(&TestCpu, u8), u8);
    let table: [Row; 4] = [
        (DIVIDE, 0, not_present, 8),
        (DIVIDE, 0, no_stack, 14),
        (LOAD, 14, not_present, 8),
        (LOAD, 14, no_stack, 8),
    ];
    for (code, first, break_gate, delivered) in table {
        let mut cpu = long(0, code);
        for vector in [8, 11, 14] {
            long_gate(&cpu, vector, INTERRUPT_GATE, 1, &[HLT]);
        }
        break_gate(&cpu, first);
        runs_into(&mut cpu, delivered);
        let [error, rip, ..] = frame::<6>(&cpu);
        let expected = if delivered == 14 { 2 } else { 0 };
        assert_eq!((error, rip), (expected, CODE), "{code:x?}");
    }
}

#[test]
fn a_double_fault_without_a_handler_shuts_down() {
    let mut cpu = long(0, &[0x0f, 0x0b]);
    cpu.idtr.limit = 0;
    assert_eq!(cpu.run(10), RunExit::TripleFault);
    assert_eq!(cpu.rip, CODE);
    assert_eq!(cpu.deliver_interrupt(0x40), Err(TripleFault));
}

#[test]
fn an_nmi_masks_the_next_until_iret() {
    let mut cpu = long(0, &[HLT]);
    long_gate(&cpu, 2, INTERRUPT_GATE, 0, &[0x48, 0xcf]);
    cpu.deliver_nmi().unwrap();
    assert!(cpu.nmi_masked);
    run(&mut cpu);
    assert!(!cpu.nmi_masked);
    assert_eq!(cpu.rip, CODE + 1);
}

#[test]
fn single_step_stops_after_each_instruction_but_not_in_the_handler() {
    // nop; int 0x40; nop; int 0x41
    let mut cpu = long(0, &[0x90, 0xcd, 0x40, 0x90, 0xcd, 0x41]);
    // inc ebx; iretq
    long_gate(&cpu, 1, INTERRUPT_GATE, 0, &[0xff, 0xc3, 0x48, 0xcf]);
    long_gate(&cpu, 0x40, INTERRUPT_GATE, 0, &[0x90, 0x90, 0x48, 0xcf]);
    long_gate(&cpu, 0x41, INTERRUPT_GATE, 0, &[HLT]);
    cpu.system_flags |= Rflags::TF.bits();
    runs_into(&mut cpu, 0x41);
    // After both NOPs. Not after INT, in its handler, nor after the IRET that set TF again.
    assert_eq!(cpu.gpr[3] & 0xff, 2);
    assert_eq!(cpu.debug.dr6 & 0x400f, 0x4000);
}

#[test]
fn a_data_breakpoint_traps_after_the_store() {
    // mov [rip+0x1000], eax; hlt
    let mut cpu = long(0, &[0x89, 0x05, 0, 0x10, 0, 0, HLT]);
    long_gate(&cpu, 1, INTERRUPT_GATE, 0, &[HLT]);
    cpu.gpr[0] = 0x55;
    cpu.debug.address[2] = CODE + 0x1006 + 3;
    cpu.debug.dr7 = 0x400 | 1 << 5 | 1 << 24;
    cpu.update_access();
    runs_into(&mut cpu, 1);
    assert_eq!(get32(&cpu, CODE + 0x1006), 0x55);
    assert_eq!((frame::<5>(&cpu)[0], cpu.debug.dr6 & 0xf), (CODE + 6, 4));
}

#[test]
fn a_load_of_ss_holds_the_trap() {
    // mov ss, ecx; mov eax, 1; hlt
    let mut cpu = long(0, &[0x8e, 0xd1, 0xb8, 1, 0, 0, 0, HLT]);
    cpu.gpr[RCX] = DATA.into();
    cpu.system_flags |= Rflags::TF.bits();
    long_gate(&cpu, 1, INTERRUPT_GATE, 0, &[HLT]);
    runs_into(&mut cpu, 1);
    assert_eq!((frame::<5>(&cpu)[0], cpu.gpr[0]), (CODE + 7, 1));
}

#[test]
fn a_held_trap_comes_with_the_one_of_int1() {
    // mov ss, [rip+0x1000]; int1
    let mut cpu = long(0, &[0x8e, 0x15, 0, 0x10, 0, 0, 0xf1]);
    cpu.env.put(CODE + 0x1006, &DATA.to_le_bytes());
    cpu.debug.address[0] = CODE + 0x1006;
    // Reads and writes of two bytes.
    cpu.debug.dr7 = 0x400 | 1 << 1 | 7 << 16;
    cpu.update_access();
    long_gate(&cpu, 1, INTERRUPT_GATE, 1, &[HLT]);
    runs_into(&mut cpu, 1);
    assert_eq!(frame::<5>(&cpu)[0], CODE + 7, "one frame, of the code that was interrupted");
    assert_eq!(cpu.debug.dr6 & 0xf, 1);
}

#[test]
fn only_the_first_load_of_ss_casts_a_shadow() {
    let mut cpu = long(0, &[0x8e, 0xd1, 0x8e, 0xd1, 0x90]);
    cpu.gpr[RCX] = DATA.into();
    cpu.run(1);
    assert_eq!(cpu.shadow, x86_state::InterruptShadow::MovSs);
    cpu.run(1);
    assert_eq!(cpu.shadow, x86_state::InterruptShadow::None);
}

#[test]
fn real_mode_goes_through_the_vector_table() {
    // int 0x21; hlt at 0x7c00; handler at 0x1000:0x20: iret
    let mut cpu = Cpu::real16(0x7c00, &[0xcd, 0x21, HLT]);
    cpu.gpr[RSP] = 0xffff_1000;
    cpu.system_flags |= Rflags::IF.bits();
    cpu.env.put(0x21 * 4, &[0x20, 0, 0, 0x10]);
    cpu.env.put(0x1_0020, &[HLT, 0xcf]);
    run(&mut cpu);
    assert_eq!((cpu.segment(SegReg::Cs).base, cpu.rip), (0x1_0000, 0x21));
    assert_eq!(cpu.gpr[RSP], 0xffff_0ffa);
    assert_eq!(cpu.env.get(0xffa, 6), [2, 0x7c, 0, 0, 2, 2]);
    assert!(!has(&cpu, Rflags::IF));
    cpu.activity = x86_state::Activity::Running;
    run(&mut cpu);
    assert_eq!((cpu.rip, cpu.gpr[RSP]), (0x7c03, 0xffff_1000));
    assert!(has(&cpu, Rflags::IF));
}

#[test]
fn interrupts_leave_compatibility_mode_and_return_to_it() {
    // 32-bit: int 0x40; inc eax; int 0x41
    let mut cpu = long(3, &[0xcd, 0x40, 0x40, 0xcd, 0x41]);
    cpu.segments[SegReg::Cs as usize] =
        Segment { base: 0, limit: u32::MAX, selector: USER_CODE32, attr: 0xc0fb };
    cpu.update_mode();
    long_gate(&cpu, 0x40, USER_GATE, 0, &[0x48, 0xcf]);
    long_gate(&cpu, 0x41, USER_GATE, 0, &[HLT]);
    runs_into(&mut cpu, 0x41);
    assert_eq!(cpu.gpr[0], 1);
    assert_eq!(frame::<5>(&cpu)[1], USER_CODE32.into());
}

#[test]
fn what_a_state_had_begun_is_finished_first() {
    let mut cpu = long(3, &[0xeb, 0xfe]);
    long_gate(&cpu, 14, INTERRUPT_GATE, 0, &[HLT]);
    cpu.raised = Some(x86_state::Raised {
        exception: x86_state::Exception::Pf,
        error_code: Some(4),
        payload: Some(0x1234),
    });
    cpu.deliver_pending().unwrap();
    runs_into(&mut cpu, 14);
    assert_eq!((cpu.cr2, frame::<6>(&cpu)[0]), (0x1234, 4));
}
