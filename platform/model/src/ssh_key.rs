//! Public keys for SSH: VMs are made with them by name.
//!
//! Specifications: RFC 4253, section 6.6 (a key's bytes), sshd(8), AUTHORIZED_KEYS FILE FORMAT.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use crate::object::{object, refuse};
use crate::vm::check_labels;
use crate::{Labels, Meta, Spec, SpecError, SshKeyId};

object! {
    /// A public key for SSH.
    SshKey: SshKey, SshKeyId, SshKeySpec, SshKeyStatus
}

/// What is wanted of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SshKeySpec {
    /// The key, as in a `.pub` file: `ssh-ed25519 AAAA… comment`.
    #[schema(
        max_length = 16384,
        example = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIH/IJQX23i6VB4XCm2ne2jwT0j03j8JsWvE5Y9jkPjQj me"
    )]
    pub public_key: String,
    /// What its owner notes down.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
}

/// What a key is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SshKeyStatus {
    /// `SHA256:…`, as ssh-keygen tells it.
    #[serde(default)]
    pub fingerprint: String,
    /// What kind: `ssh-ed25519`.
    #[serde(default)]
    pub kind: String,
    /// What stands behind the key.
    #[serde(default)]
    pub comment: String,
}

/// Longest line: a key of RSA with 16384 bits has less than 3 KiB.
const LEN_MAX: usize = 16 << 10;
/// Kinds that sshd knows. A security key's has more in it, and the same form.
const KINDS: &[&str] = &[
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

impl SshKeySpec {
    /// What its key is.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(&self) -> Result<SshKeyStatus, SpecError> {
        let text = self.public_key.trim();
        if text.len() > LEN_MAX || text.contains(['\n', '\r', '\0']) {
            return refuse("public_key", "give one line of at most 16 KiB, as in a .pub file");
        }
        let mut words = text.splitn(3, char::is_whitespace);
        let (kind, key) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if !KINDS.contains(&kind) {
            let known = KINDS.join(", ");
            return refuse("public_key", format!("a key begins with its kind, one of {known}"));
        }
        // Its kind is in it once more, after the length of that.
        let bytes = STANDARD.decode(key).unwrap_or_default();
        let length = bytes.first_chunk().map_or(0, |length| u32::from_be_bytes(*length) as usize);
        if length != kind.len() || bytes.get(4..4 + length) != Some(kind.as_bytes()) {
            return refuse(
                "public_key",
                "the key is damaged: copy all of the line of its .pub file",
            );
        }
        let digest = STANDARD_NO_PAD.encode(Sha256::digest(&bytes));
        Ok(SshKeyStatus {
            fingerprint: format!("SHA256:{digest}"),
            kind: kind.to_owned(),
            comment: words.next().unwrap_or_default().trim().to_owned(),
        })
    }
}

impl Spec for SshKeySpec {
    fn check(&self) -> Result<(), SpecError> {
        self.read()?;
        check_labels(&self.labels)
    }

    fn fixed_field(&self, new: &Self) -> Option<&'static str> {
        (self.public_key != new.public_key).then_some("spec.public_key")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by ssh-keygen, which says that its fingerprint is the one below.
    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIH/IJQX23i6VB4XCm2ne2jwT0j03j8JsWvE5Y9jkPjQj me@there";

    #[test]
    fn a_key_has_the_fingerprint_that_ssh_keygen_tells() {
        let key = |text: &str| SshKeySpec { public_key: text.to_owned(), labels: Labels::new() };
        let read = key(KEY).read().unwrap();
        assert_eq!(read.fingerprint, "SHA256:JjBMp+QkKOQa/5TCZ6Lhqs7fGYcwgCLS4qxZm7G5q5Q");
        assert_eq!((read.kind.as_str(), read.comment.as_str()), ("ssh-ed25519", "me@there"));
        let other_kind = KEY.replace("ssh-ed25519", "ssh-rsa");
        for wrong in
            ["", "ssh-ed25519", "ssh-ed25519 AAAA", &other_kind, "-----BEGIN", &format!("{KEY}\nx")]
        {
            assert_eq!(key(wrong).check().unwrap_err().field, "public_key", "{wrong}");
        }
    }
}
