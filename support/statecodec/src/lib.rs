//! Saved state: sections of numbered fields.
//!
//! A [`Section`] is what one part of a machine saves: a kind, a version and a CBOR map with
//! numbered fields (`#[derive(minicbor::Encode, minicbor::Decode)]`, `#[cbor(map)]`, `#[n(i)]`).
//! Within a version, unknown fields are ignored and missing ones take their default; a change
//! that needs more is a new version, converted forward by code that is never edited.
//!
//! [`pack`] makes a file of sections and of a subject, which says what they are of; [`unpack`]
//! reads it.
//!
//! *Invariant*: saved types are never the runtime types, so that a refactoring does not change a
//! format.

mod file;
mod form;

pub use file::{FileError, NamedSection, pack, unpack};

use minicbor::{Decode, Encode};

/// A type with a place in saved state.
pub trait Saved: Encode<()> + for<'b> Decode<'b, ()> {
    /// What kind of part saved it. Never reused for another.
    const KIND: &'static str;
    /// The version written. Reading an older one is the device's `restore`'s business.
    const VERSION: u16;
}

/// What one part of a machine saved.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Section {
    /// The part's kind, [`Saved::KIND`].
    #[n(0)]
    pub kind: String,
    /// The version of `bytes`.
    #[n(1)]
    pub version: u16,
    /// The fields, as CBOR.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
}

/// Why a section was refused.
#[derive(Debug, thiserror::Error)]
pub enum SectionError {
    /// Another kind of part saved it.
    #[error("saved by a {found}, not by a {expected}")]
    Kind {
        /// The kind wanted.
        expected: &'static str,
        /// The kind found.
        found: String,
    },
    /// From a newer program.
    #[error("{kind} state of version {found} is newer than {known}, the newest this program knows")]
    Version {
        /// The kind.
        kind: &'static str,
        /// The version found.
        found: u16,
        /// The version known.
        known: u16,
    },
    /// Not the CBOR of such a part.
    #[error("{kind} state is malformed")]
    Malformed {
        /// The kind.
        kind: &'static str,
        /// What the decoder says.
        source: minicbor::decode::Error,
    },
    /// Well-formed, but values no such part can have.
    #[error("{kind} state is impossible: {reason}")]
    Impossible {
        /// The kind.
        kind: &'static str,
        /// Which value, and why.
        reason: String,
    },
}

impl Section {
    /// Encodes.
    ///
    /// # Panics
    /// When an encoder of `T` refuses its value, which is a mistake in that encoder: writing to
    /// memory does not fail.
    pub fn encode<T: Saved>(value: &T) -> Self {
        let mut bytes = Vec::new();
        if let Err(error) = minicbor::encode(value, &mut bytes) {
            panic!("{} state refused to be encoded: {error}", T::KIND);
        }
        Self { kind: T::KIND.to_owned(), version: T::VERSION, bytes }
    }

    /// Decodes a section of exactly `T`'s version.
    ///
    /// # Errors
    /// When kind or version are others, or the bytes are malformed or followed by more.
    pub fn decode<T: Saved>(&self) -> Result<T, SectionError> {
        if self.kind != T::KIND {
            return Err(SectionError::Kind { expected: T::KIND, found: self.kind.clone() });
        }
        if self.version != T::VERSION {
            return Err(SectionError::Version {
                kind: T::KIND,
                found: self.version,
                known: T::VERSION,
            });
        }
        let mut decoder = minicbor::Decoder::new(&self.bytes);
        let value =
            decoder.decode().map_err(|source| SectionError::Malformed { kind: T::KIND, source })?;
        if decoder.position() != self.bytes.len() {
            return Err(SectionError::Impossible {
                kind: T::KIND,
                reason: format!("{} bytes left over", self.bytes.len() - decoder.position()),
            });
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Encode, Decode)]
    #[cbor(map)]
    struct Old {
        #[n(0)]
        a: u8,
    }

    impl Saved for Old {
        const KIND: &'static str = "thing";
        const VERSION: u16 = 1;
    }

    #[derive(Debug, PartialEq, Encode, Decode)]
    #[cbor(map)]
    struct New {
        #[n(0)]
        a: u8,
        #[n(1)]
        b: Option<u32>,
    }

    impl Saved for New {
        const KIND: &'static str = "thing";
        const VERSION: u16 = 1;
    }

    #[test]
    fn a_new_field_is_skipped_by_the_old_and_defaulted_by_the_new() {
        let new = Section::encode(&New { a: 1, b: Some(2) });
        assert_eq!(new.decode::<Old>().unwrap(), Old { a: 1 });
        let old = Section::encode(&Old { a: 3 });
        assert_eq!(old.decode::<New>().unwrap(), New { a: 3, b: None });
    }

    #[test]
    fn other_kinds_versions_and_garbage_are_refused() {
        let good = Section::encode(&Old { a: 1 });
        let kind = Section { kind: "other".into(), ..good.clone() };
        assert!(matches!(kind.decode::<Old>(), Err(SectionError::Kind { .. })));
        let version = Section { version: 2, ..good.clone() };
        assert!(matches!(version.decode::<Old>(), Err(SectionError::Version { .. })));
        let cut = Section { bytes: good.bytes[..good.bytes.len() - 1].to_vec(), ..good.clone() };
        assert!(matches!(cut.decode::<Old>(), Err(SectionError::Malformed { .. })));
        let long = Section { bytes: [good.bytes.as_slice(), &[0]].concat(), ..good };
        assert!(matches!(long.decode::<Old>(), Err(SectionError::Impossible { .. })));
    }
}
