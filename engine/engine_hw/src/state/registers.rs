//! General, segment, control and debug registers.

use kvm_bindings::{kvm_debugregs, kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};
use x86_state::{CpuProfile, DebugRegs, DescriptorTable, Regs, SegReg, Segment, VcpuState};

/// From the kernel.
pub(crate) fn regs_from(r: &kvm_regs) -> Regs {
    Regs {
        gpr: [
            r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi, r.r8, r.r9, r.r10, r.r11,
            r.r12, r.r13, r.r14, r.r15,
        ],
        rip: r.rip,
        rflags: r.rflags,
    }
}

/// To the kernel.
pub(crate) fn regs_to(regs: &Regs) -> kvm_regs {
    let [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15] = regs.gpr;
    let (rip, rflags) = (regs.rip, regs.rflags);
    kvm_regs {
        rax,
        rbx,
        rcx,
        rdx,
        rsi,
        rdi,
        rsp,
        rbp,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        rip,
        rflags,
    }
}

fn segment_from(s: &kvm_segment) -> Segment {
    let bit = |on: u8, mask: u16| if on != 0 { mask } else { 0 };
    let attr = u16::from(s.type_)
        | bit(s.s, Segment::S)
        | u16::from(s.dpl) << Segment::DPL_SHIFT
        | bit(s.present, Segment::P)
        | bit(s.avl, Segment::AVL)
        | bit(s.l, Segment::L)
        | bit(s.db, Segment::DB)
        | bit(s.g, Segment::G)
        // SVM knows no unusable segments and reports those that are not present instead.
        | bit(s.unusable | (1 - s.present.min(1)), Segment::UNUSABLE);
    Segment { base: s.base, limit: s.limit, selector: s.selector, attr }.canonical()
}

fn segment_to(s: &Segment) -> kvm_segment {
    let bit = |mask: u16| u8::from(s.has(mask));
    kvm_segment {
        base: s.base,
        limit: s.limit,
        selector: s.selector,
        type_: s.kind(),
        present: bit(Segment::P),
        dpl: s.dpl(),
        db: bit(Segment::DB),
        s: bit(Segment::S),
        l: bit(Segment::L),
        g: bit(Segment::G),
        avl: bit(Segment::AVL),
        unusable: bit(Segment::UNUSABLE),
        padding: 0,
    }
}

fn table_from(t: &kvm_dtable) -> DescriptorTable {
    DescriptorTable { base: t.base, limit: t.limit }
}

fn table_to(t: &DescriptorTable) -> kvm_dtable {
    kvm_dtable { base: t.base, limit: t.limit, padding: [0; 3] }
}

/// Takes over what the kernel says.
pub(crate) fn sregs_from(s: &kvm_sregs, profile: &CpuProfile, state: &mut VcpuState) {
    state.segments = [&s.es, &s.cs, &s.ss, &s.ds, &s.fs, &s.gs].map(segment_from);
    state.ldtr = segment_from(&s.ldt);
    state.tr = segment_from(&s.tr);
    state.gdtr = table_from(&s.gdt);
    state.idtr = table_from(&s.idt);
    state.cr0 = s.cr0;
    state.cr2 = s.cr2;
    state.cr3 = s.cr3;
    state.cr4 = s.cr4;
    // The kernel lets a guest set bits of the host's CPU that the profile does not name
    // (AutoIBRS, LMSLE); they change nothing a guest without the feature can see.
    state.efer = s.efer & profile.efer_mask();
    state.apic.base = s.apic_base;
}

/// What the kernel is to take over.
pub(crate) fn sregs_to(state: &VcpuState) -> kvm_sregs {
    let segment = |reg: SegReg| segment_to(state.segment(reg));
    let mut ss = segment(SegReg::Ss);
    // SVM takes the privilege level from here. A null SS, which only 64-bit mode has, holds it
    // in its selector.
    if ss.unusable != 0 {
        ss.dpl = (ss.selector & 3) as u8;
    }
    kvm_sregs {
        cs: segment(SegReg::Cs),
        ds: segment(SegReg::Ds),
        es: segment(SegReg::Es),
        fs: segment(SegReg::Fs),
        gs: segment(SegReg::Gs),
        ss,
        tr: segment_to(&state.tr),
        ldt: segment_to(&state.ldtr),
        gdt: table_to(&state.gdtr),
        idt: table_to(&state.idtr),
        cr0: state.cr0,
        cr2: state.cr2,
        cr3: state.cr3,
        cr4: state.cr4,
        cr8: u64::from(state.apic.regs[0x08] >> 4 & 0xf),
        efer: state.efer,
        apic_base: state.apic.base,
        interrupt_bitmap: [0; 4],
    }
}

/// From the kernel.
pub(crate) fn debug_from(d: &kvm_debugregs) -> DebugRegs {
    DebugRegs { address: d.db, dr6: d.dr6, dr7: d.dr7 }
}

/// To the kernel.
pub(crate) fn debug_to(d: &DebugRegs) -> kvm_debugregs {
    kvm_debugregs { db: d.address, dr6: d.dr6, dr7: d.dr7, flags: 0, reserved: [0; 9] }
}
