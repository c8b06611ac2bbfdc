//! What a file that is no archive looks like.

use crate::guest::{get16, get32, get64};

/// As much of a file as is looked at.
pub(super) const HEAD_SIZE: usize = 0x8006;
/// As much as tells a file system that Linux takes as a RAM disk.
pub(super) const FILE_SYSTEM_HEAD: usize = 0x440;

const EXT_MAGIC: u16 = 0xef53;
const CRAMFS_MAGIC: u32 = 0x28cd_3d45;
const MINIX_MAGICS: [u16; 4] = [0x137f, 0x138f, 0x2468, 0x2478];
const EXT_BLOCK_LOG_MAX: u32 = 6;

/// The size of the file system that begins so, of the kinds in Linux's
/// `init/do_mounts_rd.c`.
pub(super) fn file_system_size(head: &[u8]) -> Option<u64> {
    if head.starts_with(b"hsqs") {
        return get64(head, 40);
    }
    if head.starts_with(b"-rom1fs-") {
        return get32(head, 8).map(|size| u64::from(size.swap_bytes()));
    }
    if get32(head, 0) == Some(CRAMFS_MAGIC) {
        return get32(head, 4).map(u64::from);
    }
    if get16(head, 0x438) == Some(EXT_MAGIC) {
        let block_log = get32(head, 0x418).filter(|log| *log <= EXT_BLOCK_LOG_MAX)?;
        return get32(head, 0x404).map(|blocks| u64::from(blocks) << (10 + block_log));
    }
    // Its zones are told in another unit in each version.
    let minix = get16(head, 0x410).is_some_and(|magic| MINIX_MAGICS.contains(&magic));
    let zeros = head.first_chunk::<512>().is_some_and(|sector| sector.iter().all(|b| *b == 0));
    (minix && zeros).then_some(0x800)
}

/// What it looks like, as a sentence.
pub(super) fn name(head: &[u8]) -> &'static str {
    const BEGINNINGS: [(&[u8], &str); 14] = [
        (b"\x7fELF", "it is an ELF file, such as a program or a kernel"),
        (b"070707", "it is a cpio archive of an old format, which Linux does not unpack"),
        (b"\xc7\x71", "it is a cpio archive of an old format, which Linux does not unpack"),
        (
            b"\x04\x22\x4d\x18",
            "it is packed with LZ4 in frames, which Linux does not unpack: use lz4 -l",
        ),
        (b"\x1f\x9d", "it is packed with compress, which Linux does not unpack"),
        (b"PK\x03\x04", "it is a ZIP archive"),
        (b"7z\xbc\xaf\x27\x1c", "it is a 7-Zip archive"),
        (b"QFI\xfb", "it is a qcow2 disk image"),
        (b"KDMV", "it is a VMDK disk image"),
        (b"vhdxfile", "it is a VHDX disk image"),
        (b"!<arch>\n", "it is a Debian package or another ar archive"),
        (b"#!", "it is a script"),
        (b"MZ", "it is a program for EFI or Windows"),
        (b"\xd0\x0d\xfe\xed", "it is a device tree"),
    ];
    let beginning = BEGINNINGS.iter().find(|(magic, _)| head.starts_with(magic));
    let within =
        |offset: usize, magic: &[u8]| head.get(offset..offset + magic.len()) == Some(magic);
    match beginning {
        _ if within(0x202, b"HdrS") => "it is a Linux kernel",
        Some((_, name)) => name,
        None if within(0x101, b"ustar") => "it is a tar archive",
        None if within(0x8001, b"CD001") => "it is a CD-ROM image",
        None if within(0x1fe, b"\x55\xaa") => "it is a disk image or a boot sector",
        None if head.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace()) => {
            "it is a text"
        }
        None => "its format is unknown",
    }
}
