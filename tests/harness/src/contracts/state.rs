//! Save and load.

use std::thread;
use std::time::Duration;

use x86_state::{
    Activity, ApicState, ApicTimer, Exception, Gpr, InDelivery, InterruptShadow, Raised, SegReg,
    Segment, VcpuId, VcpuState,
};

use crate::{Machine, Subject, guest};

/// A state and what it is about.
type Case = (&'static str, fn(&mut VcpuState));

const CASES: &[Case] = &[
    ("64-bit mode", |_| {}),
    ("general registers", |s| {
        s.regs.gpr = std::array::from_fn(|i| 0x0123_4567_89ab_cdef_u64.rotate_left(i as u32 * 4));
        s.regs.rflags = 0xad7;
    }),
    ("segments", |s| {
        s.segments[SegReg::Fs as usize].base = 0xffff_8000_1234_5678;
        s.segments[SegReg::Gs as usize] = Segment::unusable(0, 0x7fff_1234_5678);
        s.segments[SegReg::Ds as usize] = Segment::unusable(0, 0);
        s.ldtr = Segment { base: 0x1_2340, limit: 0xfff, selector: 0x18, attr: 0x82 };
        s.tr = Segment { base: 0xffff_8000_0000_1000, limit: 0x67, selector: 0x20, attr: 0x8b };
    }),
    ("user mode", |s| {
        s.segments[SegReg::Cs as usize].selector = 0x33;
        s.segments[SegReg::Cs as usize].attr = 0xa0fb;
        s.segments[SegReg::Ss as usize].selector = 0x2b;
        s.segments[SegReg::Ss as usize].attr = 0xc0f3;
        s.msrs.kernel_gs_base = 0xffff_8880_0000_0000;
    }),
    ("control registers", |s| {
        s.cr2 = 0xffff_ffff_dead_beef;
        s.cr4 |= 0x80; // PGE
        s.efer |= 1; // SCE
        s.apic.regs[0x08] = 0xa0;
        s.apic.regs[0x0a] = 0xa0;
    }),
    ("MSRs", |s| {
        s.msrs.star = 0x0023_0010_0000_0000;
        s.msrs.lstar = 0xffff_ffff_8180_0000;
        s.msrs.cstar = 0xffff_ffff_8180_1000;
        s.msrs.fmask = 0x4_7700;
        s.msrs.sysenter_cs = 0x10;
        s.msrs.sysenter_esp = 0xffff_8880_0000_1000;
        s.msrs.sysenter_eip = 0xffff_ffff_8180_2000;
        s.msrs.tsc_aux = 3;
        s.msrs.tsc_adjust = 77;
        s.msrs.mtrr.def_type = 0xc06;
        s.msrs.mtrr.fixed = [0x0606_0606_0606_0606; 11];
        s.msrs.mtrr.variable[7] = (0xc000_0000, 0xff_c000_0800);
    }),
    ("debug registers", |s| {
        s.debug.address = [0x1000, 0x2000, 0xffff_8000_0000_3000, 4];
        s.debug.dr6 = 0xffff_4ff1;
        s.debug.dr7 = 0x000d_0402;
    }),
    ("floating point", |s| {
        let bytes = s.xsave.bytes_mut();
        bytes[0] = 0x7e;
        bytes[4] = 0xff;
        for (i, byte) in bytes[160..416].iter_mut().enumerate() {
            *byte = i as u8;
        }
        for st in 0..8 {
            bytes[32 + 16 * st..42 + 16 * st]
                .copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f]);
        }
        bytes[24] = 0xa0; // MXCSR
        s.xcr0 = 3;
    }),
    ("halted", |s| s.activity = Activity::Halted),
    ("waiting for SIPI", |s| s.activity = Activity::WaitForSipi),
    ("an exception raised", |s| {
        s.raised = Some(Raised {
            exception: Exception::Pf,
            error_code: Some(2),
            payload: Some(0xffff_8000_0000_0123),
        });
    }),
    ("an exception in delivery", |s| {
        s.in_delivery = Some(InDelivery::Exception { vector: 13, error_code: Some(0x18) });
    }),
    ("an interrupt in delivery", |s| s.in_delivery = Some(InDelivery::Interrupt(0x31))),
    ("an NMI in delivery", |s| {
        s.in_delivery = Some(InDelivery::Nmi);
        s.nmi_masked = true;
    }),
    ("NMI masked and pending", |s| (s.nmi_masked, s.nmi_pending) = (true, true)),
    ("after STI", |s| {
        s.shadow = InterruptShadow::Sti;
        s.regs.rflags |= 0x200;
    }),
    ("APIC in use", |s| {
        s.apic.regs[0x0d] = 1 << 24;
        s.apic.regs[0x12] = 1 << 5; // in service: 0x45
        s.apic.regs[0x0a] = 0x40;
        s.apic.regs[0x1a] = 1 << 5; // level-triggered
        s.apic.regs[0x22] = 1 << 1; // requested: 0x41
        s.apic.regs[0x35] = 0x700; // LINT0: PIC
        s.apic.regs[0x37] = 0x1_00fe;
    }),
    ("x2APIC", |s| {
        s.apic.base |= ApicState::BASE_X2APIC;
        s.apic.regs[0x02] = 0;
        s.apic.regs[0x0d] = 1;
        s.apic.regs[0x31] = 0x1234;
    }),
    ("a timer that stands", |s| {
        s.apic.regs[0x32] = 0x31;
        s.apic.regs[0x38] = 5000;
    }),
    ("a TSC deadline", |s| {
        s.tsc_offset = 1 << 40;
        s.apic.regs[0x32] = 0x4_0031;
        s.apic.timer = ApicTimer { remaining_ns: None, tsc_deadline: 1 << 60 };
    }),
    ("a TSC far away", |s| s.tsc_offset = u64::MAX - 12345),
];

pub(super) fn load_then_save_is_the_identity(subject: &Subject) {
    let mut machine = Machine::new(subject, 2);
    for (about, change) in CASES {
        let mut state = machine.long_mode(0);
        change(&mut state);
        for round in 0..2 {
            machine.vcpus[0].load(&state).unwrap();
            let saved = machine.vcpus[0].save().unwrap();
            assert_eq!(saved, state, "{about}, round {round}");
        }
    }
}

pub(super) fn a_new_vcpu_is_that_of_reset(subject: &Subject) {
    let mut machine = Machine::new(subject, 2);
    for id in 0..2 {
        let reset = VcpuState::at_reset(&machine.profile, VcpuId(id));
        let vcpu = &mut machine.vcpus[id as usize];
        assert_eq!(vcpu.save().unwrap(), reset);
        vcpu.load(&reset).unwrap();
        assert_eq!(vcpu.save().unwrap(), reset);
    }
}

pub(super) fn a_timer_goes_on_after_load(subject: &Subject) {
    let mut machine = Machine::about_to_run(subject, guest::halt(), |state| {
        state.apic.regs[0x32] = 0x31;
        state.apic.regs[0x38] = 500_000_000;
        state.apic.regs[0x3e] = 0xb;
        state.apic.timer.remaining_ns = Some(30_000_000);
    });
    // It may be over by now, on a busy host.
    let saved = machine.vcpus[0].save().unwrap();
    let left = saved.apic.timer.remaining_ns;
    assert!(left.is_none_or(|left| left <= 30_000_000), "{left:?} ns left");
    machine.run_until_done();
    assert_eq!(machine.read(Machine::DATA), 1);
    // It has fired: a moved CPU may see it once more, but never a third time.
    let after = machine.vcpus[0].save().unwrap();
    machine.vcpus[0].load(&after).unwrap();
    machine.run_while(|_| thread::sleep(Duration::from_millis(50)));
    assert_eq!(machine.read(Machine::DATA), 1, "a timer that has fired fires again");
}

pub(super) fn load_drops_translations(subject: &Subject) {
    let mut machine = Machine::new(subject, 1);
    machine.place(0, guest::exchange());
    machine.write(0x10_0000, 0x1111);
    machine.write(0x30_0000, 0x3333);
    // One CR3, but the page at 3 GiB is another one by the second load.
    for (page, wanted) in [(0, 0x1111), (0x20_0000, 0x3333)] {
        machine.write(Machine::DIRECTORIES[3], page | 0x83);
        let mut state = machine.long_mode(0);
        state.regs.gpr[Gpr::Rsi as usize] = (3 << 30) + 0x10_0000;
        machine.vcpus[0].load(&state).unwrap();
        machine.run_until_done();
        assert_eq!(machine.bus.take_shown()[0], wanted);
    }
}
