//! Hot-plug in AML: the controller's registers, what its events do, and what can come and go.

use acpi_tables::Aml;
use acpi_tables::aml::{
    AddressSpace, AddressSpaceCacheable, And, BufferData, Device, EISAName, Field, FieldAccessType,
    FieldEntry, FieldLockRule, FieldUpdateRule, If, Local, Method, MethodCall, Notify, OpRegion,
    OpRegionSpace, Path, ResourceTemplate, Return, Scope, Store, ZERO,
};

use super::dsdt::{Raw, name};
use crate::Room;
use crate::layout::{PCI_HOTPLUG_SLOTS, Span, port};

/// Values of Notify (ACPI 6.5, table 5.172).
const DEVICE_CHECK: u8 = 1;
const EJECT_REQUEST: u8 = 3;
/// `_STA`: present, enabled, shown and working.
const ALL_WELL: u8 = 0xf;

/// The registers, and a method for each kind of device; all in `\_SB`.
pub(super) fn controller(body: &mut Vec<u8>, cpus: u32, room: &Room) {
    let (base, size) = (port::HOTPLUG.base as u16, port::HOTPLUG.size as u8);
    OpRegion::new(Path::new("HPRG"), OpRegionSpace::SystemIO, &base, &size).to_aml_bytes(body);
    let fields = [b"PCUP", b"PCDN", b"PCEJ", b"CPUP", b"CPNW", b"MMUP", b"MMNW"];
    Field::new(
        Path::new("HPRG"),
        FieldAccessType::DWord,
        FieldLockRule::NoLock,
        FieldUpdateRule::WriteAsZeroes,
        fields.map(|field| FieldEntry::Named(*field, 32)).to_vec(),
    )
    .to_aml_bytes(body);
    let slots = || PCI_HOTPLUG_SLOTS.map(|slot| (slot, slot_path(slot)));
    let mut pci = taken("PCUP");
    pci.extend(notified(slots(), DEVICE_CHECK));
    pci.extend(to_aml(&Store::new(&Local(0), &Path::new("PCDN"))));
    pci.extend(notified(slots(), EJECT_REQUEST));
    let mut cpu = taken("CPNW");
    cpu.extend(notified((cpus..room.cpus).map(|id| (id, cpu_name(id))), DEVICE_CHECK));
    let mut memory = taken("MMNW");
    memory.extend(notified((0..room.blocks.count).map(|n| (n, block_name(n))), DEVICE_CHECK));
    for (method, code) in [("HPCI", pci), ("HCPU", cpu), ("HMEM", memory)] {
        Method::new(Path::new(method), 0, true, vec![&Raw(code)]).to_aml_bytes(body);
    }
}

/// What general-purpose event 1 does.
pub(super) fn events() -> Vec<u8> {
    let call = |method| to_aml(&MethodCall::new(Path::new(method), Vec::new()));
    let calls =
        Raw(["\\_SB_.HPCI", "\\_SB_.HCPU", "\\_SB_.HMEM"].into_iter().flat_map(call).collect());
    let event = Method::new(Path::new("_E01"), 0, true, vec![&calls]);
    Scope::raw(Path::new("\\_GPE"), to_aml(&event))
}

/// A slot of PCI that can be filled and emptied; in the host bridge.
pub(super) fn slot(number: u32) -> Vec<u8> {
    let eject = Store::new(&Path::new("\\_SB_.PCEJ"), &bit(number)).into_aml();
    to_aml(&Device::new(
        Path::new(&slot_name(number)),
        vec![
            &name("_ADR", &(number << 16)),
            &name("_SUN", &number),
            &Method::new(Path::new("_EJ0"), 1, true, vec![&Raw(eject)]),
        ],
    ))
}

/// A CPU that is not there at power-up.
pub(super) fn cpu(id: u32) -> Vec<u8> {
    // As in the MADT: a local APIC, enabled.
    let madt = BufferData::new(vec![0, 8, id as u8, id as u8, 1, 0, 0, 0]);
    to_aml(&Device::new(
        Path::new(&cpu_name(id)),
        vec![
            &name("_HID", &"ACPI0007"),
            &name("_UID", &id),
            &name("_MAT", &madt),
            &present("CPUP", id),
        ],
    ))
}

/// A block of memory that is not there at power-up.
pub(super) fn memory_block(number: u32, at: Span) -> Vec<u8> {
    let cacheable = AddressSpaceCacheable::Cacheable;
    let range = AddressSpace::new_memory(cacheable, true, at.base, at.last(), None);
    to_aml(&Device::new(
        Path::new(&block_name(number)),
        vec![
            &name("_HID", &EISAName::new("PNP0C80")),
            &name("_UID", &number),
            &name("_CRS", &ResourceTemplate::new(vec![&range])),
            &present("MMUP", number),
        ],
    ))
}

pub(super) fn cpu_name(id: u32) -> String {
    format!("C{id:03X}")
}

fn block_name(number: u32) -> String {
    format!("M{number:03X}")
}

fn slot_name(number: u32) -> String {
    format!("S{number:03X}")
}

fn slot_path(number: u32) -> String {
    format!("\\_SB_.PCI0.{}", slot_name(number))
}

fn bit(number: u32) -> u32 {
    1 << number
}

fn to_aml(object: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    object.to_aml_bytes(&mut bytes);
    bytes
}

/// A register goes to Local0, and what was in it is taken off.
fn taken(register: &str) -> Vec<u8> {
    let mut code = to_aml(&Store::new(&Local(0), &Path::new(register)));
    code.extend(to_aml(&Store::new(&Path::new(register), &Local(0))));
    code
}

/// For each object whose bit is in Local0, a notification.
fn notified(objects: impl Iterator<Item = (u32, String)>, value: u8) -> Vec<u8> {
    let one = |(number, path): (u32, String)| {
        let is_set = And::new(&ZERO, &Local(0), &bit(number)).into_aml();
        let notify = Notify::new(&Path::new(&path), &value).into_aml();
        to_aml(&If::new(&Raw(is_set), vec![&Raw(notify)]))
    };
    objects.flat_map(one).collect()
}

/// `_STA` by a register's bit.
fn present(register: &str, number: u32) -> Raw {
    let path = Path::new(&format!("\\_SB_.{register}"));
    let is_set = And::new(&ZERO, &path, &bit(number)).into_aml();
    let well = Return::new(&ALL_WELL).into_aml();
    let check = If::new(&Raw(is_set), vec![&Raw(well)]).into_aml();
    let absent = Return::new(&ZERO).into_aml();
    Raw(Method::new(Path::new("_STA"), 0, true, vec![&Raw(check), &Raw(absent)]).into_aml())
}

/// An object's bytes, where it borrows what does not live long enough.
trait IntoAml: Aml + Sized {
    fn into_aml(self) -> Vec<u8> {
        to_aml(&self)
    }
}

impl<T: Aml> IntoAml for T {}
