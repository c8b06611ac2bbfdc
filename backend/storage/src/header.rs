//! What a file says it is, and whether a qcow2 header may be believed.
//!
//! Every offset the library will follow before the first request is checked here, because it trusts
//! them: a header is the work of whoever made the file. Layout: QEMU's `docs/interop/qcow2.rst`.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

/// Formats of images that start with a magic number. Only raw and qcow2 can be used.
const MAGICS: [(&[u8], &str); 7] = [
    (b"QFI\xfb", "qcow2"),
    (b"KDMV", "vmdk"),
    (b"COWD", "vmdk"),
    (b"vhdxfile", "vhdx"),
    (b"conectix", "vpc"),
    (b"# Disk DescriptorFile", "vmdk"),
    (b"QED\0", "qed"),
];
/// VirtualBox's magic is not at the beginning.
const VDI_MAGIC: (usize, [u8; 4]) = (0x40, [0x7f, 0x10, 0xda, 0xbe]);

/// Which image format the first bytes of a file name, if any.
pub(crate) fn magic_of(file: &File) -> Option<&'static str> {
    let mut bytes = [0; 0x44];
    let size = read_up_to(file, &mut bytes, 0).ok()?;
    let bytes = &bytes[..size];
    let named = MAGICS.iter().find(|(magic, _)| bytes.starts_with(magic)).map(|(_, name)| *name);
    let (at, magic) = VDI_MAGIC;
    named.or_else(|| (bytes.get(at..at + 4) == Some(&magic[..])).then_some("vdi"))
}

fn read_up_to(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], at + done as u64) {
            Ok(0) => break,
            Ok(size) => done += size,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// Bytes of the header up to and with version 3's `header_length`.
const HEADER_SIZE: usize = 104;
const HEADER_SIZE_V2: u64 = 72;
/// As QEMU: 32 MiB of L1 table and 8 MiB of refcount table are enough for any disk.
const L1_BYTES_MAX: u64 = 32 << 20;
const REFCOUNT_TABLE_BYTES_MAX: u64 = 8 << 20;
const BACKING_NAME_MAX: u32 = 1023;
const SNAPSHOTS_MAX: u32 = 65536;
/// Bits 9 to 55 of L1 and refcount table entries are an offset.
pub(crate) const ENTRY_OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

/// Incompatible features.
const DIRTY: u64 = 1 << 0;
const CORRUPT: u64 = 1 << 1;
const DATA_FILE: u64 = 1 << 2;
const COMPRESSION: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;

/// Version 2 counts in 16 bits.
const REFCOUNT_ORDER_V2: u32 = 4;

/// Header extensions.
const EXTENSION_END: u32 = 0;
const EXTENSION_BACKING_FORMAT: u32 = 0xe279_2aca;
const EXTENSION_FEATURE_NAMES: u32 = 0x6803_f857;

/// Why a qcow2 file is not used.
#[derive(Debug, thiserror::Error)]
pub enum Qcow2Error {
    /// The magic number is another.
    #[error("it has no qcow2 header: if it is a raw image, say ',format=raw'")]
    Magic,
    /// What is here is not in the file.
    #[error("its {0} is damaged or cut off: restore it from a copy")]
    Damaged(&'static str),
    /// Something that is not implemented.
    #[error("it uses {0}: convert it with 'qemu-img convert -O qcow2'")]
    Unsupported(&'static str),
    /// Its writer has not finished.
    #[error("it was not closed and may be damaged: repair it with 'qemu-img check -r all'")]
    Dirty,
    /// It names a backing file, and the operator has not.
    #[error(
        "it is a layer over '{0}', which is opened only when you name it: add ',backing={0}' if you \
         trust it"
    )]
    BackingNotNamed(String),
    /// The operator names a backing file, and it has none.
    #[error("it stands alone: leave ',backing=' out")]
    NoBacking,
    /// The host fails.
    #[error("it cannot be read")]
    Host(#[source] io::Error),
}

/// What the rest needs of a header that was found good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    /// The disk's size.
    pub(crate) size_bytes: u64,
    /// The name of its backing file.
    pub(crate) backing: Option<String>,
    /// Where its tables are.
    pub(crate) tables: Tables,
}

/// Where an image's tables are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tables {
    /// Bits of an offset in a cluster.
    pub(crate) cluster_bits: u32,
    /// A count has two to the power of this bits.
    pub(crate) refcount_order: u32,
    /// The L1 table: offset and bytes.
    pub(crate) l1: (u64, u64),
    /// The refcount table: offset and bytes.
    pub(crate) refcounts: (u64, u64),
    /// More than the tables and the disk may own clusters: snapshots, bitmaps.
    pub(crate) has_other_owners: bool,
}

impl Tables {
    pub(crate) fn cluster_bytes(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Counts in a refcount block.
    pub(crate) fn counts_per_block(&self) -> u64 {
        (self.cluster_bytes() * 8) >> self.refcount_order
    }
}

struct Fields<'a>(&'a [u8; HEADER_SIZE]);

impl Fields<'_> {
    fn u32(&self, at: usize) -> u32 {
        u32::from_be_bytes([self.0[at], self.0[at + 1], self.0[at + 2], self.0[at + 3]])
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from(self.u32(at)) << 32 | u64::from(self.u32(at + 4))
    }
}

fn ensure(good: bool, otherwise: Qcow2Error) -> Result<(), Qcow2Error> {
    if good { Ok(()) } else { Err(otherwise) }
}

/// Reads and checks the header and the tables it names.
///
/// # Errors
/// When the file is no qcow2 image, or not one that can be used, for writing if `write`.
pub(crate) fn check(file: &File, write: bool) -> Result<Header, Qcow2Error> {
    use Qcow2Error::{Damaged, Unsupported};
    // Block devices have a size only this way.
    let file_bytes = (&mut &*file).seek(SeekFrom::End(0)).map_err(Qcow2Error::Host)?;
    let mut bytes = [0; HEADER_SIZE];
    let read = read_up_to(file, &mut bytes, 0).map_err(Qcow2Error::Host)?;
    ensure(read >= 8 && bytes.starts_with(b"QFI\xfb"), Qcow2Error::Magic)?;
    let fields = Fields(&bytes);
    let version = fields.u32(4);
    ensure(matches!(version, 2 | 3), Unsupported("another version of the format"))?;
    let whole = if version == 2 { HEADER_SIZE_V2 as usize } else { HEADER_SIZE };
    ensure(read >= whole, Damaged("header"))?;
    let (features, header_bytes) = match version {
        2 => (0, HEADER_SIZE_V2),
        _ => (fields.u64(72), u64::from(fields.u32(100))),
    };
    check_features(features, write)?;
    ensure(fields.u32(32) == 0, Unsupported("encryption"))?;
    let cluster_bits = fields.u32(20);
    ensure((9..=21).contains(&cluster_bits), Damaged("cluster size"))?;
    let cluster_bytes = 1u64 << cluster_bits;
    let length_makes_sense = header_bytes >= whole as u64 && header_bytes <= cluster_bytes;
    ensure(length_makes_sense, Damaged("header"))?;
    ensure(version == 2 || fields.u32(96) <= 6, Damaged("refcount width"))?;
    let size_bytes = fields.u64(24);
    ensure(size_bytes <= i64::MAX as u64, Damaged("size"))?;

    let inside = |at: u64, size: u64| {
        at.is_multiple_of(cluster_bytes) && at.checked_add(size).is_some_and(|e| e <= file_bytes)
    };
    let l1_bytes = u64::from(fields.u32(36)) * 8;
    let l2_covers = cluster_bytes / 8 * cluster_bytes;
    let l1_fits = l1_bytes <= L1_BYTES_MAX && l1_bytes / 8 >= size_bytes.div_ceil(l2_covers);
    ensure(l1_fits && inside(fields.u64(40), l1_bytes), Damaged("L1 table"))?;
    let refcount_bytes = u64::from(fields.u32(56)) * cluster_bytes;
    let refcounts_fit = (1..=REFCOUNT_TABLE_BYTES_MAX).contains(&refcount_bytes);
    let refcounts = (fields.u64(48), refcount_bytes);
    ensure(refcounts_fit && inside(refcounts.0, refcounts.1), Damaged("refcount table"))?;
    let snapshots = fields.u32(60);
    let snapshots_fit = snapshots == 0 || fields.u64(64) < file_bytes;
    ensure(snapshots <= SNAPSHOTS_MAX && snapshots_fit, Damaged("snapshot table"))?;
    let area = Area { file, file_bytes, cluster_bytes };
    ensure(area.holds_tables(fields.u64(40), l1_bytes)?, Damaged("L1 table"))?;
    ensure(area.holds_tables(refcounts.0, refcounts.1)?, Damaged("refcount table"))?;
    let backing = backing_name(file, fields.u64(8), fields.u32(16), cluster_bytes)?;
    let has_other_owners =
        snapshots != 0 || version > 2 && has_extensions(file, header_bytes, cluster_bytes)?;
    let refcount_order = if version == 2 { REFCOUNT_ORDER_V2 } else { fields.u32(96) };
    let l1 = (fields.u64(40), l1_bytes);
    let tables = Tables { cluster_bits, refcount_order, l1, refcounts, has_other_owners };
    Ok(Header { size_bytes, backing, tables })
}

fn check_features(features: u64, write: bool) -> Result<(), Qcow2Error> {
    use Qcow2Error::Unsupported;
    ensure(features & (CORRUPT | DIRTY) == 0 || !write, Qcow2Error::Dirty)?;
    ensure(features & DATA_FILE == 0, Unsupported("an external data file"))?;
    ensure(features & COMPRESSION == 0, Unsupported("a compression other than zlib"))?;
    ensure(features & EXTENDED_L2 == 0, Unsupported("extended L2 entries"))?;
    ensure(features & !(CORRUPT | DIRTY) == 0, Unsupported("a feature of a later version"))
}

/// There are header extensions of a kind that can have clusters: any but the names of the backing
/// file's format and of features.
fn has_extensions(file: &File, at: u64, cluster_bytes: u64) -> Result<bool, Qcow2Error> {
    let mut at = at.next_multiple_of(8);
    while at + 8 <= cluster_bytes {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at).map_err(Qcow2Error::Host)?;
        let [a, b, c, d, size @ ..] = bytes;
        match u32::from_be_bytes([a, b, c, d]) {
            EXTENSION_END => return Ok(false),
            EXTENSION_BACKING_FORMAT | EXTENSION_FEATURE_NAMES => {}
            _ => return Ok(true),
        }
        at += 8 + u64::from(u32::from_be_bytes(size)).next_multiple_of(8);
    }
    Ok(false)
}

fn backing_name(
    file: &File,
    at: u64,
    size: u32,
    cluster_bytes: u64,
) -> Result<Option<String>, Qcow2Error> {
    if at == 0 || size == 0 {
        return Ok(None);
    }
    let damaged = Qcow2Error::Damaged("backing file's name");
    let inside = at.checked_add(size.into()).is_some_and(|end| end <= cluster_bytes);
    ensure(size <= BACKING_NAME_MAX && inside, damaged)?;
    let mut name = vec![0; size as usize];
    file.read_exact_at(&mut name, at).map_err(Qcow2Error::Host)?;
    // For messages only: what is not text or cannot be printed is not shown.
    let shown = |c: char| if c.is_control() { '?' } else { c };
    Ok(Some(String::from_utf8_lossy(&name).chars().map(shown).collect()))
}

struct Area<'a> {
    file: &'a File,
    file_bytes: u64,
    cluster_bytes: u64,
}

impl Area<'_> {
    /// Every table this table names is in the file, whole or up to the file's end: a truncated
    /// image makes the library's allocator call itself without end.
    fn holds_tables(&self, at: u64, size_bytes: u64) -> Result<bool, Qcow2Error> {
        let mut chunk = vec![0; (64 << 10).min(size_bytes as usize)];
        let mut done = 0;
        while done < size_bytes {
            let part = chunk.len().min((size_bytes - done) as usize);
            let part = &mut chunk[..part];
            self.file.read_exact_at(part, at + done).map_err(Qcow2Error::Host)?;
            done += part.len() as u64;
            for entry in part.as_chunks::<8>().0 {
                let offset = u64::from_be_bytes(*entry) & ENTRY_OFFSET;
                let inside = offset.is_multiple_of(self.cluster_bytes)
                    && offset.checked_add(self.cluster_bytes).is_some_and(|e| e <= self.file_bytes);
                if offset != 0 && !inside {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}
