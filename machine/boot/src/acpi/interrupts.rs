//! Interrupt pins in the DSDT: which leads where, and the links that old systems route (ACPI 6.5,
//! 6.2.13; the registers are the LPC bridge's, ICH9 datasheet 13.1.17).
//!
//! A system with an IOAPIC says so by `_PIC`, and gets its inputs. Others get links, which are PIRQs
//! that they route to ISA interrupts.

use acpi_tables::Aml;
use acpi_tables::aml::{
    And, Arg, CreateDWordField, Device, EISAName, Else, Field, FieldAccessType, FieldEntry,
    FieldLockRule, FieldUpdateRule, If, Interrupt, Local, Method, Name, OpRegion, OpRegionSpace,
    Or, Package, Path, ResourceTemplate, Return, Store, ZERO,
};

use super::dsdt::{Raw, name};
use crate::layout::irq;

/// The LPC bridge's routing registers: PIRQ A to D, four reserved bytes, E to H.
const ROUTES: u8 = 0x60;
const ROUTES_SIZE: u8 = 12;
const ROUTE_OFF: u8 = 1 << 7;
const ROUTE_IRQ: u8 = 0xf;
const PIRQS: usize = 8;
const PINS: usize = 4;
/// All devices but the host bridge.
const DEVICES: std::ops::Range<u8> = 1..32;
/// Any function of a device.
const ANY_FUNCTION: u32 = 0xffff;
/// ISA interrupts a link can be: those that firmware takes, and one more.
const POSSIBLE: [u32; 3] = [5, 10, 11];
/// Where the number is in an extended interrupt descriptor (ACPI 6.5, 6.4.3.6).
const NUMBER_AT: u8 = 5;
/// `_STA`: present, shown and working; and enabled.
const STATUS_OFF: u8 = 0x9;
const STATUS_ON: u8 = 0xb;

fn letter(pirq: usize) -> char {
    char::from(b'A' + (pirq % PIRQS) as u8)
}

/// The interrupt that a link is: level-triggered and shared. The board has no polarity.
fn shared(number: u32) -> Interrupt {
    Interrupt::new(true, false, false, true, number)
}

/// `\_PIC`, and the variable it sets.
pub(super) fn mode(body: &mut Vec<u8>) {
    name("\\PICF", &ZERO).to_aml_bytes(body);
    let (to, from) = (Path::new("PICF"), Arg(0));
    body.extend(method("\\_PIC", 1, false, vec![&Store::new(&to, &from)]).0);
}

/// The routing registers, as fields of the LPC bridge.
pub(super) fn registers(lpc: &mut Vec<u8>) {
    let (offset, size) = (ROUTES, ROUTES_SIZE);
    let region = || Path::new("PIRQ");
    OpRegion::new(region(), OpRegionSpace::PCIConfig, &offset, &size).to_aml_bytes(lpc);
    let route = |pirq| FieldEntry::Named([b'P', b'R', b'Q', letter(pirq) as u8], 8);
    let mut fields: Vec<_> = (0..PINS).map(route).collect();
    fields.push(FieldEntry::Reserved(32));
    fields.extend((PINS..PIRQS).map(route));
    let (access, rule) = (FieldAccessType::Byte, FieldLockRule::NoLock);
    Field::new(region(), access, rule, FieldUpdateRule::Preserve, fields).to_aml_bytes(lpc);
}

/// One link for each PIRQ.
pub(super) fn links(body: &mut Vec<u8>) {
    for pirq in 0..PIRQS {
        link(body, pirq);
    }
}

/// A method, as AML: what it is made of need not outlive it.
fn method(path: &str, arguments: u8, serialized: bool, body: Vec<&dyn Aml>) -> Raw {
    let mut aml = Vec::new();
    Method::new(Path::new(path), arguments, serialized, body).to_aml_bytes(&mut aml);
    Raw(aml)
}

fn link(body: &mut Vec<u8>, pirq: usize) {
    let route = Path::new(&format!("\\_SB_.PCI0.LPC_.PRQ{}", letter(pirq)));
    let (off, number_bits, number_at) = (ROUTE_OFF, ROUTE_IRQ, NUMBER_AT);
    let (status_off, status_on) = (STATUS_OFF, STATUS_ON);
    let local = Local(0);
    let is_off = And::new(&ZERO, &route, &off);
    let status = method(
        "_STA",
        0,
        false,
        vec![&If::new(&is_off, vec![&Return::new(&status_off)]), &Return::new(&status_on)],
    );
    let disable = Or::new(&route, &route, &off);
    let disable = method("_DIS", 0, false, vec![&disable]);

    // A template in which the number is put.
    let template = shared(0);
    let template = ResourceTemplate::new(vec![&template]);
    let number = Path::new("NUMB");
    let into = CreateDWordField::new(&number, &local, &number_at);
    let routed = And::new(&number, &route, &number_bits);
    let current = method(
        "_CRS",
        0,
        true,
        vec![&Store::new(&local, &template), &into, &routed, &Return::new(&local)],
    );
    let asked = CreateDWordField::new(&number, &Arg(0), &number_at);
    let set = And::new(&route, &number, &number_bits);
    let set = method("_SRS", 1, true, vec![&asked, &set]);
    let possible = Raw(possible());
    let unique = pirq as u8;
    Device::new(
        Path::new(&format!("LNK{}", letter(pirq))),
        vec![
            &name("_HID", &EISAName::new("PNP0C0F")),
            &name("_UID", &unique),
            &name("_PRS", &ResourceTemplate::new(vec![&possible])),
            &status,
            &disable,
            &current,
            &set,
        ],
    )
    .to_aml_bytes(body);
}

/// An extended interrupt descriptor with several numbers.
fn possible() -> Vec<u8> {
    let mut one = Vec::new();
    shared(POSSIBLE[0]).to_aml_bytes(&mut one);
    let more = 4 * (POSSIBLE.len() - 1);
    one[1] += more as u8;
    one[4] = POSSIBLE.len() as u8;
    one.extend(POSSIBLE[1..].iter().flat_map(|number| number.to_le_bytes()));
    one
}

/// `_PRT` of the bus, and the two tables that it chooses from.
pub(super) fn routing() -> Vec<u8> {
    let mut aml = Vec::new();
    let input = |pirq: usize| irq::PIRQ_A + pirq as u32;
    table("PRTA", |pirq| (Box::new(ZERO), Box::new(input(pirq)))).to_aml_bytes(&mut aml);
    let link = |pirq| Path::new(&format!("\\_SB_.LNK{}", letter(pirq)));
    table("PRTP", |pirq| (Box::new(link(pirq)), Box::new(ZERO))).to_aml_bytes(&mut aml);
    let (has_ioapic, inputs, links) = (Path::new("PICF"), Path::new("PRTA"), Path::new("PRTP"));
    let choice = method(
        "_PRT",
        0,
        false,
        vec![
            &If::new(&has_ioapic, vec![&Return::new(&inputs)]),
            &Else::new(vec![&Return::new(&links)]),
        ],
    );
    aml.extend(choice.0);
    aml
}

/// Every pin of every device, and its source.
fn table(path: &str, source: impl Fn(usize) -> (Box<dyn Aml>, Box<dyn Aml>)) -> Name {
    let entry = |(device, pin): (u8, u8)| {
        let address = u32::from(device) << 16 | ANY_FUNCTION;
        let (of, index) = source(irq::pirq(device, usize::from(pin)));
        let mut entry = Vec::new();
        Package::new(vec![&address, &pin, &*of, &*index]).to_aml_bytes(&mut entry);
        Raw(entry)
    };
    let pins = DEVICES.flat_map(|device| (0..PINS as u8).map(move |pin| (device, pin)));
    let entries: Vec<_> = pins.map(entry).collect();
    name(path, &Package::new(entries.iter().map(|entry| entry as &dyn Aml).collect()))
}
