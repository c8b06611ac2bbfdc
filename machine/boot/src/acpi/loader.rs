//! The table loader: how firmware puts the tables where it wants them (QEMU, `docs/specs` and
//! `hw/acpi/bios-linker-loader.c`): a list of commands of 128 bytes each. Firmware allocates files,
//! adds their addresses to the pointers in them, and makes the sums right.

use super::Tables;

/// File of the RSDP.
pub(crate) const RSDP_FILE: &str = "etc/acpi/rsdp";
/// File of all other tables.
pub(crate) const TABLES_FILE: &str = "etc/acpi/tables";
/// File of the commands.
pub(crate) const LOADER_FILE: &str = "etc/table-loader";

const COMMAND_SIZE: usize = 128;
const NAME_SIZE: usize = 56;
const ALLOCATE: u32 = 1;
const ADD_POINTER: u32 = 2;
const ADD_CHECKSUM: u32 = 3;
const ZONE_HIGH: u8 = 1;
const ZONE_F_SEGMENT: u8 = 2;
const RSDP_ALIGN: u32 = 16;
/// The FACS's, which is the most any table wants.
const TABLES_ALIGN: u32 = 64;

/// RSDP: where the two sums and the two pointers are, and over how many bytes the sums go.
const RSDP_SUMS: [(u32, u32); 2] = [(8, 20), (32, 36)];
const RSDP_RSDT: (u32, u8) = (16, 4);
const RSDP_XSDT: (u32, u8) = (24, 8);
/// Where the sum of every other table is.
const TABLE_SUM: u32 = 9;

/// The commands for tables whose addresses count from the beginning of [`TABLES_FILE`].
pub(crate) fn script(tables: &Tables) -> Vec<u8> {
    let mut script = Vec::new();
    let mut command = |code: u32, parts: &[&[u8]]| {
        let end = script.len() + COMMAND_SIZE;
        script.extend(code.to_le_bytes());
        parts.iter().for_each(|part| script.extend(*part));
        script.resize(end, 0);
    };
    let (rsdp, all) = (&name(RSDP_FILE)[..], &name(TABLES_FILE)[..]);
    command(ALLOCATE, &[rsdp, &RSDP_ALIGN.to_le_bytes(), &[ZONE_F_SEGMENT]]);
    command(ALLOCATE, &[all, &TABLES_ALIGN.to_le_bytes(), &[ZONE_HIGH]]);
    for pointer in &tables.pointers {
        command(ADD_POINTER, &[all, all, &pointer.at.to_le_bytes(), &[pointer.size]]);
    }
    for (at, size) in [RSDP_RSDT, RSDP_XSDT] {
        command(ADD_POINTER, &[rsdp, all, &at.to_le_bytes(), &[size]]);
    }
    for table in &tables.sums {
        let (sum, start) = (table.at + TABLE_SUM, table.at);
        let numbers = [sum.to_le_bytes(), start.to_le_bytes(), table.size.to_le_bytes()];
        command(ADD_CHECKSUM, &[all, numbers.as_flattened()]);
    }
    for (sum, size) in RSDP_SUMS {
        let numbers = [sum.to_le_bytes(), [0; 4], size.to_le_bytes()];
        command(ADD_CHECKSUM, &[rsdp, numbers.as_flattened()]);
    }
    script
}

/// Takes out the sums: of two ways to make them right, one takes what is there into account and the
/// other does not. Zero suits both.
pub(crate) fn clear_sums(tables: &mut Tables) {
    for table in &tables.sums {
        tables.bytes[(table.at + TABLE_SUM) as usize] = 0;
    }
    for (sum, _) in RSDP_SUMS {
        tables.rsdp[sum as usize] = 0;
    }
}

fn name(file: &str) -> [u8; NAME_SIZE] {
    let mut name = [0; NAME_SIZE];
    name[..file.len()].copy_from_slice(file.as_bytes());
    name
}
