use std::io::Write;
use std::sync::atomic::AtomicBool;

use boot::{Image, Module};
use chipset::ByteSink;
use engine::{
    Built, CpuComplex, DebugStops, Engine, EngineError, EngineKind, Exit, IoApicRoutes, Parts,
    Unsupported, Vcpu,
};
use guest_memory::{DirtyBitmap, FlatView, RamOffset};
use storage::RawDisk;
use virtio::EntropySource;
use x86_state::{Msi, Topology};

use super::*;
use crate::event::{EventLog, MachineEvent};
use crate::spec::{DiskSpec, NetModel, NetSpec};

/// What a vCPU does when it runs.
type Script = Box<dyn FnMut(&dyn Bus) -> Exit + Send>;

/// An engine whose vCPUs do what the test says.
struct Scripted {
    scripts: Mutex<Vec<Script>>,
    complex: Arc<Recorder>,
}

#[derive(Default)]
struct Recorder {
    sent: Mutex<Vec<Msi>>,
    intr: AtomicBool,
    routes: Mutex<IoApicRoutes>,
    ram_bytes: AtomicU64,
}

struct ScriptedVcpu {
    script: Script,
    state: VcpuState,
}

impl Engine for Scripted {
    fn kind(&self) -> EngineKind {
        EngineKind::Emu
    }
    fn check(&self, _profile: &CpuProfile) -> Result<(), Unsupported> {
        Ok(())
    }
    fn build(&self, profile: &CpuProfile, _parts: &Parts) -> Result<Built, EngineError> {
        let vcpu = |(id, script): (usize, Script)| {
            let state = VcpuState::at_reset(profile, VcpuId(id as u32));
            Box::new(ScriptedVcpu { script, state }) as Box<dyn Vcpu>
        };
        let scripts = std::mem::take(&mut *self.scripts.lock().unwrap());
        let vcpus = scripts.into_iter().enumerate().map(vcpu).collect();
        Ok(Built { complex: self.complex.clone(), vcpus })
    }
}

impl Vcpu for ScriptedVcpu {
    fn run(&mut self, bus: &Arc<dyn Bus>) -> Result<Exit, EngineError> {
        Ok((self.script)(&**bus))
    }
    fn save(&mut self) -> Result<VcpuState, EngineError> {
        Ok(self.state.clone())
    }
    fn load(&mut self, state: &VcpuState) -> Result<(), EngineError> {
        self.state = state.clone();
        Ok(())
    }
    fn set_debug(&mut self, _stops: Option<&DebugStops>) -> Result<(), EngineError> {
        Ok(())
    }
}

impl CpuComplex for Recorder {
    fn set_memory(&self, view: &FlatView) -> Result<(), EngineError> {
        self.ram_bytes.store(view.iter().map(|range| range.size).sum(), Ordering::SeqCst);
        Ok(())
    }
    fn set_dirty_log(&self, _on: bool) -> Result<(), EngineError> {
        Ok(())
    }
    fn harvest_dirty(&self, _into: &DirtyBitmap) -> Result<(), EngineError> {
        Ok(())
    }
    fn send_msi(&self, msi: Msi) {
        self.sent.lock().unwrap().push(msi);
    }
    fn set_intr(&self, level: bool) {
        self.intr.store(level, Ordering::SeqCst);
    }
    fn set_ioapic_routes(&self, routes: &IoApicRoutes) -> Result<(), EngineError> {
        *self.routes.lock().unwrap() = routes.clone();
        Ok(())
    }
    fn kick(&self, _vcpu: VcpuId) {}
}

#[derive(Default)]
struct Typed(Mutex<Vec<u8>>);

impl ByteSink for Typed {
    fn put(&self, byte: u8) {
        self.0.lock().unwrap().push(byte);
    }
}

fn spec(cores: u32, mib: u64) -> MachineSpec {
    let profile = CpuProfile::portable(Topology { cores }, 2_000_000).unwrap();
    MachineSpec { time: machine_clock::TimeSource::Counted, ..MachineSpec::new(profile, mib << 20) }
}

fn disk() -> DiskSpec {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&[0; 1 << 16]).unwrap();
    let disk = RawDisk::open(file.path(), true).unwrap();
    DiskSpec { disk: Arc::new(disk), serial: "disk".into() }
}

/// A machine with one of everything.
fn full_spec() -> MachineSpec {
    MachineSpec {
        console: Some(virtio::ConsoleConfig {
            output: Box::new(|_| {}),
            room: Box::new(|| {}),
            size: (80, 25),
        }),
        disks: vec![disk(), disk()],
        entropy: Some(EntropySource::Seeded(1)),
        debug_exit: true,
        testdev: true,
        ..spec(2, 16)
    }
}

fn build(spec: MachineSpec) -> Arc<Machine> {
    Machine::build(spec, EventLog::new()).unwrap()
}

/// Runs a script as the guest, with a complex plugged in.
fn run(
    machine: &Arc<Machine>,
    script: impl FnMut(&dyn Bus) -> Exit + Send + 'static,
) -> Arc<Recorder> {
    let complex = Arc::new(Recorder::default());
    let engine = Scripted { scripts: Mutex::new(vec![Box::new(script)]), complex: complex.clone() };
    let mut built = engine.build(machine.profile(), &machine.engine_parts()).unwrap();
    machine.socket().unplug().plug(built.complex).unwrap();
    let bus: Arc<dyn Bus> = machine.clone();
    assert_eq!(built.vcpus[0].run(&bus).unwrap(), Exit::Kicked);
    complex
}

fn outb(bus: &dyn Bus, port: u16, value: u8) {
    bus.pio_write(port, &[value]);
}

fn config(bus: &dyn Bus, device: u32, register: u32) -> u32 {
    bus.pio_write(0xcf8, &(1 << 31 | device << 11 | register).to_le_bytes());
    let mut data = [0; 4];
    bus.pio_read(0xcfc, &mut data);
    u32::from_le_bytes(data)
}

/// Gives every device state that is not that of reset.
fn stir(bus: &dyn Bus) {
    for (port, value) in [(0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0x21, 0xef)] {
        outb(bus, port, value);
    }
    bus.mmio_write(0xfec0_0000, &0x18u32.to_le_bytes()); // input 4, low half
    bus.mmio_write(0xfec0_0010, &0x0000_0041u32.to_le_bytes());
    bus.mmio_write(0xfed0_0010, &1u64.to_le_bytes()); // HPET on
    outb(bus, 0x43, 0x34); // PIT counter 0, rate generator
    outb(bus, 0x40, 0);
    outb(bus, 0x40, 0x10);
    outb(bus, 0x70, 0x40); // a byte of CMOS
    outb(bus, 0x71, 0x5a);
    outb(bus, 0x602, 0x20); // PM1 enable: global lock
    outb(bus, 0x64, 0x60); // i8042 command byte
    outb(bus, 0x60, 0x44);
    outb(bus, 0xcf9, 2);
    bus.pio_write(0x510, &5u16.to_le_bytes()); // the number of CPUs
    outb(bus, 0xe0, 7); // the test device's latch
    outb(bus, 0x3f9, 2); // transmitter-empty interrupt
    outb(bus, 0x3ff, 0x5a);
    bus.pio_write(0xcf8, &(1u32 << 31 | 1 << 11 | 4).to_le_bytes());
    bus.pio_write(0xcfc, &[6, 0]); // memory space, bus master
}

#[test]
fn sections_keep_their_names_and_order() {
    let machine = build(full_spec());
    let saved = machine.save();
    let paths: Vec<_> = saved.iter().map(|named| named.path.as_str()).collect();
    let kinds: Vec<_> = saved.iter().map(|named| named.section.kind.as_str()).collect();
    let sections: Vec<_> = std::iter::zip(paths, kinds).collect();
    assert_eq!(sections, SECTIONS);
}

/// Names in saved state: never changed, only added to.
const SECTIONS: &[(&str, &str)] = &[
    ("clock", "machine-clock"),
    ("pit", "pit"),
    ("rtc", "rtc"),
    ("hpet", "hpet"),
    ("pm", "pm"),
    ("i8042", "i8042"),
    ("com1", "uart"),
    ("pci-config", "pci-config-ports"),
    ("reset-control", "reset_control"),
    ("debug-exit", "debug_exit"),
    ("fw-cfg", "fw_cfg"),
    ("testdev", "testdev"),
    ("pci/00.0", "pci-function"),
    ("pci/01.0", "pci-function"),
    ("pci/02.0", "pci-function"),
    ("pci/1d.0", "pci-function"),
    ("pci/1e.0", "pci-function"),
    ("pci/1f.0", "pci-function"),
    ("pci/01.0/virtio", "virtio-pci"),
    ("pci/02.0/virtio", "virtio-pci"),
    ("pci/1d.0/virtio", "virtio-pci"),
    ("pci/1e.0/virtio", "virtio-pci"),
    ("pic", "pic"),
    ("ioapic", "ioapic"),
];

#[test]
fn what_is_saved_after_a_restore_is_what_was_saved_before() {
    let machine = build(full_spec());
    run(&machine, |bus| {
        stir(bus);
        Exit::Kicked
    });
    machine.pause_io();
    let saved = machine.save();
    let other = build(full_spec());
    for (stirred, new) in std::iter::zip(&saved, other.save()) {
        let stateless = ["clock", "debug-exit"].contains(&new.path.as_str());
        let stirs = stateless || new.path.starts_with("pci/");
        assert!(stirs || stirred.section != new.section, "{} was not stirred", new.path);
    }
    other.restore(&saved).unwrap();
    for (now, before) in std::iter::zip(other.save(), &saved) {
        assert_eq!(now, *before);
    }
    // The restored machine tells its socket what the first one knew.
    let complex = run(&other, |_| Exit::Kicked);
    assert!(complex.intr.load(Ordering::SeqCst));
}

/// Two devices on one line, of which the second was heard last.
#[test]
fn an_edge_that_was_taken_before_a_save_is_not_taken_again_after_the_restore() {
    let machine = build(full_spec());
    run(&machine, |bus| {
        stir(bus);
        outb(bus, 0x3f9, 0);
        outb(bus, 0x2004, 1); // the test device raises the UART's line
        assert_eq!(bus.ack_intr(), Some(0x24));
        outb(bus, 0x20, 0x20); // end of interrupt
        outb(bus, 0x3f9, 2); // the UART drives it too, and lets go of it
        outb(bus, 0x3f9, 0);
        Exit::Kicked
    });
    let saved = machine.save();
    let other = build(full_spec());
    let complex = run(&other, move |_| Exit::Kicked);
    other.restore(&saved).unwrap();
    assert_eq!(other.save(), saved);
    assert!(complex.sent.lock().unwrap().is_empty());
    assert!(!complex.intr.load(Ordering::SeqCst));
    // Nor does what is driven by the devices of a running machine matter.
    run(&machine, |bus| {
        outb(bus, 0x2004, 0);
        Exit::Kicked
    });
    machine.restore(&saved).unwrap();
    assert_eq!(machine.save(), saved);
}

#[test]
fn test_guests_find_the_number_of_cpus_and_the_size_of_memory() {
    let machine = build(spec(3, 5));
    run(&machine, |bus| {
        let item = |key: u16, expected: &[u8]| {
            bus.pio_write(0x510, &key.to_le_bytes());
            for expected in expected {
                let mut byte = [0];
                bus.pio_read(0x511, &mut byte);
                assert_eq!(byte, [*expected], "item {key}");
            }
        };
        item(0, b"QEMU");
        item(3, &(5u64 << 20).to_le_bytes());
        item(5, &3u16.to_le_bytes());
        Exit::Kicked
    });
}

#[test]
fn a_reset_machine_is_a_new_one_but_for_what_has_a_battery() {
    let machine = build(full_spec());
    run(&machine, |bus| {
        stir(bus);
        Exit::Kicked
    });
    machine.reset();
    for (reset, new) in std::iter::zip(machine.save(), build(full_spec()).save()) {
        assert!(reset == new || ["clock", "rtc"].contains(&new.path.as_str()), "{}", new.path);
    }
}

#[test]
fn restoring_wants_exactly_the_machines_sections() {
    let machine = build(full_spec());
    let saved = machine.save();
    let missing = machine.restore(&saved[1..]);
    assert!(matches!(missing, Err(RestoreError::Missing(path)) if path == "clock"));
    let mut twice = saved.clone();
    twice.push(saved[0].clone());
    assert!(matches!(machine.restore(&twice), Err(RestoreError::Leftover(_))));
    let mut wrong = saved.clone();
    wrong[1].section.kind = "other".into();
    let error = machine.restore(&wrong).unwrap_err();
    assert!(matches!(error, RestoreError::Section { path, .. } if path == saved[1].path));
    machine.restore(&saved).unwrap();
}

#[test]
fn bytes_reach_the_serial_line_and_accesses_are_counted() {
    let typed = Arc::new(Typed::default());
    let machine = build(MachineSpec { serial: typed.clone(), ..spec(1, 2) });
    run(&machine, |bus| {
        b"hello".iter().for_each(|byte| outb(bus, 0x3f8, *byte));
        let mut nobody = [0; 4];
        bus.mmio_read(0xfeb0_0000, &mut nobody);
        assert_eq!(nobody, [0xff; 4]);
        bus.pio_read(0x1234, &mut nobody);
        assert_eq!(nobody, [0xff; 4]);
        Exit::Kicked
    });
    assert_eq!(*typed.0.lock().unwrap(), b"hello");
    let counters = BusCounters { ports: 6, ports_unclaimed: 1, mmio: 1, mmio_unclaimed: 1 };
    assert_eq!(machine.bus_counters(), counters);
}

#[test]
fn a_serial_interrupt_reaches_both_controllers_and_is_acknowledged_at_the_pic() {
    let machine = build(spec(1, 2));
    let complex = run(&machine, |bus| {
        stir(bus);
        outb(bus, 0x3fc, 8); // OUT2 lets the UART's line through, where that matters
        assert_eq!(bus.ack_intr(), Some(0x24));
        Exit::Kicked
    });
    let sent: Vec<_> = complex.sent.lock().unwrap().iter().map(|msi| msi.vector()).collect();
    assert_eq!(sent, [0x41]);
}

#[test]
fn functions_are_where_they_were_put_by_both_ways_of_asking() {
    let machine = build(full_spec());
    run(&machine, |bus| {
        let expected = [
            (0, 0x29c0_8086),
            (1, 0x1042_1af4),
            (2, 0x1042_1af4),
            (3, u32::MAX),
            (29, 0x1043_1af4),
            (30, 0x1044_1af4),
            (31, 0x2918_8086),
        ];
        for (device, id) in expected {
            assert_eq!(config(bus, device, 0), id, "device {device}");
            let mut data = [0; 4];
            bus.mmio_read(0xe000_0000 + u64::from(device << 15), &mut data);
            assert_eq!(u32::from_le_bytes(data), id, "device {device} by ECAM");
        }
        // BARs have addresses in the 64-bit window, though there is no firmware.
        assert_eq!(config(bus, 1, 0x14) >> 7, 1);
        Exit::Kicked
    });
}

#[test]
fn a_machine_without_legacy_has_pci_and_reset_and_no_pic_or_keyboard() {
    let log = EventLog::new();
    let machine = {
        let entropy = Some(EntropySource::Seeded(1));
        Machine::build(MachineSpec { legacy: false, entropy, ..spec(1, 2) }, log.clone()).unwrap()
    };
    run(&machine, |bus| {
        for port in [0x21, 0xa1, 0x4d0, 0x60, 0x64] {
            let mut byte = [0];
            outb(bus, port, 0x5a);
            bus.pio_read(port, &mut byte);
            assert_eq!(byte, [0xff], "port {port:#x}");
        }
        let config = |device: u64| {
            let mut id = [0; 4];
            bus.mmio_read(0xe000_0000 + (device << 15), &mut id);
            u32::from_le_bytes(id)
        };
        assert_eq!(config(30), 0x1044_1af4, "the entropy device");
        assert_eq!((config(0), config(31)), (!0, !0), "the bridges");
        outb(bus, 0xcf9, 6);
        Exit::Kicked
    });
    assert!(matches!(log.take()[..], [MachineEvent::Reset]));
}

#[test]
fn memory_of_any_size_is_what_the_engine_is_told() {
    for mib in [2, 3, 64, 3071, 3072, 3073, 8192] {
        let machine = build(spec(1, mib));
        let complex = run(&machine, |_| Exit::Kicked);
        assert_eq!(complex.ram_bytes.load(Ordering::SeqCst), mib << 20);
    }
    let refused = |spec| Machine::build(spec, EventLog::new()).err().unwrap();
    assert!(matches!(refused(spec(1, 1)), BuildError::Layout(_)));
    let disks = (0..29).map(|_| disk()).collect();
    assert!(matches!(refused(MachineSpec { disks, ..spec(1, 2) }), BuildError::Disks(29)));
    let user = net::UserConfig { mac: net::Mac::of_vm("", 0), forwards: Vec::new() };
    let network = net::UserNetwork::new(&user).unwrap();
    let config = virtio::NetConfig { mac: user.mac, mac_changes: false };
    let nets = vec![NetSpec { network, config, model: NetModel::Virtio }];
    let disks = (0..MachineSpec::DISKS_MAX).map(|_| disk()).collect();
    let together = refused(MachineSpec { disks, nets, ..spec(1, 2) });
    assert!(matches!(together, BuildError::Places { disks: MachineSpec::DISKS_MAX, nets: 1 }));
}

/// A Multiboot kernel of eight words, with load addresses.
fn kernel() -> File {
    let flags = 1u32 << 16;
    let sum = 0u32.wrapping_sub(0x1bad_b002).wrapping_sub(flags);
    let at = 0x10_0000u32;
    let words = [0x1bad_b002, flags, sum, at, at, 0, 0, at];
    let mut file = tempfile::tempfile().unwrap();
    words.iter().for_each(|word| file.write_all(&word.to_le_bytes()).unwrap());
    file
}

#[test]
fn booting_again_starts_from_clear_memory() {
    boots_twice(|_| build(spec(3, 4)));
}

#[test]
fn what_was_loaded_before_the_machine_is_booted_once() {
    boots_twice(|images| {
        let mut memory = Prepared::new(4 << 20, Extras::default()).unwrap();
        memory.load(images).unwrap();
        Machine::build_with(spec(3, 4), memory, EventLog::new()).unwrap()
    });
}

fn boots_twice(make: impl FnOnce(&mut Images<File>) -> Arc<Machine>) {
    let image = |name: &str| Image::new(name, kernel());
    let mut images = Images {
        kernel: image("kernel"),
        initrd: None,
        cmdline: "x".into(),
        modules: vec![Module { image: image("module"), args: String::new() }],
    };
    let machine = make(&mut images);
    let first = machine.boot(Some(&mut images)).unwrap();
    assert_eq!(first.regs.rip, 0x10_0000);
    let memory = machine.memory();
    assert_eq!(memory.load::<u32>(RamOffset(0x10_1000)), 0x1bad_b002);
    assert_eq!(memory.load::<u64>(RamOffset(0xe_0000)), u64::from_le_bytes(*b"RSD PTR "));
    memory.store(RamOffset(0x20_0000), 5u64);
    assert_eq!(machine.boot(Some(&mut images)).unwrap(), first);
    assert_eq!(memory.load::<u64>(RamOffset(0x20_0000)), 0);
    assert_eq!(memory.load::<u32>(RamOffset(0x10_1000)), 0x1bad_b002);
}
