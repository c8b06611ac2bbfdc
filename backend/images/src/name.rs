//! What images are called, by people and by their content.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ImageError;

/// Longer names are no help, and host name labels are no longer either.
const NAME_LEN_MAX: usize = 63;

/// A name that an image can have: also one that a file can.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl FromStr for Name {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Self, ImageError> {
        let known = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let is_name = text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.len() <= NAME_LEN_MAX
            && text.chars().all(known);
        if is_name { Ok(Self(text.to_owned())) } else { Err(ImageError::Name(text.to_owned())) }
    }
}

impl TryFrom<String> for Name {
    type Error = ImageError;

    fn try_from(text: String) -> Result<Self, ImageError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a disk's bytes are, in 32: see `digest`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id(pub(crate) [u8; 32]);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for Id {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut bytes = [0; 32];
        let is_plain = text.len() == 64
            && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if !is_plain {
            return Err("an ID is 64 hexadecimal digits");
        }
        for (n, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * n..2 * n + 2], 16).map_err(|_| "not an ID")?;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_file_names_and_never_paths() {
        for good in ["debian", "Debian-12.5_x", "9"] {
            assert_eq!(good.parse::<Name>().unwrap().as_ref(), good);
        }
        for bad in ["", ".", "..", ".a", "-a", "a/b", "a b", "ü", &"a".repeat(64)] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_id_is_read_as_it_is_written() {
        let id = Id([0xa5; 32]);
        assert_eq!(Id::try_from(id.to_string()).unwrap(), id);
        for bad in ["", "a5", &"A5".repeat(32), &"../a".repeat(16)] {
            assert!(Id::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
