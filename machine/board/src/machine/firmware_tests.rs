//! What firmware finds: flash, shadow RAM, its boot order, interrupt pins.

use std::io;

use ahci::Drive;
use guest_memory::Backing;
use storage::RawDisk;
use x86_state::Topology;

use super::*;
use crate::event::EventLog;
use crate::spec::{BootKind, DiskSpec, FirmwareSpec, VariableStore, Variables};

const IMAGE_SIZE: usize = 0x4_0000;
const VARIABLES_SIZE: usize = 0x8000;
/// Below the image, which ends at 4 GiB.
const FLASH: u64 = (1 << 32) - (IMAGE_SIZE + VARIABLES_SIZE) as u64;
const HOST_BRIDGE: u32 = 0;
/// The host bridge's attributes of 0xe8000 to 0xeffff, and of 0xf0000 to 1 MiB.
const PAM6: u32 = 0x96;
const PAM0: u32 = 0x90;

#[derive(Default)]
struct Kept(Mutex<Vec<(u64, Vec<u8>)>>);

impl VariableStore for Kept {
    fn change(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.lock().unwrap().push((offset, bytes.to_vec()));
        Ok(())
    }
}

fn empty_disk() -> DiskSpec {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(1 << 16).unwrap();
    DiskSpec { disk: Arc::new(RawDisk::open(file.path(), true).unwrap()), serial: "disk".into() }
}

fn spec() -> MachineSpec {
    let profile = CpuProfile::portable(Topology { cores: 1 }, 2_000_000).unwrap();
    let time = machine_clock::TimeSource::Counted;
    MachineSpec { time, ..MachineSpec::new(profile, 16 << 20) }
}

/// A machine whose image says of each KiB which it is.
fn machine() -> (Arc<Machine>, Arc<Kept>) {
    let kept = Arc::new(Kept::default());
    let firmware = FirmwareSpec {
        image: (0..IMAGE_SIZE).map(|at| (at >> 10) as u8).collect(),
        variables: Some(Variables { bytes: vec![0xff; VARIABLES_SIZE], store: kept.clone() }),
        boot_order: Vec::new(),
        kernel: None,
        serial_console: None,
    };
    let spec = MachineSpec { firmware: Some(firmware), ..spec() };
    (Machine::build(spec, EventLog::new()).unwrap(), kept)
}

/// An access as a CPU makes it: to memory where the map has some, else to the bus.
fn read(machine: &Machine, gpa: u64) -> u8 {
    let mut data = [0xff];
    match machine.memory().view().lookup(gpa) {
        Some((at, _)) => data[0] = machine.memory().load(at),
        None => machine.mmio_read(gpa, &mut data),
    }
    data[0]
}

fn write(machine: &Machine, gpa: u64, byte: u8) {
    match machine.memory().view().lookup(gpa) {
        Some((at, Backing::Ram)) => machine.memory().write(at, &[byte]),
        _ => machine.mmio_write(gpa, &[byte]),
    }
}

fn set(machine: &Machine, device: u32, register: u32, value: u8) {
    machine.pio_write(0xcf8, &(1 << 31 | device << 11 | register & !3).to_le_bytes());
    machine.pio_write(0xcfc + (register & 3) as u16, &[value]);
}

fn config(machine: &Machine, device: u32, register: u32) -> u8 {
    machine.pio_write(0xcf8, &(1 << 31 | device << 11 | register & !3).to_le_bytes());
    let mut data = [0];
    machine.pio_read(0xcfc + (register & 3) as u16, &mut data);
    data[0]
}

#[test]
fn a_cpu_begins_in_the_image_whose_end_is_below_1_mib_too() {
    let (machine, _) = machine();
    assert_eq!(read(&machine, 0xffff_fff0), 0xff);
    assert_eq!([read(&machine, 0xf_fff0), read(&machine, 0xe_0000)], [0xff, 0x80]);
    assert_eq!(read(&machine, 0xd_fc00), 0xff, "nothing is there");
    write(&machine, 0xffff_fff0, 1);
    write(&machine, 0xf_fff0, 1);
    assert_eq!([read(&machine, 0xffff_fff0), read(&machine, 0xf_fff0)], [0xff, 0xff]);
}

#[test]
fn attributes_say_of_reads_and_writes_apart_whether_they_are_of_ram() {
    let (machine, _) = machine();
    let (rom, other) = (0xe_c000, 0xe_8000);
    let was = [read(&machine, rom), read(&machine, other)];
    // Of the upper half alone.
    set(&machine, HOST_BRIDGE, PAM6, 0x20);
    write(&machine, rom, 0x5a);
    write(&machine, other, 0x5a);
    assert_eq!([read(&machine, rom), read(&machine, other)], was, "writes only");
    set(&machine, HOST_BRIDGE, PAM6, 0x10);
    assert_eq!([read(&machine, rom), read(&machine, other)], [0x5a, was[1]], "reads only");
    write(&machine, rom, 0x11);
    assert_eq!(read(&machine, rom), 0x5a);
    set(&machine, HOST_BRIDGE, PAM6, 0x30);
    write(&machine, rom, 0x11);
    assert_eq!(read(&machine, rom), 0x11);
    set(&machine, HOST_BRIDGE, PAM6, 0);
    assert_eq!(read(&machine, rom), was[0]);
    set(&machine, HOST_BRIDGE, PAM6, 0x33);
    assert_eq!([read(&machine, rom), read(&machine, other)], [0x11, 0]);
}

#[test]
fn what_is_programmed_is_in_memory_and_in_the_store() {
    let (machine, kept) = machine();
    assert_eq!(read(&machine, FLASH + 0x1234), 0xff);
    write(&machine, FLASH + 0x1234, 0x40); // program
    write(&machine, FLASH + 0x1234, 0x5a);
    assert_eq!(read(&machine, FLASH + 0x1234), 0x80, "its status: ready");
    write(&machine, FLASH, 0xff); // read the array
    assert_eq!(read(&machine, FLASH + 0x1234), 0x5a);
    assert_eq!(*kept.0.lock().unwrap(), [(0x1234, vec![0x5a])]);
    machine.reset();
    assert_eq!(read(&machine, FLASH + 0x1234), 0x5a);
}

#[test]
fn a_restored_machine_sees_what_the_saved_one_saw() {
    let (saved, _) = machine();
    set(&saved, HOST_BRIDGE, PAM0, 0x30);
    write(&saved, 0xf_0000, 0x5a);
    write(&saved, FLASH, 0x70); // read the status
    let (restored, _) = machine();
    let before = read(&restored, FLASH);
    restored.restore(&saved.save()).unwrap();
    assert_eq!(config(&restored, HOST_BRIDGE, PAM0), 0x30);
    let views = [&saved, &restored].map(|machine| machine.memory().view());
    assert!(views[0].iter().eq(views[1].iter()), "{views:?}");
    assert_ne!(read(&restored, FLASH), before, "the flash still tells its status");
    restored.reset();
    assert_eq!([read(&restored, FLASH), read(&restored, 0xf_0000)], [before, 0xc0]);
}

#[test]
fn firmware_is_told_of_disks_of_every_controller_in_the_order_that_was_asked_for() {
    let sata = || empty_disk().disk;
    let spec = MachineSpec {
        disks: vec![empty_disk()],
        sata: vec![
            Drive::Disk { disk: sata(), serial: "1".into() },
            Drive::Cdrom { disk: None, serial: "2".into() },
        ],
        nvme: vec![empty_disk(), empty_disk()],
        ..spec()
    };
    let order = firmware::boot_order(&[BootKind::Cdrom, BootKind::Disk], &spec);
    let paths: Vec<_> = order.iter().map(|device| device.0.as_str()).collect();
    assert_eq!(
        paths,
        [
            "/pci@i0cf8/pci8086,2922@2/drive@1/disk@0",
            "/pci@i0cf8/scsi@1/disk@0,0",
            "/pci@i0cf8/pci8086,2922@2/drive@0/disk@0",
            "/pci@i0cf8/pci8086,5845@3/namespace@1,0",
            "/pci@i0cf8/pci8086,5845@4/namespace@1,0",
        ]
    );
}

#[test]
fn functions_have_a_pin_where_an_lpc_bridge_routes_it() {
    for legacy in [true, false] {
        let spec = MachineSpec { nvme: vec![empty_disk()], legacy, ..spec() };
        let machine = Machine::build(spec, EventLog::new()).unwrap();
        assert_eq!(config(&machine, 1, 0x3d), u8::from(legacy));
    }
}
