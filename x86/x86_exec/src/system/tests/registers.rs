use super::*;
use x86_state::bits::{Cr0, Cr4, Efer};
use x86_state::{Exception, msr};

const PE: u64 = Cr0::PE.bits();
const PG: u64 = Cr0::PG.bits();

#[test]
fn impossible_values_of_cr0_are_refused() {
    let table = [
        (PE, true),
        (PG, false),
        (PE | Cr0::NW.bits(), false),
        (PE | Cr0::NW.bits() | Cr0::CD.bits(), true),
        (PE | 1 << 32, false),
        (PE | PG, true),
    ];
    for (value, fine) in table {
        let mut cpu = protected(&[]);
        assert_eq!(cpu.write_cr0(value).is_ok(), fine, "{value:x}");
        if fine {
            assert_eq!(cpu.cr0, value | Cr0::ET.bits());
        }
    }
}

#[test]
fn long_mode_begins_and_ends_with_paging() {
    let mut cpu = protected(&[]);
    cpu.write_msr(msr::IA32_EFER, Efer::LME.bits()).unwrap();
    assert!(cpu.write_cr0(PE | PG).is_err(), "needs PAE");
    cpu.write_cr4(Cr4::PAE.bits()).unwrap();
    cpu.write_cr0(PE | PG).unwrap();
    assert_eq!(cpu.efer, (Efer::LME | Efer::LMA).bits());
    assert!(cpu.mode.is_long() && !cpu.mode.is_64());
    assert!(cpu.write_cr4(0).is_err(), "PAE must stay");
    assert!(cpu.write_msr(msr::IA32_EFER, 0).is_none(), "LME must stay");
    cpu.write_cr0(PE).unwrap();
    assert_eq!(cpu.efer, Efer::LME.bits());

    let mut cpu = long(0, &[]);
    assert!(cpu.write_cr0(PE).is_err(), "not from 64-bit code");
}

#[test]
fn pcids_need_long_mode_and_hold_paging() {
    let mut cpu = protected(&[]);
    assert!(cpu.write_cr4(Cr4::PCIDE.bits()).is_err());
    let mut cpu = long(0, &[]);
    let with_pcid = cpu.cr4 | Cr4::PCIDE.bits();
    cpu.cr3 |= 5;
    assert!(cpu.write_cr4(with_pcid).is_err(), "CR3 has a PCID already");
    cpu.cr3 &= !0xfff;
    cpu.write_cr4(with_pcid).unwrap();
    assert!(cpu.write_cr4(cpu.cr4 | 1 << 31).is_err(), "not in the profile");
}

#[test]
fn a_new_cr3_takes_effect_at_once_and_bit_63_keeps_translations() {
    let mut cpu = long(0, &[]);
    cpu.write_cr4(cpu.cr4 | Cr4::PCIDE.bits()).unwrap();
    let root = cpu.cr3;
    put64(&cpu, 0x40_0000, 1);
    put64(&cpu, 0x60_0000, 2);
    // A copy of the tables in which 4 MiB leads to 6 MiB.
    for (from, to) in [(0, 0x9000), (0x1000, 0xa000), (0x2000, 0xb000)] {
        let page = cpu.env.get(root + from, 0x1000);
        cpu.env.put(to, &page);
    }
    put64(&cpu, 0x9000, 0xa007);
    put64(&cpu, 0xa000, 0xb007);
    put64(&cpu, 0xb010, 0x60_0087);
    let value = |cpu: &mut TestCpu| cpu.read::<u64>(SegReg::Ds, 0x40_0000).unwrap();
    assert_eq!(value(&mut cpu), 1);
    cpu.load_cr3(0x9001, false).unwrap();
    assert_eq!(value(&mut cpu), 2);
    cpu.load_cr3(root, true).unwrap();
    put64(&cpu, 0xb010, 0x40_0087);
    cpu.load_cr3(0x9001, true).unwrap();
    assert_eq!(value(&mut cpu), 2, "kept");
    cpu.load_cr3(0x9001, false).unwrap();
    assert_eq!(value(&mut cpu), 1, "dropped");
    assert!(cpu.load_cr3(1 << 40, false).is_err(), "beyond physical addresses");
}

#[test]
fn pae_paging_reads_its_first_level_once() {
    let mut cpu = protected(&[]);
    cpu.cr3 = 0x9000;
    put64(&cpu, 0x9000, 0xa001);
    put64(&cpu, 0xa000, 0x83);
    put64(&cpu, 0xa008, 0x60_0083);
    put64(&cpu, 0x60_0000, 0x1234);
    cpu.write_cr4(Cr4::PAE.bits()).unwrap();
    cpu.write_cr0(PE | PG).unwrap();
    put64(&cpu, 0x9000, 0);
    assert_eq!(cpu.read::<u32>(SegReg::Ds, 0x20_0000), Ok(0x1234));
    put64(&cpu, 0x9008, 0xa003);
    assert!(cpu.load_cr3(0x9000, false).is_err(), "a reserved bit");
    put64(&cpu, 0x9008, 0);
    cpu.load_cr3(0x9000, false).unwrap();
    assert!(cpu.read::<u32>(SegReg::Ds, 0x20_0000).is_err());
}

#[test]
fn msrs_refuse_what_they_cannot_hold() {
    const BAD: u64 = 1 << 47;
    let table = [
        (msr::IA32_LSTAR, BAD, false),
        (msr::IA32_LSTAR, !0, true),
        (msr::IA32_FS_BASE, BAD, false),
        (msr::IA32_KERNEL_GS_BASE, BAD, false),
        (msr::IA32_SYSENTER_EIP, BAD, false),
        (msr::IA32_STAR, !0, true),
        (msr::IA32_FMASK, 1 << 32, false),
        (msr::IA32_TSC_AUX, 1 << 32, false),
        (msr::IA32_PAT, 0x0007_0406_0007_0406, true),
        (msr::IA32_PAT, 2, false),
        (msr::IA32_MTRR_DEF_TYPE, 0xc06, true),
        (msr::IA32_MTRR_DEF_TYPE, 0x1006, false),
        (msr::IA32_MTRR_DEF_TYPE, 2, false),
        (0x250, 0x0606_0606_0606_0606, true),
        (0x250, 0x03, false),
        (0x200, 6, true),
        (0x200, 1 << 40, false),
        (0x201, 0x800, true),
        (0x201, 1, false),
        (msr::IA32_EFER, Efer::SCE.bits(), true),
        (msr::IA32_EFER, 1 << 12, false),
        (msr::IA32_MTRRCAP, 0, false),
        (msr::IA32_ARCH_CAPABILITIES, 0, false),
        (0x1234, 0, false),
    ];
    for (number, value, fine) in table {
        let mut cpu = protected(&[]);
        let before = cpu.read_msr(number);
        assert_eq!(cpu.write_msr(number, value).is_some(), fine, "{number:x} {value:x}");
        let after = cpu.read_msr(number);
        assert_eq!(after, if fine { Some(value) } else { before }, "{number:x} {value:x}");
    }
}

#[test]
fn writing_the_tsc_shows_in_its_adjustment_and_the_other_way_round() {
    let mut cpu = protected(&[]);
    cpu.write_msr(msr::IA32_TSC, 1000).unwrap();
    assert_eq!(cpu.read_msr(msr::IA32_TSC_ADJUST), Some(1000));
    cpu.write_msr(msr::IA32_TSC_ADJUST, 400).unwrap();
    assert_eq!(cpu.read_msr(msr::IA32_TSC), Some(400));
}

#[test]
fn syscall_and_sysret_go_to_the_kernel_and_back() {
    // syscall; then in ring 3 again: int3
    let mut cpu = long(3, &[0x0f, 0x05, 0xcc]);
    cpu.msrs.star = u64::from(USER_CODE32) << 48 | u64::from(CODE64) << 32;
    cpu.msrs.lstar = HANDLERS;
    cpu.msrs.fmask = Rflags::IF.bits();
    cpu.system_flags |= Rflags::IF.bits();
    let flags = cpu.rflags();
    cpu.env.put(HANDLERS, &[0x48, 0x0f, 0x07]);
    cpu.step().unwrap();
    assert_eq!((cpu.rip, cpu.cpl, cpu.gpr[RCX], cpu.gpr[11]), (HANDLERS, 0, CODE + 2, flags));
    assert_eq!(cpu.segment(SegReg::Ss).selector, DATA);
    assert!(!has(&cpu, Rflags::IF));
    cpu.step().unwrap();
    assert_eq!((cpu.rip, cpu.cpl, cpu.rflags()), (CODE + 2, 3, flags));
    assert_eq!(cpu.segment(SegReg::Cs).selector, USER_CODE64);
    assert_eq!(cpu.segment(SegReg::Ss).selector, USER_DATA);
}

#[test]
fn sysret_to_nowhere_faults_in_the_kernel() {
    let mut cpu = long(0, &[0x48, 0x0f, 0x07]);
    cpu.gpr[RCX] = 1 << 47;
    assert!(cpu.step().is_err());
    assert_eq!((cpu.fault.exception, cpu.cpl, cpu.rip), (Exception::Gp, 0, CODE));
}

#[test]
fn privileged_instructions_are_refused_in_ring_3() {
    let table: [&[u8]; 14] = [
        &[HLT],
        &[0xfa],
        &[0xfb],
        &[0x0f, 0x20, 0xc0],
        &[0x0f, 0x22, 0xd8],
        &[0x0f, 0x21, 0xc0],
        &[0x0f, 0x32],
        &[0x0f, 0x30],
        &[0x0f, 0x01, 0x38],
        &[0x0f, 0x06],
        &[0x0f, 0x09],
        &[0x0f, 0x01, 0x10],
        &[0x0f, 0x00, 0xd8],
        &[0xee],
    ];
    for code in table {
        let mut cpu = long(3, code);
        assert!(cpu.step().is_err(), "{code:x?}");
        assert_eq!((cpu.fault.exception, cpu.fault.error_code), (Exception::Gp, 0), "{code:x?}");
    }
    for code in [[0x0f, 0x01, 0xca], [0x0f, 0x01, 0xcb]] {
        let mut cpu = long(3, &code);
        assert!(cpu.step().is_err());
        assert_eq!(cpu.fault.exception, Exception::Ud, "CLAC and STAC");
    }
}

#[test]
fn umip_hides_the_tables_from_ring_3() {
    // sgdt [rax], sidt, sldt eax, str eax, smsw eax
    let table: [&[u8]; 5] = [
        &[0x0f, 0x01, 0x00],
        &[0x0f, 0x01, 0x08],
        &[0x0f, 0x00, 0xc0],
        &[0x0f, 0x00, 0xc8],
        &[0x0f, 0x01, 0xe0],
    ];
    for code in table {
        for umip in [0, Cr4::UMIP.bits()] {
            let mut cpu = long(3, code);
            cpu.gpr[0] = 0x50_0000;
            cpu.cr4 |= umip;
            assert_eq!(cpu.step().is_err(), umip != 0, "{code:x?}");
        }
    }
}

#[test]
fn swapgs_exchanges_bases_at_once() {
    // swapgs; mov rax, gs:[0]
    let mut cpu = long(0, &[0x0f, 0x01, 0xf8, 0x65, 0x48, 0x8b, 0x04, 0x25, 0, 0, 0, 0]);
    cpu.msrs.kernel_gs_base = 0x50_0000;
    put64(&cpu, 0x50_0000, 77);
    cpu.step().unwrap();
    cpu.step().unwrap();
    assert_eq!((cpu.gpr[0], cpu.msrs.kernel_gs_base), (77, 0));
}

#[test]
fn stac_opens_user_pages_and_clac_closes_them() {
    // stac; mov eax, [rbx]; clac; mov eax, [rbx]
    let mut cpu = long(0, &[0x0f, 0x01, 0xcb, 0x8b, 0x03, 0x0f, 0x01, 0xca, 0x8b, 0x03]);
    cpu.gpr[3] = 0x50_0000;
    cpu.write_cr4(cpu.cr4 | Cr4::SMAP.bits()).unwrap();
    for _ in 0..3 {
        cpu.step().unwrap();
    }
    assert!(cpu.step().is_err());
    assert_eq!((cpu.fault.exception, cpu.fault.error_code), (Exception::Pf, 1));
}

#[test]
fn sti_holds_interrupts_for_one_instruction() {
    // sti; sti; hlt
    let mut cpu = long(0, &[0xfb, 0xfb, HLT]);
    cpu.step().unwrap();
    assert_eq!(cpu.shadow, x86_state::InterruptShadow::Sti);
    cpu.run(1);
    assert_eq!(cpu.shadow, x86_state::InterruptShadow::None, "they were on already");
}

#[test]
fn xsave_keeps_what_is_asked_for_and_xrstor_brings_it_back() {
    // xsave [rbx]; xrstor [rbx]
    let mut cpu = long(0, &[0x0f, 0xae, 0x23, 0x0f, 0xae, 0x2b]);
    cpu.cr4 |= Cr4::OSXSAVE.bits();
    cpu.xcr0 = 3;
    cpu.gpr[3] = 0x50_0000;
    cpu.gpr[0] = 3;
    cpu.fpu.xmm[9] = 0x1234 << 100 | 5;
    cpu.fpu.top = 3;
    cpu.fpu.st[3] = 0x3fff << 64 | 1 << 63;
    cpu.fpu.in_use = 8;
    let before = cpu.fpu;
    cpu.step().unwrap();
    assert_eq!(get64(&cpu, 0x50_0200), 3, "XSTATE_BV");
    assert_eq!(cpu.env.get(0x50_0004, 1), [8]);
    assert_eq!(get64(&cpu, 0x50_0020), 1 << 63, "ST(0) comes first");
    cpu.fpu = crate::Fpu::default();
    cpu.step().unwrap();
    assert_eq!((cpu.fpu.st, cpu.fpu.xmm, cpu.fpu.top), (before.st, before.xmm, before.top));
    // What XSTATE_BV lacks goes to its initial state.
    put64(&cpu, 0x50_0200, 1);
    cpu.rip = CODE + 3;
    cpu.step().unwrap();
    assert_eq!((cpu.fpu.st[3], cpu.fpu.xmm[9]), (before.st[3], 0));
    // A compacted image is refused.
    put64(&cpu, 0x50_0208, 1 << 63);
    cpu.rip = CODE + 3;
    assert!(cpu.step().is_err());
}

#[test]
fn debug_registers_keep_their_fixed_bits_and_guard_themselves() {
    // mov dr6, rax; mov dr7, rax; mov rcx, dr6
    let mut cpu = long(0, &[0x0f, 0x23, 0xf0, 0x0f, 0x23, 0xf8, 0x0f, 0x21, 0xf1]);
    cpu.gpr[0] = 0xffff_ffff;
    cpu.step().unwrap();
    cpu.step().unwrap();
    assert_eq!((cpu.debug.dr6, cpu.debug.dr7), (0xffff_eff0 | 0xf, 0xffff_27ff));
    assert!(cpu.step().is_err(), "general detect");
    assert_eq!((cpu.fault.exception, cpu.fault.payload), (Exception::Db, 1 << 13));
}
