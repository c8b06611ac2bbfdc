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
/// Magic, version, lengths of subject and body.
const HEADER_BYTES: usize = 20;
const CHECKSUM_BYTES: usize = 4;
/// A subject is looked at before there is anything to restore into.
const SUBJECT_BYTES_MAX: usize = 64 << 10;
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
    /// The lengths in the header are not the file's, or are beyond the limits.
    #[error("its header speaks of {0} bytes, which it has not; it was cut or is too long")]
    Length(u64),
    /// Bytes have changed.
    #[error("its checksum is wrong: it was changed after it was saved")]
    Checksum,
    /// The checksum is right, but subject or body are not CBOR sections.
    #[error("its sections are malformed")]
    Malformed(#[source] minicbor::decode::Error),
    /// More than any machine has.
    #[error("it has more than {SECTIONS_MAX} sections")]
    Sections,
}

/// The bytes of a file with these sections. Whoever reads it gets the subject first: what the
/// sections are of.
///
/// # Panics
/// When they are beyond the limits of a file: no machine has so many.
pub fn pack(subject: &Section, sections: &[NamedSection]) -> Vec<u8> {
    let (mut head, mut body) = (Vec::new(), Vec::new());
    let encoded = minicbor::encode(subject, &mut head).and(minicbor::encode(sections, &mut body));
    assert!(encoded.is_ok(), "writing to memory does not fail");
    assert!(head.len() <= SUBJECT_BYTES_MAX, "too large a subject for a file");
    assert!(body.len() <= BODY_BYTES_MAX, "too much state for a file");
    assert!(sections.len() as u64 <= SECTIONS_MAX, "too many sections for a file");
    let mut file = MAGIC.to_vec();
    file.extend(VERSION.to_le_bytes());
    file.extend((head.len() as u32).to_le_bytes());
    file.extend((body.len() as u32).to_le_bytes());
    file.extend(head);
    file.extend(body);
    file.extend(crc32c::crc32c(&file).to_le_bytes());
    file
}

/// The subject and the sections in a file.
///
/// # Errors
/// When it is not exactly a file that [`pack`] of a known version has made.
pub fn unpack(file: &[u8]) -> Result<(Section, Vec<NamedSection>), FileError> {
    let (header, rest) = file.split_at_checked(HEADER_BYTES).ok_or(FileError::Magic)?;
    if header[..8] != MAGIC {
        return Err(FileError::Magic);
    }
    let version = word(header, 8);
    if version != VERSION {
        return Err(FileError::Version(version));
    }
    let (head_bytes, body_bytes) = (word(header, 12) as usize, word(header, 16) as usize);
    let length = head_bytes + body_bytes;
    let within = head_bytes <= SUBJECT_BYTES_MAX && body_bytes <= BODY_BYTES_MAX;
    if !within || rest.len() != length + CHECKSUM_BYTES {
        return Err(FileError::Length(length as u64));
    }
    let summed = HEADER_BYTES + length;
    if crc32c::crc32c(&file[..summed]) != word(file, summed) {
        return Err(FileError::Checksum);
    }
    let (head, body) = rest[..length].split_at(head_bytes);
    let mut decoder = minicbor::Decoder::new(head);
    let subject = decoder.decode().map_err(FileError::Malformed)?;
    at_end(&decoder)?;
    Ok((subject, decode(body)?))
}

fn decode(body: &[u8]) -> Result<Vec<NamedSection>, FileError> {
    let malformed = FileError::Malformed;
    let mut decoder = minicbor::Decoder::new(body);
    let count = decoder.array().map_err(malformed)?;
    let count = count.filter(|count| *count <= SECTIONS_MAX).ok_or(FileError::Sections)?;
    let sections = (0..count).map(|_| decoder.decode()).collect::<Result<_, _>>();
    let sections = sections.map_err(malformed)?;
    at_end(&decoder)?;
    Ok(sections)
}

fn at_end(decoder: &minicbor::Decoder<'_>) -> Result<(), FileError> {
    if decoder.position() == decoder.input().len() {
        return Ok(());
    }
    Err(FileError::Malformed(minicbor::decode::Error::message("bytes left over")))
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

    fn subject() -> Section {
        Section { kind: "maker".into(), version: 3, bytes: vec![7; 5] }
    }

    fn pack(sections: &[NamedSection]) -> Vec<u8> {
        super::pack(&subject(), sections)
    }

    /// With lengths and checksum as they should be.
    fn file_of(head: &[u8], body: &[u8]) -> Vec<u8> {
        let mut file = pack(&[])[..12].to_vec();
        file.extend((head.len() as u32).to_le_bytes());
        file.extend((body.len() as u32).to_le_bytes());
        file.extend(head);
        file.extend(body);
        file.extend(crc32c::crc32c(&file).to_le_bytes());
        file
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        assert_eq!(unpack(&pack(&sections())).unwrap(), (subject(), sections()));
        assert_eq!(unpack(&pack(&[])).unwrap(), (subject(), vec![]));
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
        let (head, body) =
            good[HEADER_BYTES..good.len() - CHECKSUM_BYTES].split_at(word(&good, 12) as usize);
        for end in 0..body.len() {
            let cut = unpack(&file_of(head, &body[..end]));
            assert!(matches!(cut, Err(FileError::Malformed(_))), "{end}");
        }
        for end in 0..head.len() {
            let cut = unpack(&file_of(&head[..end], body));
            assert!(matches!(cut, Err(FileError::Malformed(_))), "{end}");
        }
        let longer = [head, &[0]].concat();
        assert!(matches!(unpack(&file_of(&longer, body)), Err(FileError::Malformed(_))));
        for bit in 0..body.len() * 8 {
            let mut flipped = body.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // Whatever it says, nothing panics; most of it is other state that is as good.
            let _ = unpack(&file_of(head, &flipped));
        }
        let many = [0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert!(matches!(unpack(&file_of(head, &many)), Err(FileError::Sections)));
        assert!(matches!(unpack(&file_of(head, &[0x9f, 0xff])), Err(FileError::Sections)));
    }

    #[test]
    fn lengths_beyond_the_limits_are_refused() {
        for at in [12, 16] {
            let mut file = pack(&sections());
            file[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
            assert!(matches!(unpack(&file), Err(FileError::Length(_))));
        }
    }

    #[test]
    fn other_versions_and_other_files_are_refused() {
        let mut file = pack(&sections());
        file[8] = 2;
        assert!(matches!(unpack(&file), Err(FileError::Version(2))));
        assert!(matches!(unpack(b"#!/bin/sh\necho not a state\n"), Err(FileError::Magic)));
    }
}
