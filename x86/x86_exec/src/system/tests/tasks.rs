use super::*;

const OTHER: u64 = 0x1_3000;

/// A second 32-bit task at OWN that runs `code` on its own stack.
fn with_task(cpu: &TestCpu, code: &[u8]) {
    describe(cpu, OWN, 0x0000_8900_0000_0067 | OTHER << 16);
    cpu.env.put(HANDLERS, code);
    let word = |at: u64, value: u32| cpu.env.put(OTHER + at, &value.to_le_bytes());
    word(0x20, HANDLERS as u32);
    word(0x24, 2);
    word(0x28, 0x1111); // EAX
    word(0x38, 0x70_0000); // ESP
    for (at, selector) in [(0x48, DATA), (0x4c, CODE32), (0x50, DATA), (0x54, DATA)] {
        word(at, selector.into());
    }
    word(0x58, 0);
    word(0x5c, 0);
    word(0x60, 0);
}

fn is_busy(cpu: &TestCpu, selector: u16) -> bool {
    get64(cpu, GDT + u64::from(selector)) >> 41 & 1 != 0
}

/// call or jmp far OWN:0, then hlt.
fn far(opcode: u8) -> Vec<u8> {
    vec![opcode, 0, 0, 0, 0, OWN as u8, 0, HLT]
}

#[test]
fn a_call_to_a_task_nests_and_iret_returns() {
    let mut cpu = protected(&far(0x9a));
    cpu.gpr[0] = 0xaaaa;
    // mov ebx, eax; iretd; inc ebx; hlt
    with_task(&cpu, &[0x89, 0xc3, 0xcf, 0x43, HLT]);
    cpu.step().unwrap();
    assert_eq!((cpu.rip, cpu.gpr[0], cpu.gpr[RSP]), (HANDLERS, 0x1111, 0x70_0000));
    assert_eq!(cpu.env.get(OTHER, 2), TSS_AT.to_le_bytes());
    assert!(has(&cpu, Rflags::NT) && is_busy(&cpu, OWN) && is_busy(&cpu, TSS_AT));
    assert!(cpu.cr0 & 8 != 0, "TS");
    run(&mut cpu);
    assert_eq!((cpu.rip, cpu.gpr[0], cpu.tr.selector), (CODE + 8, 0xaaaa, TSS_AT));
    assert!(!has(&cpu, Rflags::NT) && !is_busy(&cpu, OWN) && is_busy(&cpu, TSS_AT));
    assert_eq!(get32(&cpu, OTHER + 0x34), 0x1111, "EBX of the other task was saved");
    // Entered again, it goes on after its IRET.
    cpu.rip = CODE;
    cpu.activity = x86_state::Activity::Running;
    run(&mut cpu);
    assert_eq!((cpu.gpr[3], cpu.rip), (0x1112, HANDLERS + 5));
}

#[test]
fn a_jump_to_a_task_leaves_the_old_one_available() {
    let mut cpu = protected(&far(0xea));
    with_task(&cpu, &[HLT]);
    run(&mut cpu);
    assert_eq!(cpu.rip, HANDLERS + 1);
    assert!(!has(&cpu, Rflags::NT) && is_busy(&cpu, OWN) && !is_busy(&cpu, TSS_AT));
    assert_eq!(get32(&cpu, TSS + 0x20), CODE as u32 + 7, "EIP");
}

#[test]
fn a_busy_task_cannot_be_entered() {
    let mut cpu = protected(&far(0x9a));
    with_task(&cpu, &[HLT]);
    let raw = get64(&cpu, GDT + u64::from(OWN));
    describe(&cpu, OWN, raw | 1 << 41);
    gate(&cpu, 13, INTERRUPT_GATE, &[HLT]);
    runs_into(&mut cpu, 13);
    assert_eq!(get32(&cpu, cpu.gpr[RSP]), OWN.into());
    assert_eq!(cpu.tr.selector, TSS_AT);
}

#[test]
fn a_wrong_segment_faults_in_the_new_task() {
    let mut cpu = protected(&far(0x9a));
    with_task(&cpu, &[HLT]);
    cpu.env.put(OTHER + 0x54, &USER_CODE32.to_le_bytes());
    cpu.env.put(OTHER + 0x50, &USER_DATA.to_le_bytes());
    gate(&cpu, 10, INTERRUPT_GATE, &[HLT]);
    // SS of ring 3 under ring-0 code: #TS, delivered with the new task's registers. Its SS is
    // not usable, so neither is the stack: a double fault, through a task gate as it should be.
    describe(&cpu, 0x58, 0x0000_8900_0000_0067 | 0x1_4000 << 16);
    let other = cpu.env.get(OTHER, 0x68);
    cpu.env.put(0x1_4000, &other);
    cpu.env.put(0x1_4000 + 0x20, &((HANDLERS + 0x80) as u32).to_le_bytes());
    cpu.env.put(0x1_4000 + 0x50, &DATA.to_le_bytes());
    cpu.env.put(0x1_4000 + 0x54, &DATA.to_le_bytes());
    cpu.env.put(HANDLERS + 0x80, &[HLT]);
    put64(&cpu, IDT + 8 * 8, 0x0000_8500_0058_0000);
    run(&mut cpu);
    assert_eq!((cpu.rip, cpu.tr.selector), (HANDLERS + 0x81, 0x58));
    assert_eq!(get32(&cpu, cpu.gpr[RSP]), 0, "error code of the double fault");
    assert_eq!(cpu.env.get(0x1_4000, 2), OWN.to_le_bytes(), "linked to the faulting task");
}

#[test]
fn a_16_bit_task_is_saved_in_its_own_form() {
    let mut cpu = protected(&far(0x9a));
    describe(&cpu, OWN, 0x0000_8100_0000_002b | OTHER << 16);
    let word = |at: u64, value: u16| cpu.env.put(OTHER + at, &value.to_le_bytes());
    word(0x0e, 0x2000);
    word(0x10, 2);
    word(0x12, 0x77);
    word(0x1a, 0x6000);
    for (at, selector) in [(0x22, DATA), (0x24, CODE32), (0x26, DATA), (0x28, DATA)] {
        word(at, selector);
    }
    word(0x2a, 0);
    // inc ebx; iretd
    cpu.env.put(0x2000, &[0x43, 0xcf]);
    run(&mut cpu);
    assert_eq!(cpu.rip, CODE + 8);
    assert_eq!(cpu.env.get(OTHER + 0x18, 2), [1, 0], "BX");
    assert_eq!(cpu.env.get(OTHER + 0x0e, 2), [2, 0x20], "IP");
}
