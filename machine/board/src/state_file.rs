//! Saved state in a file (docs/formats/saved-state.md): sections, and of which CPUs they are.

use statecodec::{FileError, NamedSection};
use x86_state::CpuProfile;

use crate::profile_state::{ProfileMismatch, check_profile, save_profile};

/// Why a file was refused.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// It is no file of saved state.
    #[error("the saved state cannot be read")]
    File(#[source] FileError),
    /// It is of other CPUs.
    #[error(transparent)]
    Profile(#[from] ProfileMismatch),
}

/// The bytes of a file with the state of a VM of this profile.
pub fn pack(profile: &CpuProfile, sections: &[NamedSection]) -> Vec<u8> {
    statecodec::pack(&save_profile(profile), sections)
}

/// The sections in a file, for a VM of this profile.
///
/// # Errors
/// When the file is not one that [`pack`] of a known version has made, or is of other CPUs.
pub fn unpack(profile: &CpuProfile, file: &[u8]) -> Result<Vec<NamedSection>, StateFileError> {
    let (saved, sections) = statecodec::unpack(file).map_err(StateFileError::File)?;
    check_profile(&saved, profile)?;
    Ok(sections)
}
