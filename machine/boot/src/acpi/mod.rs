//! ACPI tables: what the board is, told to an operating system.
//!
//! Everything said here is true of the board: a fixed-hardware ACPI machine that is always in ACPI
//! mode, with PM1a, PM timer, reset register and S5; with 8042, RTC and 16550; without VGA, or
//! sleep states other than S5; general-purpose events are those of hot-plug.
//!
//! ACPI 6.5: chapter 5 (tables), 19 (AML); PCI Firmware Specification 3.3 (MCFG); IA-PC HPET 1.0a.

mod dsdt;
mod hotplug;
mod interrupts;
pub(crate) mod loader;

use acpi_tables::Aml;
use acpi_tables::facs::FACS;
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::mcfg::MCFG;
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;

use crate::Described;
use crate::layout::{self, ACPI, Span, irq, port};

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
const MADT_ONLINE_CAPABLE: u32 = 2;
/// Interrupt source override: active high, level.
const ACTIVE_HIGH_LEVEL: u16 = 1 | 3 << 2;
const ALL_PROCESSORS: u8 = 0xff;

/// HPET: its ID register's low half: Intel, legacy routing, 64-bit counter, three comparators.
const HPET_ID: u32 = 0x8086_a201;
const HPET_TABLE_SIZE: u32 = 56;

/// Where what firmware may move is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Places {
    /// PCI configuration space.
    pub(crate) ecam: Span,
    /// The power-management ports.
    pub(crate) pm_base: u16,
    /// Memory that is the PCI bus's, below 4 GiB.
    pub(crate) windows: Vec<Span>,
    /// The same above.
    pub(crate) window_64: Span,
    /// Systems of before ACPI 2.0 find the tables, too.
    pub(crate) rsdt: bool,
}

impl Places {
    /// Without firmware nothing moves.
    pub(crate) fn fixed() -> Self {
        Self {
            ecam: layout::ECAM,
            pm_base: port::PM.base as u16,
            windows: vec![layout::PCI_WINDOW_32],
            window_64: layout::PCI_WINDOW_64,
            rsdt: false,
        }
    }
}

/// Tables one after the other, with the addresses they have from `base` on.
pub(crate) struct Tables {
    /// All but the RSDP.
    pub(crate) bytes: Vec<u8>,
    /// The RSDP.
    pub(crate) rsdp: Vec<u8>,
    /// Where there are addresses.
    pub(crate) pointers: Vec<Field>,
    /// The tables that have a sum.
    pub(crate) sums: Vec<Range>,
    base: u64,
}

/// An address in the tables.
pub(crate) struct Field {
    /// Its offset.
    pub(crate) at: u32,
    /// Its bytes.
    pub(crate) size: u8,
}

/// A table.
pub(crate) struct Range {
    /// Its offset.
    pub(crate) at: u32,
    /// Its length.
    pub(crate) size: u32,
}

const FADT_FIRMWARE_CTRL: u32 = 36;
const FADT_DSDT: u32 = 40;
const FADT_X_DSDT: u32 = 140;
const SDT_HEADER_SIZE: u32 = 36;
const RSDP_RSDT: usize = 16;

/// All tables, as they are from [`ACPI`]'s base on. The RSDP is the first.
pub(crate) fn tables(described: Described) -> Vec<u8> {
    let rsdp_size = Rsdp::len().next_multiple_of(64);
    let tables = build(described, &Places::fixed(), ACPI.base + rsdp_size as u64);
    let mut bytes = tables.rsdp;
    bytes.resize(rsdp_size, 0);
    bytes.extend(tables.bytes);
    assert!(bytes.len() as u64 <= ACPI.size, "the ACPI tables are too long");
    bytes
}

/// The tables for memory from `base` on, a multiple of 64.
pub(crate) fn build(described: Described, places: &Places, base: u64) -> Tables {
    let Described { cpus, room, hpet: has_hpet, legacy } = described;
    let (bytes, pointers, sums) = (Vec::new(), Vec::new(), Vec::new());
    let mut all = Tables { bytes, rsdp: Vec::new(), pointers, sums, base };
    let facs = all.append(&to_bytes(&FACS::new()), 64);
    let dsdt = all.add(&dsdt::dsdt(described, places));
    let fadt = all.add(&to_bytes(&fadt(facs, dsdt, &described, places.pm_base)));
    for (offset, size) in [(FADT_FIRMWARE_CTRL, 4), (FADT_DSDT, 4), (FADT_X_DSDT, 8)] {
        let at = (fadt - base) as u32 + offset;
        all.pointers.push(Field { at, size });
    }
    let mut tables =
        vec![fadt, all.add(madt(cpus, room.map_or(cpus, |room| room.cpus), legacy).as_slice())];
    tables.push(all.add(&to_bytes(&mcfg(places.ecam))));
    if has_hpet {
        tables.push(all.add(hpet().as_slice()));
    }
    let mut rsdt = None;
    if places.rsdt {
        let mut table = Sdt::new(*b"RSDT", 36, 1, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
        tables.iter().for_each(|table_at| table.append_slice(&(*table_at as u32).to_le_bytes()));
        rsdt = Some(all.add_root(table.as_slice(), tables.len(), 4));
    }
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    tables.iter().for_each(|table| xsdt.add_entry(*table));
    let xsdt = all.add_root(&to_bytes(&xsdt), tables.len(), 8);
    all.rsdp = to_bytes(&Rsdp::new(OEM_ID, xsdt));
    if let Some(rsdt) = rsdt {
        all.rsdp[RSDP_RSDT..RSDP_RSDT + 4].copy_from_slice(&(rsdt as u32).to_le_bytes());
    }
    all
}

fn to_bytes(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

impl Tables {
    fn append(&mut self, bytes: &[u8], align: usize) -> u64 {
        self.bytes.resize(self.bytes.len().next_multiple_of(align), 0);
        let at = self.base + self.bytes.len() as u64;
        self.bytes.extend(bytes);
        at
    }

    /// Appends a table that has a sum; returns where the guest sees it.
    fn add(&mut self, bytes: &[u8]) -> u64 {
        let at = self.append(bytes, 8);
        self.sums.push(Range { at: (at - self.base) as u32, size: bytes.len() as u32 });
        at
    }

    /// The same for a table that is a header and addresses.
    fn add_root(&mut self, bytes: &[u8], count: usize, size: u8) -> u64 {
        let at = self.add(bytes);
        let first = (at - self.base) as u32 + SDT_HEADER_SIZE;
        let fields = (0..count as u32).map(|n| Field { at: first + n * u32::from(size), size });
        self.pointers.extend(fields);
        at
    }
}

fn io(span: Span, access: AccessSize) -> GAS {
    GAS::new(AddressSpace::SystemIo, span.size as u8 * 8, 0, access, span.base)
}

fn fadt(facs: u64, dsdt: u64, described: &Described, pm_base: u16) -> acpi_tables::fadt::FADT {
    let moved = |span: Span| Span::new(span.base - port::PM.base + u64::from(pm_base), span.size);
    let event = moved(port::PM1A_EVENT);
    let (control, timer) = (moved(port::PM1A_CONTROL), moved(port::PM_TIMER));
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
    fadt.pm1a_evt_blk = (event.base as u32).into();
    fadt.pm1a_cnt_blk = (control.base as u32).into();
    fadt.pm_tmr_blk = (timer.base as u32).into();
    fadt.pm1_evt_len = event.size as u8;
    fadt.pm1_cnt_len = control.size as u8;
    fadt.pm_tmr_len = timer.size as u8;
    fadt.p_lvl2_lat = NO_C2.into();
    fadt.p_lvl3_lat = NO_C3.into();
    fadt.century = RTC_CENTURY;
    fadt.iapc_boot_arch = (BOOT_ARCHITECTURE | if described.legacy { BOOT_8042 } else { 0 }).into();
    fadt.reset_reg = io(port::RESET_CONTROL, AccessSize::ByteAccess);
    fadt.reset_value = RESET_VALUE;
    fadt.x_pm1a_evt_blk = io(event, AccessSize::WordAccess);
    fadt.x_pm1a_cnt_blk = io(control, AccessSize::WordAccess);
    fadt.x_pm_tmr_blk = io(timer, AccessSize::DwordAccess);
    if described.room.is_some() {
        let events = moved(port::GPE0);
        fadt.gpe0_blk = (events.base as u32).into();
        fadt.gpe0_blk_len = events.size as u8;
        fadt.x_gpe0_blk = io(events, AccessSize::ByteAccess);
    }
    fadt.finalize()
}

/// Processors by APIC ID, one IOAPIC, and how ISA interrupts reach it.
fn madt(cpus: u32, cpus_max: u32, legacy: bool) -> Sdt {
    let mut madt = Sdt::new(*b"APIC", MADT_HEADER_SIZE, 5, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    madt.write_u32(36, layout::LOCAL_APIC.base as u32);
    madt.write_u32(40, if legacy { MADT_PCAT_COMPAT } else { 0 });
    for id in 0..cpus_max as u8 {
        let there = u32::from(id) < cpus;
        let flags = if there { MADT_ENABLED } else { MADT_ONLINE_CAPABLE };
        let [a, b, c, d] = flags.to_le_bytes();
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

fn mcfg(ecam: Span) -> MCFG {
    let mut mcfg = MCFG::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    mcfg.add_ecam(ecam.base, 0, 0, layout::PCI_BUSES as u8 - 1);
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
