use super::*;
use x86_state::Exception;

/// Loads a data segment register at this ring, and says what came of it.
fn load(ring: u8, seg: SegReg, selector: u16, descriptor: u64) -> Result<Segment, (u8, u32)> {
    let mut cpu = if ring == 3 { protected_user(&[]) } else { protected(&[]) };
    describe(&cpu, OWN, descriptor);
    match cpu.load_segment(seg, selector) {
        Ok(()) => Ok(*cpu.segment(seg)),
        Err(_) => Err((cpu.fault.exception as u8, cpu.fault.error_code)),
    }
}

#[test]
fn segment_loads_check_type_level_and_presence() {
    let (gp, np, ss) = (Exception::Gp as u8, Exception::Np as u8, Exception::Ss as u8);
    let with = |attr: u64| 0x00c0_0000_0000_ffff | attr << 40;
    let own = u32::from(OWN);
    // Ring, register, RPL, attributes, expected.
    let table = [
        (0, SegReg::Ds, 0, 0x93, None),
        (0, SegReg::Ds, 3, 0x93, Some((gp, own))),
        (3, SegReg::Ds, 3, 0x93, Some((gp, own))),
        (3, SegReg::Ds, 3, 0xf3, None),
        (3, SegReg::Es, 3, 0x9f, None),
        (0, SegReg::Es, 0, 0x9b, None),
        (0, SegReg::Es, 0, 0x99, Some((gp, own))),
        (0, SegReg::Fs, 0, 0x13, Some((np, own))),
        (0, SegReg::Fs, 0, 0x89, Some((gp, own))),
        (0, SegReg::Ss, 0, 0x93, None),
        (0, SegReg::Ss, 0, 0x91, Some((gp, own))),
        (0, SegReg::Ss, 0, 0x9b, Some((gp, own))),
        (0, SegReg::Ss, 3, 0x93, Some((gp, own))),
        (0, SegReg::Ss, 0, 0xf3, Some((gp, own))),
        (0, SegReg::Ss, 0, 0x13, Some((ss, own))),
        (3, SegReg::Ss, 3, 0xf3, None),
    ];
    for (ring, seg, rpl, attr, expected) in table {
        let found = load(ring, seg, OWN | rpl, with(attr));
        assert_eq!(found.err(), expected, "ring {ring} {seg:?} rpl {rpl} {attr:x}");
    }
}

#[test]
fn null_selectors_make_data_segments_unusable_and_stacks_fault() {
    assert_eq!(load(0, SegReg::Gs, 3, 0), Ok(Segment::unusable(3, 0)));
    assert_eq!(load(0, SegReg::Ss, 0, 0), Err((Exception::Gp as u8, 0)));
    let mut cpu = long(0, &[]);
    cpu.load_segment(SegReg::Ss, 0).unwrap();
    assert_eq!((cpu.cpl, *cpu.segment(SegReg::Ss)), (0, Segment::unusable(0, 0)));
    assert!(cpu.load_segment(SegReg::Ss, 3).is_err());
}

#[test]
fn selectors_outside_of_their_table_fault_by_their_number() {
    assert_eq!(load(0, SegReg::Ds, 0x1003, 0), Err((Exception::Gp as u8, 0x1000)));
    assert_eq!(load(0, SegReg::Ds, 0x0c, 0), Err((Exception::Gp as u8, 0x0c)), "no LDT");
}

#[test]
fn a_load_marks_the_descriptor_accessed() {
    let mut cpu = protected(&[]);
    describe(&cpu, OWN, 0x12c0_9234_5678_0fff);
    cpu.load_segment(SegReg::Ds, OWN).unwrap();
    let expected = Segment { base: 0x1234_5678, limit: 0x00ff_ffff, selector: OWN, attr: 0xc093 };
    let expected = Segment { limit: 0x0fff << 12 | 0xfff, ..expected };
    assert_eq!(*cpu.segment(SegReg::Ds), expected);
    assert_eq!(get64(&cpu, GDT + u64::from(OWN)), 0x12c0_9334_5678_0fff);
}

#[test]
fn limits_hold_upwards_and_downwards() {
    let read = |attr: u64, limit: u64, offset: u64| {
        let mut cpu = protected(&[]);
        describe(&cpu, OWN, attr << 40 | limit);
        cpu.load_segment(SegReg::Ds, OWN).unwrap();
        cpu.read::<u32>(SegReg::Ds, offset).is_ok()
    };
    let (up, down, down_big) = (0x93, 0x97, 0x4097);
    assert!(read(up, 0xfff, 0xffc) && !read(up, 0xfff, 0xffd));
    assert!(!read(down, 0xfff, 0xfff) && read(down, 0xfff, 0x1000));
    assert!(read(down, 0xfff, 0xfffc) && !read(down, 0xfff, 0xfffd));
    assert!(read(down_big, 0xfff, 0x1_0000) && !read(down_big, 0xfff, 0xffff_fffd));
    assert!(!read(up, 0xfffff, 0xffff_fffd), "does not wrap");
}

#[test]
fn only_what_a_segment_allows_is_done() {
    let mut cpu = protected(&[]);
    for (attr, reads, writes) in
        [(0x93_u64, true, true), (0x91, true, false), (0x9b, true, false), (0x99, false, false)]
    {
        describe(&cpu, OWN, attr << 40 | 0xffff);
        // Execute-only code cannot be loaded by MOV: set it as a far jump would.
        cpu.segments[SegReg::Es as usize] =
            Segment { base: 0, limit: 0xffff, selector: OWN, attr: attr as u16 };
        cpu.update_access();
        assert_eq!(cpu.read::<u8>(SegReg::Es, 5).is_ok(), reads, "{attr:x}");
        assert_eq!(cpu.write::<u8>(SegReg::Es, 0x5000, 1).is_ok(), writes, "{attr:x}");
    }
}

/// A 32-bit call gate for ring 3, with two parameters.
fn with_call_gate(cpu: &TestCpu, handler: &[u8]) {
    cpu.env.put(HANDLERS, handler);
    let low = HANDLERS & 0xffff | (HANDLERS & 0xffff_0000) << 32;
    describe(cpu, OWN, low | u64::from(CODE32) << 16 | 2 << 32 | 0xec << 40);
}

#[test]
fn a_call_gate_copies_parameters_and_retf_takes_them_off() {
    // push 1; push 2; call far OWN:0; int3
    let mut code = vec![0x6a, 1, 0x6a, 2, 0x9a, 0, 0, 0, 0];
    code.extend([OWN as u8, 0, 0xcc]);
    let mut cpu = protected_user(&code);
    cpu.segments[SegReg::Ds as usize] = Segment { attr: 0xc093, ..*cpu.segment(SegReg::Ss) };
    // mov eax, [esp+8]; mov ebx, [esp+12]; retf 8
    let handler = [0x8b, 0x44, 0x24, 8, 0x8b, 0x5c, 0x24, 12, 0xca, 8, 0];
    with_call_gate(&cpu, &handler);
    gate(&cpu, 3, USER_GATE, &[HLT]);
    runs_into(&mut cpu, 3);
    assert_eq!((cpu.gpr[0], cpu.gpr[3]), (2, 1));
    assert_eq!(get32(&cpu, STACK0 - 8), 0x80_0000, "both parameters were taken off");
    assert_eq!(get32(&cpu, STACK0 - 4), USER_DATA.into());
    let ds = cpu.segment(SegReg::Ds);
    assert_eq!((ds.selector, ds.attr), (0, Segment::UNUSABLE), "was the kernel's");
}

#[test]
fn a_far_jump_cannot_change_the_ring() {
    // jmp far CODE32:0
    let mut code = vec![0xea, 0, 0, 0, 0];
    code.extend([CODE32 as u8, 0]);
    let mut cpu = protected_user(&code);
    gate(&cpu, 13, INTERRUPT_GATE, &[HLT]);
    runs_into(&mut cpu, 13);
    assert_eq!(get32(&cpu, cpu.gpr[RSP]), CODE32.into());
}

#[test]
fn virtual_8086_mode_is_entered_and_left() {
    // iretd to 1000:0, whose code is: mov ax, ds; int 0x40
    let mut cpu = protected(&[0xcf]);
    let flags = (Rflags::VM | Rflags::VIF | Rflags::IOPL | Rflags::FIXED).bits() as u32;
    let frame: [u32; 9] = [0, 0x4000, flags, 0x100, 0x5000, 0x6000, 0x7000, 0x8000, 0x9000];
    for (i, word) in (0..).zip(frame) {
        cpu.env.put(0x7f_0000 + i * 4, &u32::to_le_bytes(word));
    }
    cpu.gpr[RSP] = 0x7f_0000;
    cpu.env.put(0x4_0000, &[0x8c, 0xd8, 0xcd, 0x40]);
    gate(&cpu, 0x40, USER_GATE, &[HLT]);
    runs_into(&mut cpu, 0x40);
    assert_eq!(cpu.gpr[0], 0x7000, "DS");
    assert_eq!(cpu.gpr[RSP], STACK0 - 36);
    let pushed: [u32; 9] = std::array::from_fn(|i| get32(&cpu, STACK0 - 36 + i as u64 * 4));
    assert_eq!(pushed, [4, 0x4000, flags, 0x100, 0x5000, 0x6000, 0x7000, 0x8000, 0x9000]);
    for seg in [SegReg::Ds, SegReg::Es, SegReg::Fs, SegReg::Gs] {
        assert_eq!(*cpu.segment(seg), Segment::unusable(0, 0), "{seg:?}");
    }
    assert_eq!((cpu.cpl, has(&cpu, Rflags::VM)), (0, false));
}

#[test]
fn iret_of_ring_0_takes_vif_and_vip_from_the_frame() {
    // iretd to the hlt behind it
    for (flags, before) in [(Rflags::VIF | Rflags::VIP, 0), (Rflags::empty(), 3 << 19)] {
        let mut cpu = protected(&[0xcf, HLT]);
        cpu.set_rflags(before);
        let cs = cpu.segment(SegReg::Cs).selector.into();
        for (i, word) in (0..).zip([cpu.rip as u32 + 1, cs, flags.bits() as u32]) {
            cpu.env.put(0x7f_0000 + i * 4, &u32::to_le_bytes(word));
        }
        cpu.gpr[RSP] = 0x7f_0000;
        run(&mut cpu);
        assert_eq!(cpu.rflags(), (flags | Rflags::FIXED).bits());
    }
}

#[test]
fn popf_of_ring_0_leaves_vif_and_vip_and_clears_rf() {
    let kept = (Rflags::VIF | Rflags::VIP).bits();
    for (image, before) in [(0, kept), (kept, 0), (kept | Rflags::VM.bits(), kept)] {
        let mut cpu = protected(&[0x9d, HLT]);
        cpu.set_rflags(before | Rflags::RF.bits());
        cpu.env.put(0x7f_0000, &u32::to_le_bytes(image as u32));
        cpu.gpr[RSP] = 0x7f_0000;
        run(&mut cpu);
        assert_eq!(cpu.rflags(), before | Rflags::FIXED.bits(), "{image:x}");
    }
}

#[test]
fn int_in_virtual_8086_mode_needs_iopl_3() {
    let mut cpu = protected(&[]);
    for segment in &mut cpu.segments {
        *segment = Segment { attr: 0xf3, ..Segment::real(0x4000) };
    }
    cpu.env.put(0x4_0010, &[0xcd, 0x40]);
    cpu.rip = 0x10;
    cpu.system_flags |= Rflags::VM.bits();
    cpu.update_mode();
    gate(&cpu, 0x40, USER_GATE, &[HLT]);
    gate(&cpu, 13, INTERRUPT_GATE, &[HLT]);
    runs_into(&mut cpu, 13);
    assert_eq!(get32(&cpu, cpu.gpr[RSP]), 0);
}

#[test]
fn checks_of_selectors_set_the_zero_flag() {
    // verr cx; verw cx; lar eax, ecx; lsl eax, ecx
    let table: [(&[u8], u16, bool); 9] = [
        (&[0x0f, 0x00, 0xe1], USER_DATA, true),
        (&[0x0f, 0x00, 0xe1], DATA, false),
        (&[0x0f, 0x00, 0xe1], 0, false),
        (&[0x0f, 0x00, 0xe1], 0xfff8, false),
        (&[0x0f, 0x00, 0xe9], USER_DATA, true),
        (&[0x0f, 0x00, 0xe9], USER_CODE32, false),
        (&[0x0f, 0x02, 0xc1], USER_DATA, true),
        (&[0x0f, 0x03, 0xc1], USER_DATA, true),
        (&[0x0f, 0x03, 0xc1], TSS_AT | 3, false),
    ];
    for (code, selector, expected) in table {
        let mut cpu = protected_user(code);
        cpu.gpr[RCX] = selector.into();
        cpu.step().unwrap();
        assert_eq!(has(&cpu, Rflags::ZF), expected, "{code:x?} {selector:x}");
        let result = match (code[1], expected) {
            (2, true) => 0x00cf_f300,
            (3, true) => 0xffff_ffff,
            _ => 0,
        };
        assert_eq!(cpu.gpr[0], result);
    }
}

#[test]
fn the_bitmap_of_the_tss_opens_ports() {
    let mut cpu = protected_user(&[]);
    cpu.tr.limit = 0x88;
    cpu.env.put(TSS + 0x66, &[0x68, 0]);
    cpu.env.put(TSS + 0x68, &[0xff; 0x20]);
    cpu.env.put(TSS + 0x68 + 2, &[0b0111_1111, 0b1111_1110]);
    let mut allowed = |port, size| cpu.check_io(port, size).is_ok();
    assert!(allowed(23, 1) && allowed(24, 1) && allowed(23, 2));
    assert!(!allowed(22, 1) && !allowed(22, 2) && !allowed(24, 2) && !allowed(23, 4));
    assert!(!allowed(0xffff, 1), "beyond the limit");
    cpu.system_flags |= Rflags::IOPL.bits();
    assert!(cpu.check_io(0xffff, 1).is_ok());
}
