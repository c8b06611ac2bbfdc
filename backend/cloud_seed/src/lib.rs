//! cloud-init's NoCloud seed: a small disk that tells a guest, at its first boot, its name, its
//! user and how to reach them.
//!
//! *Invariants*: the same wishes give the same disk, byte for byte, and the same instance ID; other
//! wishes another ID, at which the guest configures itself anew. What an operator gives ends
//! up as a value, never as structure: the configuration is JSON, which is YAML.
//!
//! What this crate may not know: how a guest gets the disk.
//!
//! Specification: cloud-init's documentation, "NoCloud", "User data formats".

mod config;
mod error;
mod spec;

pub use error::SeedError;
pub use spec::SeedSpec;

use fatimage::Volume;
use sha2::{Digest, Sha256};

/// What the file system has besides files, and the least its format knows.
const SLACK_BYTES: usize = 256 << 10;

/// Reads the files that `spec` names, and makes the disk.
///
/// # Errors
/// When a file cannot be read, or has not in it what it should.
pub fn seed(spec: &SeedSpec) -> Result<Vec<u8>, SeedError> {
    let config::Files { user_data, vendor_data } = config::files(spec)?;
    let mut digest = Sha256::new();
    for text in [spec.hostname.as_deref().unwrap_or_default(), &user_data, &vendor_data] {
        digest.update((text.len() as u64).to_le_bytes());
        digest.update(text);
    }
    let digest: [u8; 32] = digest.finalize().into();
    let id: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let meta_data = config::meta_data(&id, spec.hostname.as_deref());

    let files = [
        ("meta-data", meta_data.as_bytes()),
        ("user-data", user_data.as_bytes()),
        ("vendor-data", vendor_data.as_bytes()),
    ];
    let content: usize = files.iter().map(|(_, text)| text.len()).sum();
    let volume = Volume {
        label: "CIDATA",
        id: u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]),
        size_bytes: (content + content / 8 + SLACK_BYTES).next_multiple_of(64 << 10),
    };
    fatimage::build(&volume, &files).map_err(SeedError::Volume)
}

#[cfg(test)]
mod tests;
