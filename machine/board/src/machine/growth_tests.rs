//! What comes and goes while a guest runs.

use boot::layout::port;
use storage::RawDisk;
use x86_state::Topology;

use super::*;
use crate::event::EventLog;
use crate::spec::{DiskSpec, HotplugSpec, PlugError};

fn disk(serial: &str) -> DiskSpec {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 16).unwrap();
    let disk = RawDisk::new(file, std::path::Path::new(serial), false).unwrap();
    DiskSpec { disk: Arc::new(disk), serial: serial.into() }
}

fn machine() -> Arc<Machine> {
    let profile = CpuProfile::portable(Topology { cores: 4 }, 2_000_000).unwrap();
    let hotplug = Some(HotplugSpec { cpus: 2, memory_bytes_max: 512 << 20 });
    let disks = vec![disk("disk0")];
    let time = machine_clock::TimeSource::Counted;
    let spec = MachineSpec { time, hotplug, disks, ..MachineSpec::new(profile, 256 << 20) };
    Machine::build(spec, EventLog::new()).unwrap()
}

/// Vendor and device of what is in a slot.
fn found(machine: &Machine, slot: u32) -> u32 {
    machine.pio_write(0xcf8, &(1 << 31 | slot << 11).to_le_bytes());
    let mut data = [0; 4];
    machine.pio_read(0xcfc, &mut data);
    u32::from_le_bytes(data)
}

fn eject(machine: &Machine, slots: u32) {
    let at = port::HOTPLUG.base + chipset::hotplug::spec::PCI_EJECT;
    machine.pio_write(at as u16, &slots.to_le_bytes());
}

#[test]
fn a_disk_comes_and_is_gone_when_the_guest_lets_it_go() {
    let machine = machine();
    let slot = machine.plug_disk(disk("disk1"), None).unwrap();
    assert_eq!((slot.at.device(), found(&machine, 2)), (2, 0x1042_1af4));
    assert!(matches!(machine.plug_disk(disk("disk1"), None), Err(PlugError::Name(_))));
    let Card::Disk(block) = slot.card.clone() else { panic!("it is a disk") };
    drop(slot);
    machine.ask_to_go("disk1").unwrap();
    assert!(matches!(machine.ask_to_go("disk9"), Err(PlugError::Missing(_))));
    assert_eq!(machine.slots().len(), 2);
    eject(&machine, 1 << 2);
    assert_eq!((machine.slots().len(), found(&machine, 2)), (1, u32::MAX));
    assert_eq!(Arc::strong_count(&block), 1, "nobody else has it");
    assert_eq!(machine.plug_disk(disk("disk1"), None).unwrap().at.device(), 2);
    machine.pause_io();
    machine.resume_io();
    machine.reset();
}

#[test]
fn disks_of_power_up_can_go_and_other_functions_cannot() {
    let machine = machine();
    eject(&machine, u32::MAX);
    assert!(machine.slots().is_empty());
    assert_eq!((found(&machine, 1), found(&machine, 31)), (u32::MAX, 0x2918_8086));
}

#[test]
fn a_machine_with_what_has_come_is_saved_and_restored() {
    let (machine, other) = (machine(), machine());
    let at = machine.plug_disk(disk("disk1"), None).unwrap().at;
    machine.set_cpus(3).unwrap();
    machine.set_ram_bytes(384 << 20).unwrap();
    let saved = machine.save();
    assert!(other.restore(&saved).is_err(), "it has no such disk");
    other.plug_disk(disk("disk1"), Some(at)).unwrap();
    other.restore(&saved).unwrap();
    assert_eq!((other.cpus(), other.ram_bytes()), (3, 384 << 20));
    assert_eq!(other.save(), saved);
}

#[test]
fn memory_comes_in_blocks_and_stays_over_a_reset() {
    let machine = machine();
    let shown = || machine.memory().view().lookup(1 << 32).is_some();
    assert!(!shown());
    for bad in [128 << 20, 257 << 20, 1 << 30] {
        assert!(matches!(machine.set_ram_bytes(bad), Err(PlugError::Memory { .. })));
    }
    machine.set_ram_bytes(512 << 20).unwrap();
    machine.reset();
    assert!(shown() && machine.ram_bytes() == 512 << 20);
}

#[test]
fn cpus_come_up_to_those_of_the_profile() {
    let machine = machine();
    assert!(matches!(machine.set_cpus(5), Err(PlugError::Cpus { now: 2, most: 4 })));
    machine.set_cpus(4).unwrap();
    assert!(matches!(machine.set_cpus(2), Err(PlugError::Cpus { now: 4, most: 4 })));
}
