//! Configuration space as firmware and drivers use it.

use std::sync::Mutex;

use bus::{BusDevice, Device, LineSink, MsiSink};
use x86_state::Msi;

use super::*;

const ECAM: u64 = 0xe000_0000;
const AT: DevFn = DevFn::new(3, 0);
const BAR_BYTES: u64 = 0x4000;
const TABLE: u64 = 0x2000;
const PENDING: u64 = 0x3000;

#[derive(Default)]
struct Messages(Mutex<Vec<Msi>>);

impl MsiSink for Messages {
    fn send_msi(&self, msi: Msi) {
        self.0.lock().unwrap().push(msi);
    }
}

/// Levels of interrupt controllers' inputs.
#[derive(Default)]
struct Levels(Mutex<u32>);

impl LineSink for Levels {
    fn set_line(&self, input: u32, level: bool) {
        let mut levels = self.0.lock().unwrap();
        *levels = *levels & !(1 << input) | u32::from(level) << input;
    }
}

impl Messages {
    fn take(&self) -> Vec<u32> {
        self.0.lock().unwrap().drain(..).map(|m| m.data).collect()
    }
}

/// What the function's device is told.
#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Told {
    fn note(&self, what: String) {
        self.0.lock().unwrap().push(what);
    }
}

impl FunctionDevice for Told {
    fn bar_placed(&self, bar: usize, base: Option<u64>) {
        self.note(format!("bar {bar} {base:x?}"));
    }
    fn bus_master_set(&self, on: bool) {
        self.note(format!("master {on}"));
    }
    fn window_read(&self, capability: &[u8], data: &mut [u8]) {
        data.fill(capability[2]);
    }
    fn window_write(&self, capability: &[u8], data: &[u8]) {
        self.note(format!("window {:x?} {data:x?}", &capability[2..4]));
    }
}

struct Machine {
    spaces: Spaces,
    bus: Arc<PciBus>,
    ports: Arc<ConfigPorts>,
    msix: Arc<Msix>,
    messages: Arc<Messages>,
    told: Arc<Told>,
    function: Arc<Function>,
    intx: Arc<Intx>,
    levels: Arc<Levels>,
}

fn machine() -> Machine {
    let spaces = Spaces { memory: AddressSpace::new(), io: AddressSpace::new() };
    let messages = Arc::new(Messages::default());
    let msix = Msix::new(3, messages.clone());
    let place = MsixPlace { msix: msix.clone(), bar: 0, table: 0, pending: 0x1000 };
    // Table and pending bits at the end of the BAR, as a function would show them by itself.
    let place = MsixPlace { table: TABLE as u32, pending: PENDING as u32, ..place };
    let bar = |index, kind, size_bytes, device| Bar { index, kind, size_bytes, device };
    let intx = Intx::new();
    let spec = FunctionSpec {
        identity: Identity { vendor_id: 0x1af4, device_id: 0x1042, ..Identity::default() },
        bars: vec![
            bar(0, BarKind::Memory64, BAR_BYTES, Arc::new(TestBar(msix.clone())) as _),
            bar(2, BarKind::Io, 0x20, Arc::new(MsixBar(msix.clone(), 0x10)) as _),
            bar(3, BarKind::Memory32, 0x1000, Arc::new(MsixBar(msix.clone(), 0x800)) as _),
        ],
        capabilities: vec![
            Capability::read_only(spec::CAPABILITY_VENDOR, vec![16, 1, 2, 3]),
            Capability {
                id: spec::CAPABILITY_VENDOR,
                body: vec![0x5a, 0, 0, 0, 0, 0],
                writable: vec![0, 0xff, 0xff, 0xff, 0xff, 0xff],
                window: Some(4),
            },
        ],
        msix: Some(place),
        intx: Some(intx.clone()),
        ..FunctionSpec::default()
    };
    let told = Arc::new(Told::default());
    let function = Function::new(&spec, &spaces, told.clone());
    let levels = Arc::new(Levels::default());
    let (bus, pirqs) = (PciBus::new(), PirqRouter::new(levels.clone(), 16));
    function.connect_intx(Pin::of(AT), pirqs.line(AT, 5));
    bus.add(DevFn::new(0, 0), host_bridge(&bus, spaces.memory.clone(), Some(ECAM), None)).unwrap();
    bus.add(DevFn::new(31, 0), lpc_bridge(&spaces, Arc::new(PmPorts), Some(0x600), pirqs)).unwrap();
    bus.add(AT, function.clone()).unwrap();
    let ports = ConfigPorts::new(&bus, None);
    spaces.io.map(ConfigPorts::BASE, ConfigPorts::SIZE, ports.clone()).unwrap();
    Machine { spaces, bus, ports, msix, messages, told, function, intx, levels }
}

/// Reads as the offset.
struct PmPorts;

impl BusDevice for PmPorts {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(offset as u8);
    }
    fn write(&self, _offset: u64, _data: &[u8]) {}
}

/// The table at [`TABLE`], the pending bits at [`PENDING`].
struct TestBar(Arc<Msix>);

impl BusDevice for TestBar {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match offset {
            PENDING.. => self.0.read_pending(offset - PENDING, data),
            TABLE.. => self.0.read_table(offset - TABLE, data),
            _ => data.fill(offset as u8),
        }
    }
    fn write(&self, offset: u64, data: &[u8]) {
        if (TABLE..PENDING).contains(&offset) {
            self.0.write_table(offset - TABLE, data);
        }
    }
}

impl Machine {
    fn read(&self, register: u64) -> u32 {
        let mut data = [0; 4];
        self.spaces.memory.read(ECAM + (3 << 15) + register, &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&self, register: u64, data: &[u8]) {
        self.spaces.memory.write(ECAM + (3 << 15) + register, data);
    }

    fn write32(&self, register: u64, value: u32) {
        self.write(register, &value.to_le_bytes());
    }

    fn memory32(&self, address: u64) -> u32 {
        let mut data = [0; 4];
        self.spaces.memory.read(address, &mut data);
        u32::from_le_bytes(data)
    }

    /// Where the capability of this ID is, the `nth` of them.
    fn capability(&self, id: u8, nth: usize) -> u64 {
        let mut at = u64::from(self.read(0x34) & 0xff);
        let mut found = Vec::new();
        while at != 0 {
            let head = self.read(at);
            if head as u8 == id {
                found.push(at);
            }
            at = u64::from(head >> 8 & 0xff);
        }
        found[nth]
    }

    /// BAR 0 at 4 GiB, MSI-X on, vector 1 with data 0x41, bus master.
    fn set_up(&self) {
        self.write32(0x10, 0);
        self.write32(0x14, 1);
        self.write(4, &[6, 0]);
        let table = (1 << 32) + TABLE + 16;
        for (at, value) in [(0, 0xfee0_0000u32), (4, 0), (8, 0x41), (12, 0)] {
            self.spaces.memory.write(table + at, &value.to_le_bytes());
        }
        let msix = self.capability(spec::CAPABILITY_MSIX, 0);
        self.write(msix + 2, &0x8000u16.to_le_bytes());
    }
}

#[test]
fn bars_tell_their_size_and_kind() {
    let m = machine();
    for bar in 0..6 {
        m.write32(0x10 + 4 * bar, u32::MAX);
    }
    assert_eq!(m.read(0x10), 0xffff_c004);
    assert_eq!(m.read(0x14), 0xffff_ffff);
    assert_eq!(m.read(0x18), 0xffff_ffe1);
    assert_eq!(m.read(0x1c), 0xffff_f000);
    assert_eq!((m.read(0x20), m.read(0x24), m.read(0x30)), (0, 0, 0));
}

#[test]
fn a_bar_answers_only_while_its_space_is_enabled() {
    let m = machine();
    m.write32(0x10, 0xc000_0000);
    m.write32(0x18, 0x1000);
    assert_eq!(m.memory32(0xc000_0004), u32::MAX);
    m.write(4, &[2, 0]);
    assert_eq!(m.memory32(0xc000_0004), 0x0404_0404);
    let mut port = [0xff; 1];
    m.spaces.io.read(0x1010, &mut port);
    assert_eq!(port, [0xff]);
    m.write(4, &[1, 0]);
    m.spaces.io.read(0x1010, &mut port);
    assert_eq!((port, m.memory32(0xc000_0004)), ([0], u32::MAX));
    let told = m.told.0.lock().unwrap().join(", ");
    assert_eq!(told, "bar 0 Some(c0000000), bar 0 None, bar 2 Some(1000)");
}

#[test]
fn a_64_bit_bar_moves_above_4_gib_and_its_old_place_is_free() {
    let m = machine();
    m.write(4, &[2, 0]);
    m.write32(0x10, 0xc000_0000);
    m.write32(0x14, 0x20);
    assert_eq!(m.memory32(0xc000_0004), u32::MAX);
    assert_eq!(m.memory32(0x20_c000_0004), 0x0404_0404);
    assert_eq!(m.function.bar_base(0), Some(0x20_c000_0000));
}

#[test]
fn a_bar_on_top_of_another_device_is_not_mapped() {
    let m = machine();
    m.write(4, &[2, 0]);
    m.write32(0x10, ECAM as u32);
    assert_eq!(m.function.bar_base(0), None);
    assert_eq!(m.read(0), 0x1042_1af4);
}

#[test]
fn ports_and_ecam_show_the_same_registers() {
    let m = machine();
    let io = &m.spaces.io;
    io.write(0xcf8, &0x8000_1800u32.to_le_bytes());
    let mut word = [0; 2];
    io.read(0xcfe, &mut word);
    assert_eq!(word, [0x42, 0x10]);
    let mut dword = [0; 4];
    io.read(0xcfc, &mut dword);
    assert_eq!(u32::from_le_bytes(dword), m.read(0));
    io.write(0xcf8, &0x8000_183cu32.to_le_bytes());
    io.write(0xcfc, &[11]);
    assert_eq!(m.read(0x3c) & 0xff, 11);
    // Byte writes do not reach the address; other buses and disabled cycles reach nothing.
    io.write(0xcf9, &[0xff]);
    io.read(0xcf8, &mut dword);
    assert_eq!(u32::from_le_bytes(dword), 0x8000_183c);
    for address in [0x8001_1800u32, 0x0000_1800, 0x8000_2000] {
        io.write(0xcf8, &address.to_le_bytes());
        io.read(0xcfc, &mut dword);
        assert_eq!(dword, [0xff; 4], "{address:#x}");
    }
}

#[test]
fn byte_accesses_to_0xcf9_reach_the_reset_control() {
    let m = machine();
    let control = Arc::new(TestBar(m.msix.clone()));
    let ports = ConfigPorts::new(&m.bus, Some(control));
    let mut data = [0xff];
    ports.read(1, &mut data);
    assert_eq!(data, [0]);
    let mut wide = [0xff; 2];
    ports.read(1, &mut wide);
    assert_eq!(wide, [0xff; 2]);
}

#[test]
fn absent_functions_and_extended_space_read_ones() {
    let m = machine();
    assert_eq!(m.memory32(ECAM + (4 << 15)), u32::MAX);
    assert_eq!(m.read(0x100), u32::MAX);
    assert_eq!(m.read(0xffc), u32::MAX);
    m.write32(0xffc, 0);
    let mut wide = [0; 8];
    m.function.config_read(0xfc, &mut wide);
    m.function.config_write(0xfc, &[0xff; 8]);
}

#[test]
fn read_only_registers_stay() {
    let m = machine();
    for at in (0..0x40).step_by(4).filter(|at| ![4, 0xc, 0x10, 0x14, 0x18, 0x1c, 0x3c].contains(at))
    {
        let before = m.read(at);
        m.write32(at, !before);
        assert_eq!(m.read(at), before, "{at:#x}");
    }
}

#[test]
fn ecam_follows_pciexbar() {
    let m = machine();
    m.spaces.memory.write(ECAM + 0x60, &0xb000_0001u32.to_le_bytes());
    assert_eq!(m.memory32(ECAM + 0x8000 * 3), u32::MAX);
    assert_eq!(m.memory32(0xb000_0000 + 0x8000 * 3), 0x1042_1af4);
    assert_eq!(m.memory32(0xb000_0000), 0x29c0_8086);
    assert_eq!(m.memory32(0xb000_0000 + 0x8000 * 31 + 0x40), 0x601);
}

#[test]
fn an_unmasked_vector_sends_its_message() {
    let m = machine();
    m.set_up();
    m.msix.notify(1);
    m.msix.notify(0); // masked since reset
    m.msix.notify(3); // not there
    assert_eq!(m.messages.take(), [0x41]);
    assert_eq!(m.msix.message(1).unwrap().address, 0xfee0_0000);
    assert_eq!(m.msix.message(0), None);
}

#[test]
fn a_masked_vector_waits_and_is_sent_once() {
    let m = machine();
    m.set_up();
    let control = (1 << 32) + TABLE + 16 + 12;
    m.spaces.memory.write(control, &[1, 0, 0, 0]);
    m.msix.notify(1);
    m.msix.notify(1);
    assert_eq!(m.memory32((1 << 32) + PENDING), 2);
    assert_eq!(m.messages.take(), []);
    m.spaces.memory.write(control, &[0, 0, 0, 0]);
    assert_eq!(m.memory32((1 << 32) + PENDING), 0);
    assert_eq!(m.messages.take(), [0x41]);
}

#[test]
fn function_mask_and_bus_master_hold_messages_back() {
    let m = machine();
    m.set_up();
    let control = m.capability(spec::CAPABILITY_MSIX, 0) + 2;
    m.write(control, &0xc000u16.to_le_bytes());
    m.msix.notify(1);
    m.write(4, &[2, 0]);
    m.write(control, &0x8000u16.to_le_bytes());
    assert_eq!(m.messages.take(), []);
    m.write(4, &[6, 0]);
    assert_eq!(m.messages.take(), [0x41]);
    m.write(control, &0u16.to_le_bytes());
    m.msix.notify(1);
    m.write(control, &0x8000u16.to_le_bytes());
    assert_eq!(m.messages.take(), [], "what comes while MSI-X is off is lost");
}

#[test]
fn a_window_reaches_the_device() {
    let m = machine();
    let at = m.capability(spec::CAPABILITY_VENDOR, 1);
    m.write(at + 3, &[7]);
    assert_eq!(m.read(at + 4), 0x5a5a_5a5a);
    m.write32(at + 4, 0x0403_0201);
    assert_eq!(m.told.0.lock().unwrap().as_slice(), ["window [5a, 7] [1, 2, 3, 4]"]);
}

#[test]
fn saved_state_comes_back_with_what_follows_from_it() {
    let m = machine();
    m.set_up();
    m.write(m.capability(spec::CAPABILITY_MSIX, 0) + 2, &0xc000u16.to_le_bytes());
    m.msix.notify(1);
    let (function, ports) = (m.function.save(), m.ports.save());
    let new = machine();
    new.function.restore(&function).unwrap();
    new.ports.restore(&ports).unwrap();
    assert_eq!(new.function.save(), function);
    assert_eq!(new.function.bar_base(0), Some(1 << 32));
    new.write(new.capability(spec::CAPABILITY_MSIX, 0) + 2, &0x8000u16.to_le_bytes());
    assert_eq!(new.messages.take(), [0x41]);
    new.function.reset();
    assert_eq!(new.function.save(), machine().function.save());
    assert_eq!(new.function.bar_base(0), None);
}

#[test]
fn state_of_another_function_is_refused() {
    let m = machine();
    let other = m.bus.functions()[0].1.save();
    assert!(matches!(m.function.restore(&other), Err(bus::SectionError::Impossible { .. })));
    let before = m.function.save();
    assert!(m.function.restore(&m.ports.save()).is_err());
    assert_eq!(m.function.save(), before);
}

#[test]
fn bars_are_assigned_without_overlap_until_there_is_no_room() {
    let m = machine();
    let windows = Windows {
        memory32: 0xc000_0000..0xc000_2000,
        memory64: 0x10_0000_1000..0x10_0001_0000,
        io: 0x1000..0x2000,
    };
    m.bus.assign_bars(&windows).unwrap();
    m.write(4, &[3, 0]);
    assert_eq!(m.function.bar_base(0), Some(0x10_0000_4000));
    assert_eq!(m.function.bar_base(2), Some(0x1000));
    assert_eq!(m.function.bar_base(3), Some(0xc000_0000));
    let small = Windows { memory64: 0x1000..0x4fff, ..windows };
    let error = m.bus.assign_bars(&small).unwrap_err();
    assert_eq!(error, NoRoom { at: AT, bar: 0, size_bytes: BAR_BYTES });
}

#[test]
fn a_place_is_taken_once() {
    let m = machine();
    assert_eq!(m.bus.add(AT, m.function.clone()), Err(Taken(AT)));
    assert_eq!(Taken(AT).to_string(), "PCI function 03.0 is there already");
}

#[test]
fn a_machine_that_is_dropped_is_gone() {
    let m = machine();
    m.set_up();
    let (io, memory) = (Arc::downgrade(&m.spaces.io), Arc::downgrade(&m.spaces.memory));
    drop(m);
    assert_eq!((io.strong_count(), memory.strong_count()), (0, 0));
}

#[derive(Default)]
struct Attributed(Mutex<Vec<Segment>>);

impl AttributeSink for Attributed {
    fn set_attributes(&self, segments: &[Segment]) {
        *self.0.lock().unwrap() = segments.to_vec();
    }
}

#[test]
fn the_attribute_map_covers_all_from_c0000_to_1_mib() {
    let (bus, told) = (PciBus::new(), Arc::new(Attributed::default()));
    let bridge = host_bridge(&bus, AddressSpace::new(), None, Some(told.clone()));
    bridge.config_write(0x90, &[0x30, 0x01, 0x20, 0, 0, 0x10, 0xff]);
    let segments = told.0.lock().unwrap().clone();
    let mut end = 0xc_0000;
    for segment in &segments {
        assert_eq!(segment.base, end);
        end += segment.size;
    }
    assert_eq!(end, 0x10_0000);
    let bits = |base: u64| {
        let segment = segments.iter().rfind(|segment| segment.base <= base).unwrap();
        (segment.attributes.reads_ram, segment.attributes.writes_ram)
    };
    assert_eq!((bits(0xf_0000), bits(0xf_ffff)), ((true, true), (true, true)));
    assert_eq!((bits(0xc_0000), bits(0xc_4000)), ((true, false), (false, false)));
    assert_eq!((bits(0xc_8000), bits(0xc_c000)), ((false, false), (false, true)));
    assert_eq!((bits(0xe_0000), bits(0xe_4000)), ((false, false), (true, false)));
    assert_eq!((bits(0xe_8000), bits(0xe_c000)), ((true, true), (true, true)));
    bridge.reset();
    let attributes = told.0.lock().unwrap().iter().map(|s| s.attributes).collect::<Vec<_>>();
    assert_eq!(attributes, [Attributes { reads_ram: false, writes_ram: false }; 13]);
}

#[test]
fn the_power_management_ports_move_with_pmbase_while_they_are_enabled() {
    let m = machine();
    let lpc = m.bus.functions().pop().unwrap().1;
    let port = |port: u64| {
        let mut data = [0];
        m.spaces.io.read(port, &mut data);
        data[0]
    };
    assert_eq!((pm_base(&lpc), port(0x608)), (Some(0x600), 8));
    lpc.config_write(0x40, &0xb001u32.to_le_bytes());
    assert_eq!((pm_base(&lpc), port(0x608), port(0xb00c)), (Some(0xb000), 0xff, 12));
    lpc.config_write(0x44, &[0]);
    assert_eq!((pm_base(&lpc), port(0xb00c)), (None, 0xff));
    lpc.reset();
    assert_eq!((pm_base(&lpc), port(0x608)), (Some(0x600), 8));
}

#[test]
fn firmware_is_asked_where_it_has_put_ecam() {
    let bus = PciBus::new();
    let bridge = host_bridge(&bus, AddressSpace::new(), None, None);
    assert_eq!(ecam_base(&bridge), None);
    bridge.config_write(0x64, &[0; 4]);
    bridge.config_write(0x60, &0xb000_0001u32.to_le_bytes());
    assert_eq!(ecam_base(&bridge), Some(0xb000_0000));
}

#[test]
fn the_pin_is_driven_while_the_device_wants_it_and_neither_messages_nor_the_command_forbid() {
    let m = machine();
    let levels = || *m.levels.0.lock().unwrap();
    let byte = |register| {
        let mut data = [0];
        m.function.config_read(register, &mut data);
        data[0]
    };
    assert_eq!((byte(spec::INTERRUPT_PIN), byte(spec::STATUS) & 8), (1, 0));
    m.intx.update(|| true);
    assert_eq!((levels(), byte(spec::STATUS) & 8), (1 << 21, 8));

    m.function.config_write(spec::COMMAND, &[0, 4]);
    assert_eq!((levels(), byte(spec::STATUS) & 8), (0, 8), "the status shows it all the same");
    m.function.config_write(spec::COMMAND, &[0, 0]);
    assert_eq!(levels(), 1 << 21);
    m.function.config_write(0x42, &[0, 0x80]); // MSI-X is the first capability
    assert_eq!(levels(), 0);
    m.function.config_write(0x42, &[0, 0]);
    assert_eq!(levels(), 1 << 21);
    m.intx.update(|| false);
    assert_eq!((levels(), byte(spec::STATUS) & 8), (0, 0));
}

#[test]
fn a_function_without_a_wire_has_no_pin() {
    let spaces = Spaces { memory: AddressSpace::new(), io: AddressSpace::new() };
    let with_pin = FunctionSpec { intx: Some(Intx::new()), ..FunctionSpec::default() };
    let function = Function::new(&with_pin, &spaces, Arc::new(Inert));
    let mut data = [0xff];
    function.config_read(spec::INTERRUPT_PIN, &mut data);
    assert_eq!(data, [0]);
}

#[test]
fn the_lpc_bridge_routes_what_a_pin_drives_to_isa() {
    let m = machine();
    m.intx.update(|| true);
    let bridge = m.bus.functions().pop().unwrap().1;
    bridge.config_write(0x68, &[0x80, 11, 0x80, 0x80]);
    assert_eq!(*m.levels.0.lock().unwrap(), 1 << 21 | 1 << 11);
    bridge.reset();
    assert_eq!(*m.levels.0.lock().unwrap(), 1 << 21);
}
