//! Sections in a file (docs/formats/saved-state.md).
//!
//! Whoever gives us the file may be hostile: it is refused, or what it says is as good as any
//! other state. The checksum finds accidents, not attackers.

use minicbor::{Decode, Encode};

use crate::Section;

/// How a file begins. Like PNG's: a copy that changes line ends or the eighth bit shows.
const MAGIC: [u8; 8] = *b"\x89STATE\r\n";
/// The version of everything here; sections have their own.
const VERSION: u32 = 1;
/// Magic, version, length of the body.
const HEADER_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 4;
/// Keeps a wrong file from taking the host's memory: guest memory is elsewhere.
const BODY_BYTES_MAX: usize = 16 << 20;
/// Keeps the search for sections short.
const SECTIONS_MAX: u64 = 1024;

/// What the part at an instance path saved.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct NamedSection {
    /// Which part: `com1`, `pci/00.1`.
    #[n(0)]
    pub path: String,
    /// What it saved.
    #[n(1)]
    pub section: Section,
}

/// Why a file was refused.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Something else.
    #[error("it is no saved state: it does not begin as one")]
    Magic,
    /// From a newer program.
    #[error(
        "its format version {0} is none that this program knows; use the program that saved it"
    )]
    Version(u32),
    /// The length in the header is not the file's, or is beyond the limit.
    #[error("its header speaks of {0} bytes, which it has not; it was cut or is too long")]
    Length(u64),
    /// Bytes have changed.
    #[error("its checksum is wrong: it was changed after it was saved")]
    Checksum,
    /// The checksum is right, but the body is not CBOR sections.
    #[error("its sections are malformed")]
    Malformed(#[source] minicbor::decode::Error),
    /// More than any machine has.
    #[error("it has more than {SECTIONS_MAX} sections")]
    Sections,
}

/// The bytes of a file with these sections.
///
/// # Panics
/// When they are beyond the limits of a file: no machine has so many.
pub fn pack(sections: &[NamedSection]) -> Vec<u8> {
    let mut body = Vec::new();
    let encoded = minicbor::encode(sections, &mut body);
    assert!(encoded.is_ok() && body.len() <= BODY_BYTES_MAX, "too much state for a file");
    assert!(sections.len() as u64 <= SECTIONS_MAX, "too many sections for a file");
    let mut file = MAGIC.to_vec();
    file.extend(VERSION.to_le_bytes());
    file.extend((body.len() as u32).to_le_bytes());
    file.extend(body);
    file.extend(crc32c::crc32c(&file).to_le_bytes());
    file
}

/// The sections in a file.
///
/// # Errors
/// When it is not exactly a file that [`pack`] of a known version has made.
pub fn unpack(file: &[u8]) -> Result<Vec<NamedSection>, FileError> {
    let (header, rest) = file.split_at_checked(HEADER_BYTES).ok_or(FileError::Magic)?;
    if header[..8] != MAGIC {
        return Err(FileError::Magic);
    }
    let version = word(header, 8);
    if version != VERSION {
        return Err(FileError::Version(version));
    }
    let length = word(header, 12) as usize;
    if length > BODY_BYTES_MAX || rest.len() != length + CHECKSUM_BYTES {
        return Err(FileError::Length(length as u64));
    }
    let summed = HEADER_BYTES + length;
    if crc32c::crc32c(&file[..summed]) != word(file, summed) {
        return Err(FileError::Checksum);
    }
    decode(&rest[..length])
}

fn decode(body: &[u8]) -> Result<Vec<NamedSection>, FileError> {
    let malformed = FileError::Malformed;
    let mut decoder = minicbor::Decoder::new(body);
    let count = decoder.array().map_err(malformed)?;
    let count = count.filter(|count| *count <= SECTIONS_MAX).ok_or(FileError::Sections)?;
    let sections = (0..count).map(|_| decoder.decode()).collect::<Result<_, _>>();
    let sections = sections.map_err(malformed)?;
    if decoder.position() != body.len() {
        return Err(FileError::Malformed(minicbor::decode::Error::message("bytes left over")));
    }
    Ok(sections)
}

/// Little-endian; the caller has looked at the length.
fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sections() -> Vec<NamedSection> {
        let section = |n: u8| Section { kind: "thing".into(), version: 1, bytes: vec![n; 9] };
        let named = |n: u8| NamedSection { path: format!("thing/{n}"), section: section(n) };
        (0..3).map(named).collect()
    }

    /// With length and checksum as they should be.
    fn file_of(body: &[u8]) -> Vec<u8> {
        let mut file = pack(&[])[..12].to_vec();
        file.extend((body.len() as u32).to_le_bytes());
        file.extend(body);
        file.extend(crc32c::crc32c(&file).to_le_bytes());
        file
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        assert_eq!(unpack(&pack(&sections())).unwrap(), sections());
        assert_eq!(unpack(&pack(&[])).unwrap(), []);
    }

    #[test]
    fn every_cut_and_every_flipped_bit_is_found() {
        let file = pack(&sections());
        for end in 0..file.len() {
            assert!(unpack(&file[..end]).is_err(), "cut at {end}");
        }
        for bit in 0..file.len() * 8 {
            let mut flipped = file.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(unpack(&flipped).is_err(), "bit {bit}");
        }
        assert!(matches!(unpack(&[file, vec![0]].concat()), Err(FileError::Length(_))));
    }

    #[test]
    fn a_right_checksum_makes_no_good_file_of_a_bad_body() {
        let good = pack(&sections());
        let body = &good[HEADER_BYTES..good.len() - CHECKSUM_BYTES];
        for end in 0..body.len() {
            assert!(
                matches!(unpack(&file_of(&body[..end])), Err(FileError::Malformed(_))),
                "{end}"
            );
        }
        for bit in 0..body.len() * 8 {
            let mut flipped = body.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // Whatever it says, nothing panics; most of it is other state that is as good.
            let _ = unpack(&file_of(&flipped));
        }
        let many = [0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert!(matches!(unpack(&file_of(&many)), Err(FileError::Sections)));
        assert!(matches!(unpack(&file_of(&[0x9f, 0xff])), Err(FileError::Sections)));
    }

    #[test]
    fn other_versions_and_other_files_are_refused() {
        let mut file = pack(&sections());
        file[8] = 2;
        assert!(matches!(unpack(&file), Err(FileError::Version(2))));
        assert!(matches!(unpack(b"#!/bin/sh\necho not a state\n"), Err(FileError::Magic)));
    }
}
