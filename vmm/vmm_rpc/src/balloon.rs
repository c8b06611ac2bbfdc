//! What can be asked of a VM's memory balloon.

use serde::{Deserialize, Serialize};

/// What to do with a balloon, and that its state is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalloonRequest {
    /// The guest shall do without so many bytes.
    pub target_bytes: Option<u64>,
    /// The guest shall give back all pages that are free now.
    #[serde(default)]
    pub reclaim: bool,
}

/// How a balloon is, and the guest's memory. Of what the guest says, it is the last it has said: being
/// asked, it says more a moment later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalloonStatus {
    /// What the guest shall do without.
    pub target_bytes: u64,
    /// What it does without.
    pub actual_bytes: u64,
    /// Its RAM.
    pub memory_bytes: u64,
    /// What of its memory takes the host's.
    pub resident_bytes: u64,
    /// What was ever given back to the host.
    pub released_bytes: u64,
    /// What nobody in the guest uses.
    pub free_bytes: Option<u64>,
    /// What the guest's system has in all.
    pub total_bytes: Option<u64>,
    /// What the guest's programs could have without swapping.
    pub available_bytes: Option<u64>,
    /// What in the guest is a copy of what is on disks.
    pub cache_bytes: Option<u64>,
    /// What the guest has ever swapped in.
    pub swapped_in_bytes: Option<u64>,
    /// What the guest has ever swapped out.
    pub swapped_out_bytes: Option<u64>,
    /// The guest's page faults that took a disk.
    pub major_faults: Option<u64>,
    /// The guest's other page faults.
    pub minor_faults: Option<u64>,
}
