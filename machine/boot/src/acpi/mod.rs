//! ACPI tables: what the board is, told to an operating system.
//!
//! Everything said here is true of the board: a fixed-hardware ACPI machine that is always in ACPI
//! mode, with PM1a, PM timer, reset register and S5; with 8042, RTC and 16550; without VGA, legacy
//! INTx on PCI, sleep states other than S5, or general-purpose events.
//!
//! ACPI 6.5: chapter 5 (tables), 19 (AML); PCI Firmware Specification 3.3 (MCFG); IA-PC HPET 1.0a.

mod dsdt;

use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;

use crate::Described;
use crate::layout::{self, ACPI, irq, port};

pub(crate) const OEM_ID: [u8; 6] = *b"TRINE ";
pub(crate) const OEM_TABLE_ID: [u8; 8] = *b"BOARD   ";
pub(crate) const OEM_REVISION: u32 = 1;

/// FADT: the machine has ISA devices, no VGA, and nothing that knows ASPM.
const BOOT_ARCHITECTURE: u16 = 1 << 0 | 1 << 2 | 1 << 4;
/// FADT: it has an 8042.
const BOOT_8042: u16 = 1 << 1;
/// CMOS byte of the century.
const RTC_CENTURY: u8 = 0x32;
/// Worst-case latencies that mean "C2 and C3 are not supported".
const NO_C2: u16 = 101;
const NO_C3: u16 = 1001;
/// What the reset-control register takes for a hard reset.
const RESET_VALUE: u8 = 0x06;

const MADT_HEADER_SIZE: u32 = 44;
const MADT_PCAT_COMPAT: u32 = 1;
const MADT_ENABLED: u32 = 1;
/// Interrupt source override: active high, level.
const ACTIVE_HIGH_LEVEL: u16 = 1 | 3 << 2;
const ALL_PROCESSORS: u8 = 0xff;

/// HPET: its ID register's low half: Intel, legacy routing, 64-bit counter, three comparators.
const HPET_ID: u32 = 0x8086_a201;
const HPET_TABLE_SIZE: u32 = 56;

/// All tables, as they are from [`ACPI`]'s base on. The RSDP is the first.
pub(crate) fn tables(described: Described) -> Vec<u8> {
    let Described { cpus, hpet: has_hpet, legacy } = described;
    let mut image = Image { bytes: vec![0; Rsdp::len()] };
    let facs = image.add(&FACS::new(), 64);
    let dsdt = image.add_bytes(&dsdt::dsdt(described), 8);
    let fadt = image.add(&fadt(facs, dsdt, legacy), 8);
    let madt = image.add_bytes(madt(cpus, legacy).as_slice(), 8);
    let mcfg = image.add(&mcfg(), 8);
    let hpet = has_hpet.then(|| image.add_bytes(hpet().as_slice(), 8));
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    for table in [fadt, madt, mcfg].into_iter().chain(hpet) {
        xsdt.add_entry(table);
    }
    let xsdt = image.add(&xsdt, 8);
    let mut rsdp = Vec::new();
    Rsdp::new(OEM_ID, xsdt).to_aml_bytes(&mut rsdp);
    image.bytes[..rsdp.len()].copy_from_slice(&rsdp);
    assert!(image.bytes.len() as u64 <= ACPI.size, "the ACPI tables are too long");
    image.bytes
}

/// Tables one after the other.
struct Image {
    bytes: Vec<u8>,
}

impl Image {
    /// Appends a table; returns where the guest sees it.
    fn add(&mut self, table: &dyn Aml, align: usize) -> u64 {
        let mut bytes = Vec::new();
        table.to_aml_bytes(&mut bytes);
        self.add_bytes(&bytes, align)
    }

    fn add_bytes(&mut self, bytes: &[u8], align: usize) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(align), 0);
        let at = ACPI.base + self.bytes.len() as u64;
        self.bytes.extend(bytes);
        at
    }
}

fn io(span: layout::Span, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, span.size as u8 * 8, 0, access, span.base)
}

fn fadt(facs: u64, dsdt: u64, legacy: bool) -> acpi_tables::fadt::FADT {
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .dsdt_64(dsdt)
        .firmware_ctrl_32(facs as u32)
        .flag(Flags::Wbinvd)
        .flag(Flags::ProcC1)
        .flag(Flags::SlpButton)
        .flag(Flags::FixRtc)
        .flag(Flags::TmrValExt)
        .flag(Flags::ResetRegSup);
    fadt.dsdt = (dsdt as u32).into();
    fadt.sci_int = (irq::SCI as u16).into();
    fadt.pm1a_evt_blk = (port::PM1A_EVENT.base as u32).into();
    fadt.pm1a_cnt_blk = (port::PM1A_CONTROL.base as u32).into();
    fadt.pm_tmr_blk = (port::PM_TIMER.base as u32).into();
    fadt.pm1_evt_len = port::PM1A_EVENT.size as u8;
    fadt.pm1_cnt_len = port::PM1A_CONTROL.size as u8;
    fadt.pm_tmr_len = port::PM_TIMER.size as u8;
    fadt.p_lvl2_lat = NO_C2.into();
    fadt.p_lvl3_lat = NO_C3.into();
    fadt.century = RTC_CENTURY;
    fadt.iapc_boot_arch = (BOOT_ARCHITECTURE | if legacy { BOOT_8042 } else { 0 }).into();
    fadt.reset_reg = io(port::RESET_CONTROL, AccessSize::ByteAccess);
    fadt.reset_value = RESET_VALUE;
    fadt.x_pm1a_evt_blk = io(port::PM1A_EVENT, AccessSize::WordAccess);
    fadt.x_pm1a_cnt_blk = io(port::PM1A_CONTROL, AccessSize::WordAccess);
    fadt.x_pm_tmr_blk = io(port::PM_TIMER, AccessSize::DwordAccess);
    fadt.finalize()
}

/// Processors by APIC ID, one IOAPIC, and how ISA interrupts reach it.
fn madt(cpus: u32, legacy: bool) -> Sdt {
    let mut madt = Sdt::new(*b"APIC", MADT_HEADER_SIZE, 5, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    madt.write_u32(36, layout::LOCAL_APIC.base as u32);
    madt.write_u32(40, if legacy { MADT_PCAT_COMPAT } else { 0 });
    for id in 0..cpus as u8 {
        let [a, b, c, d] = MADT_ENABLED.to_le_bytes();
        madt.append_slice(&[0, 8, id, id, a, b, c, d]);
    }
    let [a, b, c, d] = (layout::IOAPIC.base as u32).to_le_bytes();
    madt.append_slice(&[1, 12, 0, 0, a, b, c, d, 0, 0, 0, 0]);
    let mut source_override = |irq: u32, input: u32, flags: u16| {
        let (input, flags) = (input.to_le_bytes(), flags.to_le_bytes());
        let entry = [2, 10, 0, irq as u8, input[0], input[1], input[2], input[3]];
        madt.append_slice(&[&entry[..], &flags].concat());
    };
    source_override(irq::PIT, irq::PIT_IOAPIC, 0);
    source_override(irq::SCI, irq::SCI, ACTIVE_HIGH_LEVEL);
    madt.append_slice(&[4, 6, ALL_PROCESSORS, 0, 0, 1]); // NMI at every LINT1
    madt
}

fn mcfg() -> MCFG {
    let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    mcfg.add_ecam(layout::ECAM.base, 0, 0, layout::PCI_BUSES as u8 - 1);
    mcfg
}

fn hpet() -> Sdt {
    let mut hpet = Sdt::new(*b"HPET", HPET_TABLE_SIZE, 1, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    hpet.write_u32(36, HPET_ID);
    hpet.write_u8(41, 64); // GAS: system memory, 64 bits
    hpet.write_u64(44, layout::HPET.base);
    hpet
}

#[cfg(test)]
mod tests;
