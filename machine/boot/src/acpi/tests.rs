use std::process::Command;

use super::*;
use crate::Room;
use crate::layout::Layout;

fn find(image: &[u8], signature: &[u8; 4]) -> Vec<u8> {
    let xsdt = pointer(image, 24, 8);
    let at = |gpa: u64| (gpa - ACPI.base) as usize;
    let length = |gpa: u64| pointer(&image[at(gpa)..], 4, 4) as usize;
    let mut tables: Vec<u64> = (36..length(xsdt))
        .step_by(8)
        .map(|offset| pointer(&image[at(xsdt)..], offset, 8))
        .collect();
    tables.push(pointer(&image[at(tables[0])..], 140, 8)); // FADT.X_DSDT
    let table = tables.into_iter().find(|table| image[at(*table)..].starts_with(signature));
    let table = table.unwrap();
    image[at(table)..at(table) + length(table)].to_vec()
}

fn pointer(bytes: &[u8], at: usize, size: usize) -> u64 {
    bytes[at..at + size].iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

#[test]
fn every_table_adds_up_to_zero() {
    for cpus in [1, 32] {
        let image = tables(Described { cpus, room: None, hpet: true, legacy: true });
        let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!((sum(&image[..20]), sum(&image[..36])), (0, 0));
        for signature in [b"FACP", b"APIC", b"MCFG", b"HPET", b"DSDT"] {
            assert_eq!(sum(&find(&image, signature)), 0, "{signature:?}");
        }
    }
}

#[test]
fn each_cpu_has_an_entry_and_the_timer_is_at_input_2() {
    let madt =
        find(&tables(Described { cpus: 32, room: None, hpet: false, legacy: true }), b"APIC");
    let mut entries = Vec::new();
    let mut at = 44;
    while at < madt.len() {
        entries.push(&madt[at..at + usize::from(madt[at + 1])]);
        at += entries[entries.len() - 1].len();
    }
    let cpus: Vec<_> = entries.iter().filter(|e| e[0] == 0).map(|e| e[3]).collect();
    assert_eq!(cpus, (0..32).collect::<Vec<u8>>());
    assert!(entries.contains(&&[2, 10, 0, 0, 2, 0, 0, 0, 0, 0][..]));
    assert!(entries.contains(&&[2, 10, 0, 9, 9, 0, 0, 0, 0x0d, 0][..]));
}

/// `iasl` is Intel's compiler: a second opinion. Where it is not installed there is none, and the
/// test says so.
#[test]
fn iasl_reads_every_table_and_compiles_them_again() {
    if Command::new("iasl").arg("-v").output().is_err() {
        eprintln!("not run: iasl is not installed (package acpica-tools)");
        return;
    }
    let folder = std::env::temp_dir().join(format!("trine-acpi-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let blocks = Layout::new(512 << 20).unwrap().blocks(2 << 30).unwrap();
    let room = Some(Room { cpus: 8, blocks });
    let image = tables(Described { cpus: 4, room, hpet: true, legacy: true });
    for signature in [b"FACP", b"APIC", b"MCFG", b"HPET", b"DSDT"] {
        let file = String::from_utf8(signature.to_vec()).unwrap();
        std::fs::write(folder.join(format!("{file}.dat")), find(&image, signature)).unwrap();
        for arguments in [vec!["-d".to_owned(), format!("{file}.dat")], vec![format!("{file}.dsl")]]
        {
            let output =
                Command::new("iasl").args(&arguments).current_dir(&folder).output().unwrap();
            let text = [output.stdout, output.stderr].concat();
            let text = String::from_utf8_lossy(&text);
            assert!(output.status.success(), "iasl {arguments:?}: {text}");
            let compiles = arguments.len() == 1;
            assert!(!compiles || text.contains("0 Errors, 0 Warnings"), "{file}: {text}");
        }
    }
    let dsl = std::fs::read_to_string(folder.join("DSDT.dsl")).unwrap();
    for expected in [
        "Device (PCI0)",
        "Device (C003)",
        "Device (C007)",
        "Device (M00B)",
        "Device (S018)",
        "Name (\\_S5",
        "Method (_PRT",
        "Device (LNKH)",
        "EisaId (\"PNP0501\")",
    ] {
        assert!(dsl.contains(expected), "{expected} is not in {dsl}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_most_a_machine_can_have_fits_into_the_tables_place() {
    let blocks = Layout::new(1 << 30).unwrap().blocks(256 << 30).unwrap();
    let room = Some(Room { cpus: 32, blocks });
    let image = tables(Described { cpus: 1, room, hpet: true, legacy: true });
    let madt = find(&image, b"APIC");
    assert_eq!([madt[44 + 4], madt[44 + 8 + 4]], [1, 2], "enabled, and can be");
    let fadt = find(&image, b"FACP");
    assert_eq!((pointer(&fadt, 80, 4), fadt[92]), (0x620, 4));
}

#[test]
fn an_hpet_is_described_only_when_it_shall_be() {
    let count = |hpet| {
        let image = tables(Described { cpus: 1, room: None, hpet, legacy: false });
        image.windows(4).filter(|bytes| bytes == b"HPET").count()
    };
    assert_eq!((count(false), count(true)), (0, 2)); // its table, and its device
}

#[test]
fn what_only_old_systems_look_for_is_described_only_when_it_is_there() {
    let flags = |legacy| {
        let image = tables(Described { cpus: 1, room: None, hpet: false, legacy });
        let (madt, fadt) = (find(&image, b"APIC"), find(&image, b"FACP"));
        let keyboards = image.windows(4).filter(|bytes| bytes == b"KBD_").count();
        (madt[40] & 1, fadt[109] >> 1 & 1, keyboards)
    };
    assert_eq!((flags(false), flags(true)), ((0, 0, 0), (1, 1, 1)));
}
