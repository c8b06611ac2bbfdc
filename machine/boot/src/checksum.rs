//! The CRC-32 at the end of a bzImage.
//!
//! Linux `Documentation/arch/x86/boot.rst`, "The Image Checksum": over everything up to the limit
//! that `syssize` sets, the checksum itself included, the remainder is zero. It is not inverted at
//! its end, as others are, whose remainder then is all ones.
//!
//! Signing an image for Secure Boot writes into its PE header and appends the signature. What the
//! checksum was made over had zeros there. Since Linux 6.15 kernels have none.

use std::io::Read;

use flate2::Crc;

use crate::error::BootError;
use crate::guest::{Image, Source, get, get16, get32};

const SETUP_SECTORS: u64 = 0x1f1;
const SYSTEM_SIZE: u64 = 0x1f4;
const KERNEL_VERSION: u64 = 0x20e;
/// The version's text is told from the second sector.
const KERNEL_VERSION_BASE: u64 = 0x200;
const SECTOR: u64 = 512;
/// Boot sector and at most 255 others.
const SETUP_SIZE_MAX: usize = 256 * SECTOR as usize;
const PARAGRAPH: u64 = 16;
/// What a whole image comes to.
const REMAINDER: u32 = !0;
/// The first kernel without a checksum.
const NONE_SINCE: (u32, u32) = (6, 15);

/// Where a PE file says where its header is; offsets in that. A 32-bit one has its certificates 16
/// bytes earlier.
const PE_OFFSET: u64 = 0x3c;
const PE_MAGIC: &[u8; 4] = b"PE\0\0";
const PE_CHECKSUM: u64 = 24 + 64;
const PE_CERTIFICATES: u64 = 24 + 112 + 4 * 8;
const PE_CERTIFICATES_32: u64 = PE_CERTIFICATES - 16;
const PE_KIND: u64 = 24;
const PE_KIND_32: u16 = 0x10b;

/// Refuses a kernel whose checksum says that it was damaged.
///
/// # Errors
/// When it was, or cannot be read.
pub(crate) fn check<S: Source>(image: &mut Image<S>) -> Result<(), BootError> {
    // Up to the end of the set-up code, which has the version's text.
    let head = image.head(0, SETUP_SIZE_MAX)?;
    let (Some(limit), true) = (limit(&head), version(&head).is_some_and(|v| v < NONE_SINCE)) else {
        return Ok(());
    };
    let size_bytes = image.size_bytes()?;
    if limit > size_bytes {
        let name = image.name.clone();
        return Err(BootError::Truncated { name, part: "its kernel", size_bytes });
    }
    let head = &head[..head.len().min(limit as usize)];
    let rest = limit - head.len() as u64;
    let mut tail = Crc::new();
    image.seek(head.len() as u64)?;
    let mut packed = image.source.by_ref().take(rest);
    let mut chunk = vec![0; 256 << 10];
    loop {
        match packed.read(&mut chunk) {
            Ok(0) => break,
            Ok(size) => tail.update(&chunk[..size]),
            Err(source) => return Err(image.unreadable(source)),
        }
    }
    let whole = |head: &[u8]| {
        let mut crc = Crc::new();
        crc.update(head);
        crc.combine(&tail);
        crc.sum()
    };
    if whole(head) == REMAINDER || whole(&unsigned(head)) == REMAINDER {
        Ok(())
    } else {
        Err(image.malformed("its checksum does not match what is in it"))
    }
}

fn limit(head: &[u8]) -> Option<u64> {
    let [sectors] = get(head, SETUP_SECTORS)?;
    let paragraphs = u64::from(get32(head, SYSTEM_SIZE)?);
    Some((u64::from(sectors) + 1) * SECTOR + paragraphs * PARAGRAPH)
}

/// The first two numbers of the kernel's version.
fn version(head: &[u8]) -> Option<(u32, u32)> {
    let at = match get16(head, KERNEL_VERSION)? {
        0 => return None,
        offset => usize::from(offset) + KERNEL_VERSION_BASE as usize,
    };
    let text = head.get(at..)?.split(|byte| *byte == 0).next()?;
    let text = std::str::from_utf8(text).ok()?;
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// The head as it was before the image was signed.
fn unsigned(head: &[u8]) -> Vec<u8> {
    let mut head = head.to_vec();
    let Some(header) = get32(&head, PE_OFFSET).map(u64::from) else { return head };
    if get(&head, header) == Some(*PE_MAGIC) {
        let is_32 = get16(&head, header + PE_KIND) == Some(PE_KIND_32);
        let certificates = if is_32 { PE_CERTIFICATES_32 } else { PE_CERTIFICATES };
        for (offset, size) in [(PE_CHECKSUM, 4), (certificates, 8)] {
            let at = (header + offset) as usize;
            if let Some(field) = head.get_mut(at..at + size) {
                field.fill(0);
            }
        }
    }
    head
}
