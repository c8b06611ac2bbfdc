//! Register scripts.

use bus::Line;
use machine_clock::{MachineClock, TimeSource};

use super::*;
use crate::TimerWidth;
use crate::fakes::{Recorder, inl, outl};

#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<(&'static str, u32)>>>);

impl HotplugSink for Told {
    fn ejected(&self, slots: u32) {
        lock(&self.0).push(("ejected", slots));
    }

    fn memory_blocks(&self, count: u32) {
        lock(&self.0).push(("blocks", count));
    }
}

struct Rig {
    pm: Arc<Pm>,
    told: Told,
    device: Arc<Hotplug>,
}

fn rig() -> Rig {
    let clock = MachineClock::new(TimeSource::Counted);
    let pm = Pm::new(&clock, Line::unconnected(), Recorder::new(), TimerWidth::Bits32);
    let told = Told::default();
    let config = HotplugConfig { cpus: 2, cpus_max: 4, blocks_max: 12 };
    let device = Hotplug::new(config, pm.clone(), Box::new(told.clone()));
    Rig { pm, told, device }
}

impl Rig {
    fn events(&self) -> u32 {
        let events = inl(&*self.pm, crate::pm::spec::GPE0_STS);
        outl(&*self.pm, crate::pm::spec::GPE0_STS, events);
        events
    }

    fn told(&self) -> Vec<(&'static str, u32)> {
        std::mem::take(&mut *lock(&self.told.0))
    }
}

#[test]
fn a_device_comes_and_goes_when_the_guest_lets_it() {
    let rig = rig();
    rig.device.plugged(5);
    assert_eq!((rig.events(), inl(&*rig.device, PCI_UP)), (1 << GPE, 1 << 5));
    outl(&*rig.device, PCI_UP, 1 << 5);
    rig.device.ask_to_go(5);
    let seen = (rig.events(), inl(&*rig.device, PCI_UP), inl(&*rig.device, PCI_DOWN));
    assert_eq!(seen, (1 << GPE, 0, 1 << 5));
    // Others cannot go.
    outl(&*rig.device, PCI_EJECT, u32::MAX);
    outl(&*rig.device, PCI_EJECT, u32::MAX);
    assert_eq!(rig.told(), [("ejected", 1 << 5)]);
    assert_eq!(inl(&*rig.device, PCI_DOWN), 0);
}

#[test]
fn what_was_asked_to_go_is_gone_after_a_reset_and_the_rest_stays() {
    let rig = rig();
    [4, 5].into_iter().for_each(|slot| rig.device.plugged(slot));
    rig.device.ask_to_go(5);
    rig.device.set_cpus(3);
    rig.device.set_blocks(2);
    rig.device.reset();
    assert_eq!(rig.told(), [("blocks", 2), ("ejected", 1 << 5)]);
    assert_eq!((rig.device.cpus(), rig.device.blocks()), (3, 2));
    assert_eq!((inl(&*rig.device, PCI_UP), inl(&*rig.device, CPU_NEW)), (0, 0));
}

#[test]
fn cpus_and_memory_come_up_to_what_can_be_and_never_go() {
    let rig = rig();
    rig.device.set_cpus(99);
    rig.device.set_cpus(1);
    let cpus = (inl(&*rig.device, CPU_PRESENT), inl(&*rig.device, CPU_NEW));
    assert_eq!((cpus, rig.device.cpus()), ((0b1111, 0b1100), 4));
    rig.device.set_blocks(3);
    rig.device.set_blocks(99);
    assert_eq!(inl(&*rig.device, MEMORY_PRESENT), 0xfff);
    assert_eq!(rig.told(), [("blocks", 3), ("blocks", 12)]);
    assert_eq!(rig.events(), 1 << GPE);
    outl(&*rig.device, CPU_NEW, 0b0100);
    outl(&*rig.device, CPU_PRESENT, 0);
    let cpus = (inl(&*rig.device, CPU_PRESENT), inl(&*rig.device, CPU_NEW));
    assert_eq!(cpus, (0b1111, 0b1000));
}

#[test]
fn state_is_restored_and_what_cannot_be_is_refused() {
    let (rig, other) = (rig(), rig());
    rig.device.set_cpus(3);
    rig.device.set_blocks(2);
    other.device.restore(&rig.device.save()).unwrap();
    assert_eq!((other.device.cpus(), other.device.blocks()), (3, 2));
    assert_eq!(other.told(), [("blocks", 2)]);
    let bad = |cpus, memory| {
        let saved =
            SavedHotplug { pci_up: 0, pci_down: 0, cpus, cpus_new: 0, memory, memory_new: 0 };
        assert_eq!(SavedHotplug::VERSION, 1);
        other.device.restore(&Section::encode(&saved)).is_err()
    };
    assert!(bad(0, 0) && bad(0b101, 0) && bad(0b1_1111, 0) && bad(0b11, 0b10) && bad(0b11, 0x1fff));
}
