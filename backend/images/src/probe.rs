//! What a file is, told by its bytes, and whether it stands for itself.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::str::FromStr;

use crate::ImageError;

/// A format a disk can come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The disk's bytes.
    Raw,
    /// QEMU's.
    Qcow2,
    /// VMware's, in one file.
    Vmdk,
    /// Hyper-V's.
    Vhdx,
    /// An archive with a VM: a description and a disk.
    Ova,
}

impl Format {
    const ALL: [(&'static str, Self); 5] = [
        ("raw", Self::Raw),
        ("qcow2", Self::Qcow2),
        ("vmdk", Self::Vmdk),
        ("vhdx", Self::Vhdx),
        ("ova", Self::Ova),
    ];
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, format)| format == self);
        f.write_str(name.map_or("", |(name, _)| name))
    }
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.iter().find(|(name, _)| *name == text);
        known.map(|(_, format)| *format).ok_or("give raw, qcow2, vmdk, vhdx or ova")
    }
}

/// As much of a file as its format is told by.
const HEAD_LEN: usize = 512;
/// Descriptors are text of some hundred bytes; VMware reserves 10 KiB.
const VMDK_DESCRIPTOR_MAX: u64 = 1 << 20;

const QCOW2: &[u8] = b"QFI\xfb";
const VMDK: &[u8] = b"KDMV";
const VMDK_TEXT: &[u8] = b"# Disk DescriptorFile";
const VHDX: &[u8] = b"vhdxfile";
/// Files that are a disk only after something was done to them.
const PACKED: [(&[u8], &str); 4] = [
    (b"\x1f\x8b\x08", "packed with gzip: unpack it with 'gzip -d', or give '--format raw'"),
    (b"\xfd7zXZ\0", "packed with xz: unpack it with 'xz -d', or give '--format raw'"),
    (b"\x28\xb5\x2f\xfd", "packed with zstd: unpack it with 'zstd -d', or give '--format raw'"),
    (b"BZh", "packed with bzip2: unpack it with 'bzip2 -d', or give '--format raw'"),
];

/// The format of `file`, or an error when it is not `wanted`. Whatever is returned but
/// [`Format::Ova`] needs no other file to be read.
pub(crate) fn probe(file: &File, what: &str, wanted: Option<Format>) -> Result<Format, ImageError> {
    if wanted == Some(Format::Raw) {
        return Ok(Format::Raw);
    }
    let failed = |source| ImageError::Host { doing: "read", path: what.into(), source };
    let head = read(file, 0, HEAD_LEN).map_err(failed)?;
    let unfit = |how| ImageError::Unfit { what: what.to_owned(), how };
    let format = if head.starts_with(QCOW2) {
        qcow2(&head, what)?;
        Format::Qcow2
    } else if head.starts_with(VMDK) {
        vmdk(file, &head, what)?;
        Format::Vmdk
    } else if head.starts_with(VMDK_TEXT) {
        return Err(depends(what, "names the files its disk is in", VMDK_FLAT));
    } else if head.starts_with(VHDX) {
        Format::Vhdx
    } else if is_ova(&head) {
        Format::Ova
    } else if let Some((_, how)) = PACKED.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Err(unfit(how));
    } else {
        Format::Raw
    };
    match wanted {
        Some(wanted) if wanted != format => {
            Err(ImageError::Format { what: what.to_owned(), format: wanted })
        }
        _ => Ok(format),
    }
}

const QCOW2_FLAT: &str = "qemu-img convert -O qcow2 IMAGE FLAT";
const VMDK_FLAT: &str = "qemu-img convert -O vmdk IMAGE FLAT";

fn depends(what: &str, why: &'static str, how: &'static str) -> ImageError {
    ImageError::Depends { what: what.to_owned(), why, how }
}

/// A qcow2 header may name a backing file and a data file, any of the host's
/// (`docs/interop/qcow2.txt`, header).
fn qcow2(head: &[u8], what: &str) -> Result<(), ImageError> {
    let word =
        |at: usize| head.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
    let long = |at: usize| Some(u64::from(word(at)?) << 32 | u64::from(word(at + 4)?));
    let header = (|| Some((word(4)?, long(8)?, word(32)?, long(72)?)))();
    let not_one = ImageError::Format { what: what.to_owned(), format: Format::Qcow2 };
    let Some((version, backing, encryption, incompatible)) = header else { return Err(not_one) };
    match version {
        _ if backing != 0 => Err(depends(what, "is a layer over a backing file", QCOW2_FLAT)),
        _ if encryption != 0 => Err(ImageError::Unfit {
            what: what.to_owned(),
            how: "encrypted: convert it with 'qemu-img convert' and its key first",
        }),
        2 => Ok(()),
        3 if incompatible & 1 << 2 != 0 => {
            Err(depends(what, "has its data in another file", QCOW2_FLAT))
        }
        3 => Ok(()),
        _ => Err(not_one),
    }
}

/// A VMDK's embedded descriptor may name a parent, and where the header has no capacity, the files
/// its disk is in (Virtual Disk Format 5.0, "Hosted Sparse Extents").
fn vmdk(file: &File, head: &[u8], what: &str) -> Result<(), ImageError> {
    let long = |at: usize| {
        let bytes = head.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    };
    let (capacity, descriptor, sectors) = (long(12), long(28), long(36));
    if capacity == 0 {
        return Err(depends(what, "names the files its disk is in", VMDK_FLAT));
    }
    let len = sectors.saturating_mul(512);
    if len > VMDK_DESCRIPTOR_MAX {
        return Err(ImageError::Format { what: what.to_owned(), format: Format::Vmdk });
    }
    let failed = |source| ImageError::Host { doing: "read", path: what.into(), source };
    let text = read(file, descriptor.saturating_mul(512), len as usize).map_err(failed)?;
    let names_parent =
        text.windows(18).any(|part| part.eq_ignore_ascii_case(b"parentFileNameHint"));
    if names_parent {
        return Err(depends(what, "is a layer over another file", VMDK_FLAT));
    }
    Ok(())
}

/// A tar archive that begins with the description of a VM (DSP0243, 11).
fn is_ova(head: &[u8]) -> bool {
    let name = head.get(..100).unwrap_or_default().split(|byte| *byte == 0).next();
    head.get(257..262) == Some(b"ustar")
        && name.is_some_and(|name| name.to_ascii_lowercase().ends_with(b".ovf"))
}

/// Bytes from there on; fewer where the file ends.
fn read(file: &File, at: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let mut filled = 0;
    while filled < len {
        match file.read_at(&mut bytes[filled..], at.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}
