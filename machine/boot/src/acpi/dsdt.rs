//! The DSDT: devices that no bus can enumerate, and the PCI host bridge.

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, Device, EISAName, IO, Interrupt, Memory32Fixed, Name,
    Package, Path, ResourceTemplate, Scope, ZERO,
};
use acpi_tables::sdt::Sdt;

use super::{OEM_ID, OEM_REVISION, OEM_TABLE_ID, Places, hotplug, interrupts};
use crate::Described;
use crate::layout::{self, PCI_HOTPLUG_SLOTS, SLEEP_TYPE_S5, Span, irq, port};

const HEADER_SIZE: u32 = 36;
/// Compliance with ACPI 2.0 and later: integers have 64 bits.
const REVISION: u8 = 6;
/// Device 31, function 0: the LPC bridge.
const LPC_ADDRESS: u32 = 0x1f_0000;

/// The whole table.
pub(super) fn dsdt(described: Described, places: &Places) -> Vec<u8> {
    let mut devices = Vec::new();
    processors(&mut devices, described.cpus);
    if let Some(room) = &described.room {
        hotplug::controller(&mut devices, described.cpus, room);
        devices.extend((described.cpus..room.cpus).flat_map(hotplug::cpu));
        let block = |n| hotplug::memory_block(n, room.blocks.block(n));
        devices.extend((0..room.blocks.count).flat_map(block));
    }
    motherboard(&mut devices, &described, places.ecam);
    if described.hpet {
        hpet(&mut devices);
    }
    if described.legacy {
        interrupts::links(&mut devices);
    }
    pci_host(&mut devices, &described, places);
    let mut body = Scope::raw(Path::new("\\_SB_"), devices);
    if described.legacy {
        interrupts::mode(&mut body);
    }
    if described.room.is_some() {
        body.extend(hotplug::events());
    }
    sleep_states(&mut body);

    let mut table = Sdt::new(*b"DSDT", HEADER_SIZE, REVISION, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    table.append_slice(&body);
    table.as_slice().to_vec()
}

pub(super) fn name(path: &str, value: &dyn Aml) -> Name {
    Name::new(Path::new(path), value)
}

fn processors(body: &mut Vec<u8>, cpus: u32) {
    for id in 0..cpus {
        Device::new(
            Path::new(&hotplug::cpu_name(id)),
            vec![&name("_HID", &"ACPI0007"), &name("_UID", &id)],
        )
        .to_aml_bytes(body);
    }
}

fn io(span: Span) -> IO {
    IO::new(span.base as u16, span.base as u16, 1, span.size as u8)
}

fn memory(span: Span) -> Memory32Fixed {
    Memory32Fixed::new(true, span.base as u32, span.size as u32)
}

/// ISA's interrupts: edge, active high, not shared.
fn isa_interrupt(number: u32) -> Interrupt {
    Interrupt::new(true, true, false, false, number)
}

/// Addresses of the board itself, which nobody else may use. The IOAPIC is in the MADT, and the
/// power-management ports are the LPC bridge's.
fn motherboard(body: &mut Vec<u8>, described: &Described, ecam: Span) {
    let (ecam, apic) = (memory(ecam), memory(layout::LOCAL_APIC));
    let (elcr, post) = (io(port::ELCR), io(port::POST));
    let mut resources: Vec<&dyn Aml> = vec![&ecam, &apic, &post];
    if described.legacy {
        resources.push(&elcr);
    }
    let hotplug = io(port::HOTPLUG);
    if described.room.is_some() {
        resources.push(&hotplug);
    }
    Device::new(
        Path::new("MBRD"),
        vec![
            &name("_HID", &EISAName::new("PNP0C02")),
            &name("_UID", &ZERO),
            &name("_CRS", &ResourceTemplate::new(resources)),
        ],
    )
    .to_aml_bytes(body);
}

fn hpet(body: &mut Vec<u8>) {
    Device::new(
        Path::new("HPET"),
        vec![
            &name("_HID", &EISAName::new("PNP0103")),
            &name("_UID", &ZERO),
            &name("_CRS", &ResourceTemplate::new(vec![&memory(layout::HPET)])),
        ],
    )
    .to_aml_bytes(body);
}

/// The host bridge with its windows, what is on ISA, and slots. Without an LPC bridge there is no `_PRT`,
/// because no function has an interrupt pin.
fn pci_host(body: &mut Vec<u8>, described: &Described, places: &Places) {
    let config = port::PCI_CONFIG;
    let bus = AddressSpace::new_bus_number(0u16, layout::PCI_BUSES as u16 - 1);
    let below = AddressSpace::new_io(0u16, config.base as u16 - 1, None);
    let above = AddressSpace::new_io(port::PCI_WINDOW.base as u16, u16::MAX, None);
    let uncached = AddressSpaceCacheable::NotCacheable;
    let low = |at: &Span| {
        AddressSpace::new_memory(uncached, true, at.base as u32, at.last() as u32, None)
    };
    let low: Vec<_> = places.windows.iter().map(low).collect();
    let high = places.window_64;
    let high = AddressSpace::new_memory(uncached, true, high.base, high.last(), None);
    let config = io(config);
    let mut windows: Vec<&dyn Aml> = vec![&bus, &config, &below, &above, &high];
    windows.extend(low.iter().map(|window| window as &dyn Aml));
    let windows = ResourceTemplate::new(windows);
    let mut children = isa(described.legacy);
    if described.room.is_some() {
        children.extend(PCI_HOTPLUG_SLOTS.flat_map(hotplug::slot));
    }
    let routing = if described.legacy { interrupts::routing() } else { Vec::new() };
    Device::new(
        Path::new("PCI0"),
        vec![
            &name("_HID", &EISAName::new("PNP0A08")),
            &name("_CID", &EISAName::new("PNP0A03")),
            &name("_UID", &ZERO),
            &name("_SEG", &ZERO),
            &name("_BBN", &ZERO),
            &name("_CRS", &windows),
            &Raw(routing),
            &Raw(children),
        ],
    )
    .to_aml_bytes(body);
}

/// Bytes that are AML already.
pub(super) struct Raw(pub(super) Vec<u8>);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(&self.0);
    }
}

/// Devices on ISA: behind the LPC bridge, where there is one.
fn isa(legacy: bool) -> Vec<u8> {
    let mut devices = Vec::new();
    let mut add = |path: &str, id: &str, resources: Vec<&dyn Aml>| {
        let id = EISAName::new(id);
        let resources = ResourceTemplate::new(resources);
        let (id, resources) = (name("_HID", &id), name("_CRS", &resources));
        Device::new(Path::new(path), vec![&id, &resources]).to_aml_bytes(&mut devices);
    };
    let (rtc, rtc_interrupt) = (io(port::RTC), isa_interrupt(irq::RTC));
    if !legacy {
        // For its time alone: nothing sleeps that its alarm could wake, and without an interrupt
        // Linux leaves the alarm alone, which is ninety accesses.
        add("RTC_", "PNP0B00", vec![&rtc]);
    } else {
        add("RTC_", "PNP0B00", vec![&rtc, &rtc_interrupt]);
        add(
            "KBD_",
            "PNP0303",
            vec![&io(port::I8042_DATA), &io(port::I8042_COMMAND), &isa_interrupt(irq::KEYBOARD)],
        );
        add("MOU_", "PNP0F13", vec![&isa_interrupt(irq::MOUSE)]);
    }
    add("COM1", "PNP0501", vec![&io(port::COM1), &isa_interrupt(irq::COM1)]);

    if !legacy {
        return devices;
    }
    let mut children = Vec::new();
    interrupts::registers(&mut children);
    children.extend(devices);
    let (address, children, mut lpc) = (name("_ADR", &LPC_ADDRESS), Raw(children), Vec::new());
    Device::new(Path::new("LPC_"), vec![&address, &children]).to_aml_bytes(&mut lpc);
    lpc
}

/// Only S5. The values are what goes into SLP_TYP of PM1a's control register.
fn sleep_states(body: &mut Vec<u8>) {
    let (s5, zero) = (SLEEP_TYPE_S5, ZERO);
    let package = Package::new(vec![&s5, &s5, &zero, &zero]);
    name("\\_S5_", &package).to_aml_bytes(body);
}
