//! A firmware of a few lines, which does what the loader's commands say.

use std::collections::BTreeMap;
use std::io::Cursor;

use super::*;
use crate::Images;

const DESCRIBED: Described = Described { cpus: 4, room: None, hpet: true, legacy: true };
/// Where the firmware puts the RSDP and the other tables.
const RSDP: u64 = 0xf_5a80;
const TABLES: u64 = 0x1f_fe00;

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn name(bytes: &[u8]) -> String {
    bytes.iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect()
}

/// Both files after the script has run.
fn run(layout: &Layout, moved: &Moved) -> (Vec<u8>, Vec<u8>) {
    let file = |file: FirmwareFiles| file.bytes(layout, DESCRIBED, moved);
    let mut files: BTreeMap<_, _> = [FirmwareFiles::Rsdp, FirmwareFiles::Tables]
        .map(|which| (which.name().to_owned(), (0, file(which))))
        .into();
    for command in file(FirmwareFiles::Loader).chunks(128) {
        let first = name(&command[4..60]);
        let word = |at: usize| number(&command[at..at + 4]) as usize;
        match word(0) {
            0 => {}
            1 => {
                let base = if command[64] == 2 { RSDP } else { TABLES };
                assert!(base.is_multiple_of(word(60) as u64));
                files.get_mut(&first).unwrap().0 = base;
            }
            2 => {
                let base = files[&name(&command[60..116])].0;
                let (at, size) = (word(116), usize::from(command[120]));
                let field = &mut files.get_mut(&first).unwrap().1[at..at + size];
                let value = number(field) + base;
                field.copy_from_slice(&value.to_le_bytes()[..size]);
            }
            3 => {
                let (at, start, size) = (word(60), word(64), word(68));
                let bytes = &mut files.get_mut(&first).unwrap().1;
                // As OVMF does it, which trusts that there is none yet.
                let sum = bytes[start..start + size].iter().fold(0u8, |s, b| s.wrapping_add(*b));
                bytes[at] = sum.wrapping_neg();
            }
            other => panic!("command {other}"),
        }
    }
    let mut take = |which: FirmwareFiles| files.remove(which.name()).unwrap().1;
    (take(FirmwareFiles::Rsdp), take(FirmwareFiles::Tables))
}

#[test]
fn the_script_makes_the_tables_that_would_be_there_without_it() {
    let layout = Layout::new(4 << 30).unwrap();
    let (rsdp, tables) = run(&layout, &Moved::default());
    let expected = acpi::build(DESCRIBED, &places(&layout, &Moved::default()), TABLES);
    assert_eq!(tables[..expected.bytes.len()], expected.bytes);
    assert_eq!(tables.len(), TABLES_SIZE);
    // The RSDT's address and the first sum are not in what the ACPI library makes.
    assert_eq!(rsdp[16..20], expected.rsdp[16..20]);
    assert_eq!(rsdp[24..32], expected.rsdp[24..32]);
    for size in [20, 36] {
        assert_eq!(rsdp[..size].iter().fold(0u8, |s, b| s.wrapping_add(*b)), 0);
    }
}

#[test]
fn both_roots_lead_to_the_same_tables() {
    let (rsdp, tables) = run(&Layout::new(64 << 20).unwrap(), &Moved::default());
    let at = |address: u64| &tables[(address - TABLES) as usize..];
    let entries = |root: u64, size: usize| {
        let root = at(root);
        let length = number(&root[4..8]) as usize;
        root[36..length].chunks(size).map(number).collect::<Vec<_>>()
    };
    let (old, new) = (entries(number(&rsdp[16..20]), 4), entries(number(&rsdp[24..32]), 8));
    assert_eq!(old, new);
    let signatures: Vec<_> = new.iter().map(|table| at(*table)[..4].to_vec()).collect();
    assert_eq!(signatures, [b"FACP", b"APIC", b"MCFG", b"HPET"]);
    let fadt = at(new[0]);
    assert_eq!(at(number(&fadt[36..40]))[..4], *b"FACS");
    assert!(number(&fadt[36..40]).is_multiple_of(64));
    assert_eq!(at(number(&fadt[40..44]))[..4], *b"DSDT");
    assert_eq!(fadt[40..44], fadt[140..144]);
}

#[test]
fn tables_say_what_firmware_has_moved() {
    let layout = Layout::new(64 << 20).unwrap();
    let moved = Moved {
        ecam: Some(0xe000_0000),
        pm_base: Some(0xb000),
        bars: vec![0xc000_0000..0xc000_1000, 0x8_0000_0000..0x8_0000_4000],
    };
    let (_, tables) = run(&layout, &moved);
    let find = |signature: &[u8; 4]| {
        let at = tables.windows(4).position(|bytes| bytes == signature).unwrap();
        &tables[at..]
    };
    assert_eq!(number(&find(b"MCFG")[44..52]), 0xe000_0000);
    assert_eq!(number(&find(b"FACP")[76..80]), 0xb008);
    let places = places(&layout, &moved);
    assert_eq!(places.window_64, Span::new(0x8_0000_0000, 0xf8_0000_0000));
    let windows: Vec<_> = places.windows.iter().map(|window| (window.base, window.end())).collect();
    let expected = [(0xa_0000, 0xc_0000), (64 << 20, 0xe000_0000), (0xf000_0000, 0xfec0_0000)];
    assert_eq!(windows, expected);
}

#[test]
fn nonsense_in_the_bridges_registers_is_not_believed() {
    for ram in [2 << 20, 3 << 30, layout::RAM_BYTES_MAX] {
        let layout = Layout::new(ram).unwrap();
        for ecam in [0, 0xf000_0000, 0x7f_f000_0000] {
            let moved = Moved {
                ecam: Some(ecam),
                pm_base: Some(0xff80),
                bars: vec![0..0x1000, 0xffff_ffff_ffff_c000..u64::MAX, 1 << 45..(1 << 45) + 16],
            };
            for file in FirmwareFiles::ALL {
                file.bytes(&layout, DESCRIBED, &moved);
            }
            assert_eq!(places(&layout, &moved).ecam.base, 0xb000_0000);
        }
    }
}

#[test]
fn cmos_says_how_much_ram_there_is_on_both_sides_of_the_hole() {
    let bytes =
        |ram| -> BTreeMap<u8, u8> { cmos(&Layout::new(ram).unwrap(), 3).into_iter().collect() };
    let small = bytes(512 << 20);
    assert_eq!((small[&0x34], small[&0x35]), (0, 0x1f)); // 496 MiB above 16 MiB
    assert_eq!((small[&0x30], small[&0x31]), (0xff, 0xff));
    assert_eq!((small[&0x5b], small[&0x5c], small[&0x5d], small[&0x5f]), (0, 0, 0, 2));
    let large = bytes(5 << 30);
    assert_eq!((large[&0x34], large[&0x35]), (0, 0x7f)); // 2 GiB below
    assert_eq!((large[&0x5b], large[&0x5c], large[&0x5d]), (0, 0xc0, 0)); // 3 GiB above
    assert_eq!(bytes(2 << 20)[&0x31], 4);
}

#[test]
fn all_ram_is_in_e820_and_the_order_ends_with_a_nul() {
    let layout = Layout::new(3 << 30).unwrap();
    let order = ["/pci@i0cf8/scsi@1/disk@0,0", "/pci@i0cf8/ethernet@1c"].map(str::to_owned);
    let files: BTreeMap<_, _> =
        files(&layout, DESCRIBED, &order.map(BootDevice)).into_iter().collect();
    let entries: Vec<_> = files["etc/e820"]
        .chunks(20)
        .map(|entry| (number(&entry[..8]), number(&entry[8..16]), number(&entry[16..])))
        .collect();
    assert_eq!(entries, [(0, 2 << 30, 1), (4 << 30, 1 << 30, 1)]);
    let order = &files["bootorder"];
    assert_eq!(order[..], *b"/pci@i0cf8/scsi@1/disk@0,0\n/pci@i0cf8/ethernet@1c\0");
    assert_eq!(files["etc/smbios/smbios-anchor"][24..28], [0; 4]);
}

fn image(name: &str, bytes: Vec<u8>) -> Image<Cursor<Vec<u8>>> {
    Image::new(name, Cursor::new(bytes))
}

fn bzimage(setup_sects: u8, size: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..size).map(|at| (at / SECTOR) as u8).collect();
    bytes[SETUP_SECTS] = setup_sects;
    bytes[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes
}

#[test]
fn a_kernel_for_firmware_is_cut_after_its_setup() {
    let read = |setup_sects, size, cmdline: &str| {
        let kernel = image("k", bzimage(setup_sects, size));
        let initrd = Some(image("i", vec![7; 10]));
        DirectBoot::read(&mut Images { kernel, initrd, cmdline: cmdline.into(), modules: vec![] })
    };
    let boot = read(2, 4096, "quiet").unwrap();
    assert_eq!((boot.setup.len(), boot.kernel.len(), boot.kernel[0]), (1536, 2560, 3));
    assert_eq!((boot.initrd, boot.cmdline), (vec![7; 10], b"quiet\0".to_vec()));
    assert_eq!(read(0, 4096, "").unwrap().setup.len(), 5 * SECTOR);
    assert!(matches!(read(9, 4096, ""), Err(BootError::Truncated { .. })));
    let kernel = image("k", b"\x7fELF".to_vec());
    let mut images = Images { kernel, initrd: None, cmdline: String::new(), modules: vec![] };
    assert!(matches!(DirectBoot::read(&mut images), Err(BootError::NotForFirmware { .. })));
}
