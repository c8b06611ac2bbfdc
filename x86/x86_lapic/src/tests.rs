//! The APIC by hand.

use x86_state::{ApicState, DeliveryMode, msr};

use crate::spec::*;
use crate::{Accepted, Destination, Effect, Lapic, Now, Shorthand};

fn at(ns: u64) -> Now {
    Now { ns, tsc: ns * 2, tsc_khz: 2_000_000 }
}

fn lapic() -> Lapic {
    let mut l = Lapic::new(3, false);
    write(&mut l, SVR, 0x1ff, 0);
    l
}

fn write(l: &mut Lapic, register: u32, value: u32, ns: u64) -> Effect {
    l.write_mmio(u64::from(register), &value.to_le_bytes(), at(ns))
}

fn read(l: &mut Lapic, register: u32, ns: u64) -> u32 {
    let mut data = [0; 4];
    l.read_mmio(u64::from(register), &mut data, at(ns));
    u32::from_le_bytes(data)
}

fn fixed(l: &mut Lapic, vector: u8) -> Accepted {
    l.accept(DeliveryMode::Fixed, vector, false)
}

fn x2apic() -> Lapic {
    let mut l = Lapic::new(0x23, false);
    let base = l.base() | ApicState::BASE_X2APIC;
    assert_eq!(l.write_msr(msr::IA32_APIC_BASE, base, 40, at(0)), Some(Effect::None));
    l
}

#[test]
fn the_highest_priority_comes_first_and_blocks_its_class() {
    let mut l = lapic();
    fixed(&mut l, 0x31);
    fixed(&mut l, 0x52);
    assert_eq!(l.acknowledge(), Some(0x52));
    fixed(&mut l, 0x55);
    assert_eq!(l.pending(), None, "same class as the one in service");
    fixed(&mut l, 0x61);
    assert_eq!(l.acknowledge(), Some(0x61));
    assert_eq!(write(&mut l, EOI, 0, 0), Effect::None);
    assert_eq!(write(&mut l, EOI, 0, 0), Effect::None);
    assert_eq!(l.acknowledge(), Some(0x55));
}

#[test]
fn the_task_priority_holds_back_its_class_and_below() {
    let mut l = lapic();
    write(&mut l, TPR, 0x40, 0);
    fixed(&mut l, 0x4f);
    assert_eq!(l.pending(), None);
    l.set_cr8(3);
    assert_eq!(l.pending(), Some(0x4f));
    assert_eq!(read(&mut l, TPR, 0), 0x30);
}

#[test]
fn only_level_triggered_interrupts_broadcast_their_eoi() {
    let mut l = lapic();
    l.accept(DeliveryMode::Fixed, 0x44, true);
    l.acknowledge();
    assert_eq!(write(&mut l, EOI, 0, 0), Effect::Eoi(0x44));
    fixed(&mut l, 0x44);
    l.acknowledge();
    assert_eq!(write(&mut l, EOI, 0, 0), Effect::None);
}

#[test]
fn a_disabled_apic_takes_nothing_but_the_unmaskable() {
    let mut l = Lapic::new(0, true);
    assert_eq!(fixed(&mut l, 0x40), Accepted::Nothing);
    assert_eq!(l.accept(DeliveryMode::Nmi, 2, false), Accepted::Nmi);
    assert_eq!(l.accept(DeliveryMode::StartUp, 0x9a, false), Accepted::StartUp(0x9a));
}

#[test]
fn one_shot_and_periodic_timers_count_in_bus_cycles() {
    let mut l = lapic();
    write(&mut l, DIVIDE, 0b1011, 0); // by 1
    write(&mut l, LVT_TIMER, 0x40, 0);
    write(&mut l, INITIAL_COUNT, 1000, 100);
    assert_eq!(l.next_deadline_ns(), Some(1100));
    assert_eq!(read(&mut l, CURRENT_COUNT, 600), 500);
    l.tick(at(1099));
    assert_eq!(l.pending(), None);
    l.tick(at(1100));
    assert_eq!((l.acknowledge(), l.next_deadline_ns()), (Some(0x40), None));
    write(&mut l, EOI, 0, 0);

    write(&mut l, LVT_TIMER, 0x40 | TIMER_PERIODIC, 0);
    write(&mut l, DIVIDE, 0, 0); // by 2
    write(&mut l, INITIAL_COUNT, 50, 2000);
    l.tick(at(2450));
    assert_eq!(l.acknowledge(), Some(0x40));
    assert_eq!(l.next_deadline_ns(), Some(2500), "late ticks keep the phase");
}

#[test]
fn the_tsc_deadline_fires_when_the_tsc_gets_there() {
    let mut l = lapic();
    write(&mut l, LVT_TIMER, 0x40 | TIMER_TSC_DEADLINE, 0);
    l.write_msr(msr::IA32_TSC_DEADLINE, 5000, 40, at(1000)).unwrap();
    assert_eq!(l.next_deadline_ns(), Some(2500));
    assert_eq!(l.read_msr(msr::IA32_TSC_DEADLINE, at(1000)), Some(5000));
    l.tick(at(2500));
    assert_eq!(l.read_msr(msr::IA32_TSC_DEADLINE, at(2500)), Some(0));
    assert_eq!(l.acknowledge(), Some(0x40));
    l.write_msr(msr::IA32_TSC_DEADLINE, 1, 40, at(3000)).unwrap();
    assert_eq!(l.next_deadline_ns(), Some(3000), "a deadline in the past is now");
    write(&mut l, LVT_TIMER, 0x40, 3000);
    assert_eq!(l.next_deadline_ns(), None, "a change of mode disarms");
}

#[test]
fn destinations_flat_cluster_and_x2apic() {
    let to = |id, logical, wide| Destination { id, logical, wide };
    let mut l = lapic();
    assert!(l.is_addressed_by(to(3, false, false)));
    assert!(l.is_addressed_by(to(0xff, false, false)));
    assert!(!l.is_addressed_by(to(4, false, false)));
    write(&mut l, LDR, 0x0800_0000, 0);
    assert!(l.is_addressed_by(to(0x18, true, false)));
    assert!(!l.is_addressed_by(to(0x10, true, false)));
    write(&mut l, DFR, 0x0fff_ffff, 0);
    write(&mut l, LDR, 0x2100_0000, 0);
    assert!(l.is_addressed_by(to(0x23, true, false)));
    assert!(!l.is_addressed_by(to(0x31, true, false)));

    let l = x2apic();
    assert!(l.is_addressed_by(to(0x23, false, true)));
    assert!(l.is_addressed_by(to(0x0002_0008, true, true)));
    assert!(!l.is_addressed_by(to(0x0001_0008, true, true)));
    assert!(l.is_addressed_by(to(0xffff_ffff, true, true)));
}

#[test]
fn icr_writes_become_messages() {
    let mut l = lapic();
    write(&mut l, ICR2, 5 << 24, 0);
    let Effect::Send(ipi) = write(&mut l, ICR, 0x0000_4040, 0) else { panic!() };
    assert_eq!((ipi.destination.id, ipi.vector, ipi.mode), (5, 0x40, DeliveryMode::Fixed));
    let Effect::Send(ipi) = write(&mut l, ICR, 0x000c_4600, 0) else { panic!() };
    assert_eq!((ipi.shorthand, ipi.mode), (Shorthand::Others, DeliveryMode::StartUp));
    assert_eq!(write(&mut l, ICR, 0x0000_8500, 0), Effect::None, "INIT de-assert");
    assert_eq!(write(&mut l, ICR, 0x0000_4005, 0), Effect::None, "illegal vector");
    write(&mut l, ESR, 0, 0);
    assert_eq!(read(&mut l, ESR, 0), ESR_SEND_VECTOR);
}

#[test]
fn x2apic_registers_are_msrs_with_reserved_bits() {
    let mut l = x2apic();
    let mut set = |number, value| l.write_msr(number, value, 40, at(0));
    assert!(set(0x80f, 0x1ff).is_some());
    assert!(set(0x80f, 0x200).is_none());
    assert!(set(0x80b, 1).is_none());
    assert!(set(0x80e, 0).is_none(), "no DFR");
    assert!(set(0x802, 0).is_none(), "ID is read-only");
    assert!(set(0x83f, 0x41).is_some());
    let Some(Effect::Send(ipi)) = set(0x830, 7 << 32 | 0x40) else { panic!() };
    assert_eq!(ipi.destination, Destination { id: 7, logical: false, wide: true });
    assert_eq!(l.read_msr(0x830, at(0)), Some(7 << 32 | 0x40));
    assert_eq!(l.read_msr(0x802, at(0)), Some(0x23));
    assert_eq!(l.read_msr(0x831, at(0)), None);
}

#[test]
fn base_transitions_follow_the_figure() {
    let mut l = x2apic();
    let x2 = l.base();
    let mut set = |value| l.write_msr(msr::IA32_APIC_BASE, value, 40, at(0)).is_some();
    assert!(!set(x2 & !ApicState::BASE_X2APIC), "from x2APIC to xAPIC");
    assert!(!set(x2 | 1), "reserved bit");
    assert!(!set(x2 | 1 << 40), "beyond the physical address width");
    assert!(set(0xfee0_0000), "disabled");
    assert!(!set(x2), "from disabled to x2APIC");
    assert!(set(0xfee0_0800));
}

#[test]
fn a_saved_apic_is_the_same_when_loaded() {
    let mut l = lapic();
    write(&mut l, LVT_TIMER, 0x40 | TIMER_PERIODIC, 0);
    write(&mut l, INITIAL_COUNT, 500, 10);
    fixed(&mut l, 0x77);
    let saved = l.save(at(100));
    let mut other = Lapic::new(3, false);
    other.load(&saved, at(5000)).unwrap();
    assert_eq!(other.save(at(5000)), saved);
    assert_eq!(other.pending(), Some(0x77));
    let mut bad = saved;
    bad.regs[IRR as usize / 16] = 1;
    assert!(other.load(&bad, at(0)).is_err());
}

#[test]
fn a_saved_processor_priority_is_not_the_one_that_was_loaded() {
    let mut l = lapic();
    fixed(&mut l, 0xf3);
    assert_eq!(l.acknowledge(), Some(0xf3));
    let in_service = l.save(at(0));
    assert_eq!(in_service.regs[PPR as usize / 16], 0xf0);
    let mut other = lapic();
    other.load(&in_service, at(0)).unwrap();
    write(&mut other, EOI, 0, 0);
    assert_eq!(other.save(at(0)).regs[PPR as usize / 16], 0);
}

#[test]
fn random_accesses_never_panic_and_state_survives_a_round_trip() {
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut l = Lapic::new(1, true);
    for ns in 0..20_000u64 {
        let (a, b) = (next(), next());
        match a % 6 {
            0 => drop(l.write_mmio(b & 0xfff, &(a as u32).to_le_bytes(), at(ns))),
            1 => drop(l.write_msr(0x800 + (b & 0xff) as u32, a >> 8 & 0xf_ffff, 40, at(ns))),
            2 => drop(l.write_msr(msr::IA32_APIC_BASE, 0xfee0_0000 | b & 0xd00, 40, at(ns))),
            3 => l.read_mmio(b & 0xfff, &mut [0; 8], at(ns)),
            4 => drop(l.accept(DeliveryMode::Fixed, a as u8, b & 1 != 0)),
            _ => drop(l.acknowledge()),
        }
        l.tick(at(ns));
        if ns % 64 == 0 {
            let saved = l.save(at(ns));
            let mut other = l.clone();
            other.load(&saved, at(ns)).unwrap();
            assert_eq!(other.save(at(ns)), saved);
        }
    }
}
