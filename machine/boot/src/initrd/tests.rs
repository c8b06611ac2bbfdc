use std::io::{Cursor, Write};

use super::*;
use crate::tests::{bzip2, gzip, lz4, lzma, with_trailer, xz};

const MEMORY: u64 = 64 << 20;

fn entry(magic: &[u8; 6], name: &str, mode: u32, data: &[u8]) -> Vec<u8> {
    let sum: u32 = data.iter().map(|byte| u32::from(*byte)).sum();
    let sum = if magic.ends_with(b"2") { sum } else { 0 };
    let (size, name_size) = (data.len() as u32, name.len() as u32 + 1);
    let mut bytes = magic.to_vec();
    for number in [7, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, sum] {
        bytes.extend(format!("{number:08x}").bytes());
    }
    bytes.extend(name.bytes());
    bytes.push(0);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn file(name: &str, data: &[u8]) -> Vec<u8> {
    entry(b"070701", name, 0o100_755, data)
}

fn trailer() -> Vec<u8> {
    file("TRAILER!!!", b"")
}

fn program(machine: u16) -> Vec<u8> {
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(18, 0);
    elf.extend(machine.to_le_bytes());
    elf.resize(4000, 0x90);
    elf
}

fn noise(size: usize) -> Vec<u8> {
    let mut x = 1u32;
    let next = || {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (x >> 24) as u8
    };
    std::iter::repeat_with(next).take(size).collect()
}

fn archive() -> Vec<u8> {
    [
        entry(b"070701", "bin", 0o040_755, b""),
        file("./usr/lib/firmware/dsp.elf", &program(183)),
        file("usr/bin/busybox", &program(62)),
        file("lib/noise", &noise(300_000)),
        file("init", b"#!/bin/sh\n"),
        trailer(),
    ]
    .concat()
}

fn zstd(data: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn lzo(data: &[u8]) -> Vec<u8> {
    let mut file = b"\x89LZO\x00\x0d\x0a\x1a\x0a\x10\x30\x20\x60\x09\x40\x01\x05".to_vec();
    file.extend([0, 0, 0, 1]); // Adler-32 of unpacked bytes
    file.extend([0; 12]);
    file.extend(b"\0\0\0\0\0");
    for block in data.chunks(256 << 10) {
        file.extend((block.len() as u32).to_be_bytes());
        file.extend((block.len() as u32).to_be_bytes());
        file.extend([1, 2, 3, 4]);
        file.extend(block);
    }
    file.extend([0; 4]);
    file
}

type Packer = fn(&[u8]) -> Vec<u8>;

const PACKERS: [(&str, Packer); 7] = [
    ("gzip", gzip),
    ("bzip2", bzip2),
    ("lzma", lzma),
    ("xz", xz),
    ("lzo", lzo),
    ("lz4", lz4),
    ("zstd", zstd),
];

fn check(bytes: &[u8]) -> Result<(), BootError> {
    check_initrd(&mut Image::new("initrd", Cursor::new(bytes.to_vec())), MEMORY)
}

fn refusal(bytes: &[u8]) -> String {
    check(bytes).unwrap_err().to_string()
}

#[test]
fn archives_packed_or_not_one_after_another_are_taken() {
    check(&archive()).unwrap();
    let early = [file("kernel/x86/microcode/GenuineIntel.bin", &noise(2000)), trailer()].concat();
    for (name, pack) in PACKERS {
        let packed = pack(&archive());
        check(&packed).unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut both = early.clone();
        both.resize(both.len().next_multiple_of(512), 0);
        both.extend(&packed);
        check(&both).unwrap_or_else(|error| panic!("{name}: {error}"));
        both.resize(both.len().next_multiple_of(512) + 512, 0);
        check(&both).unwrap_or_else(|error| panic!("{name}, padded: {error}"));
    }
    check(&[gzip(&archive()), zstd(&archive()), xz(&archive()), xz(&archive())].concat()).unwrap();
    check(&gzip(&[archive(), vec![0; 100], archive()].concat())).unwrap();
}

#[test]
fn what_is_cut_off_is_refused_wherever_it_is_cut() {
    let plain = archive();
    for size in (1..plain.len()).step_by(plain.len() / 300) {
        assert!(check(&plain[..size]).is_err(), "{size}");
    }
    assert!(refusal(&plain[..100_000]).contains("truncated: its archive runs past its 100000"));
    let end = plain.len() - trailer().len();
    assert!(refusal(&plain[..end]).contains("is truncated"));
    for (name, pack) in PACKERS {
        let packed = pack(&plain);
        let cuts =
            (16..packed.len()).step_by(packed.len() / 20).chain(packed.len() - 3..packed.len());
        for size in cuts {
            assert!(check(&packed[..size]).is_err(), "{name}: {size} of {}", packed.len());
        }
    }
}

#[test]
fn damage_is_seen_where_the_format_has_a_sum_or_a_structure() {
    let formats: [(&str, Packer); 3] = [("gzip", gzip), ("bzip2", bzip2), ("Zstandard", zstd)];
    for (name, pack) in formats {
        let packed = pack(&archive());
        // Noise is stored as it is in places: only the sum shows what became of it.
        for at in (packed.len() / 10..packed.len() - 8).step_by(packed.len() / 10) {
            let mut damaged = packed.clone();
            damaged[at] ^= 0x10;
            let said = refusal(&damaged);
            assert!(said.contains(name) || said.contains("damaged"), "{name}, {at}: {said}");
        }
    }
    let mut damaged = archive();
    let at = damaged.windows(4).position(|w| w == b"init").unwrap();
    damaged[at - 110] = b'1';
    assert!(refusal(&damaged).contains("damaged: an entry of its archive does not begin as one"));
    let mut damaged = archive();
    damaged[6 + 6 * 8] = b'x';
    assert!(refusal(&damaged).contains("has no numbers"));
    let mut summed = [entry(b"070702", "file", 0o100_644, b"some bytes"), trailer()].concat();
    check(&summed).unwrap();
    let at = summed.windows(4).position(|w| w == b"some").unwrap();
    summed[at] ^= 1;
    assert!(refusal(&summed).contains("does not have the sum"));
}

#[test]
fn initrds_for_other_machines_are_named() {
    let foreign = |machine| [file("bin/sh", &program(machine)), trailer()].concat();
    for bytes in
        PACKERS.iter().filter(|(name, _)| *name != "lzo").map(|(_, pack)| pack(&foreign(183)))
    {
        let said = refusal(&bytes);
        assert!(said.contains("an initrd for 64-bit ARM, as its bin/sh says"), "{said}");
    }
    assert!(refusal(&foreign(243)).contains("for RISC-V"));
    check(&foreign(3)).unwrap();
}

#[test]
fn what_is_no_initrd_is_said_to_be_what_it_looks_like() {
    let mut tar = vec![b'x'; 1000];
    tar[0x101..0x106].copy_from_slice(b"ustar");
    let mut kernel = vec![1; 1000];
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    let cases: [(&[u8], &str); 10] = [
        (b"", "is empty"),
        (&[0; 5000], "nothing in it but zeros"),
        (&program(62), "it is an ELF file"),
        (b"070707000000", "cpio archive of an old format"),
        (b"\x04\x22\x4d\x18\x64\x40", "use lz4 -l"),
        (b"#!/bin/sh\n", "it is a script"),
        (b"hello, world\n", "it is a text"),
        (&tar, "it is a tar archive"),
        (&kernel, "it is a Linux kernel"),
        (&noise(1000), "its format is unknown"),
    ];
    for (bytes, words) in cases {
        assert!(refusal(bytes).contains(words), "{}", refusal(bytes));
    }
    let said = refusal(&[archive(), b"\xffwhat".to_vec()].concat());
    assert!(said.contains("neither another nor a known compression"), "{said}");
    assert!(refusal(&gzip(b"no archive")).contains("what was packed is no archive"));
}

#[test]
fn file_systems_must_be_all_there() {
    let mut squashfs = b"hsqs".to_vec();
    squashfs.resize(96, 0);
    squashfs[40..48].copy_from_slice(&5000u64.to_le_bytes());
    squashfs.resize(5000, 1);
    check(&squashfs).unwrap();
    check(&gzip(&squashfs)).unwrap();
    assert!(refusal(&squashfs[..4999]).contains("its file system runs past its 4999 bytes"));
    let mut ext2 = vec![0; 0x2000];
    ext2[0x438..0x43a].copy_from_slice(&[0x53, 0xef]);
    ext2[0x404] = 8;
    check(&ext2).unwrap();
    assert!(refusal(&ext2[..0x1fff]).contains("its file system"));
}

#[test]
fn what_unpacks_to_more_than_memory_is_refused() {
    let large = [file("zeros", &vec![0; MEMORY as usize]), trailer()].concat();
    for pack in [gzip, bzip2] {
        assert!(refusal(&pack(&large)).contains("more than the VM has memory"));
    }
}

/// Damage anywhere: an answer, never a panic, never a hang.
#[test]
fn damaged_initrds_never_panic() {
    let small = [file("bin/sh", &program(62)[..200]), file("x", b"yz"), trailer()].concat();
    let packed = PACKERS.iter().map(|(_, pack)| pack(&small));
    for file in packed.chain([small.clone(), with_trailer(xz(&small), &small)]) {
        for at in 0..file.len() {
            for value in [0x00, 0x7f, 0xff] {
                let mut damaged = file.clone();
                damaged[at] = value;
                let _ = check(&damaged);
            }
        }
    }
}
