//! What disks and snapshots are and what is done for them next: functions without side effects.

use jiff::{SignedDuration, Timestamp};
use model::{
    Consistency, Disk, DiskId, DiskPhase, DiskStatus, Name, SnapshotId, SnapshotPhase,
    SnapshotStatus,
};

use crate::Readiness;

/// What there is of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenDisk {
    /// Which.
    pub id: DiskId,
    /// How far it is.
    pub state: DiskState,
    /// Something is being done to it, and nothing else can be.
    pub is_busy: bool,
    /// Space can be given back.
    pub is_untidy: bool,
    /// Its size.
    pub size_bytes: u64,
    /// Bytes it takes.
    pub used_bytes: u64,
    /// Its snapshots.
    pub snapshots: Vec<SeenSnapshot>,
    /// Reverts that are done.
    pub reverts: u64,
    /// What went wrong with what was begun last, if something did.
    pub trouble: Option<String>,
}

/// How far a disk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskState {
    /// Nothing but remains of what was cut off.
    None,
    /// It is being made; so much of 100 is done.
    Making(u8),
    /// It could not be made: why.
    Failed(String),
    /// It is there.
    Ready,
}

/// A snapshot of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenSnapshot {
    /// Which.
    pub id: SnapshotId,
    /// How large the disk was.
    pub size_bytes: u64,
    /// In what state its file systems were.
    pub consistency: Consistency,
}

/// What is asked of the host for a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskAction {
    /// Make it.
    Make,
    /// Make it larger.
    Grow,
    /// Make it what it was.
    Revert,
    /// Keep the snapshots that are wanted, and give back what the others took.
    Tidy,
    /// Take away all there is of it.
    Remove,
}

/// After so long, what the host has refused is tried again.
const RETRY: SignedDuration = SignedDuration::from_secs(10);

/// What the status of a disk is, and what to do for it. `vm` has it, running if `is_in_use`; `snapshots` are wanted.
pub fn decide_disk(
    disk: &Disk,
    seen: Option<&SeenDisk>,
    vm: Option<Name>,
    is_in_use: bool,
    snapshots: &[SnapshotId],
    now: Timestamp,
) -> (DiskStatus, Option<DiskAction>) {
    let old = &disk.status;
    let retry_at = old.retry_at.filter(|at| *at > now);
    let reason = retry_at.and(old.reason.clone());
    let base = DiskStatus { vm, reason, percent: None, retry_at, ..old.clone() };
    let with = |phase| DiskStatus { phase, ..base.clone() };
    // What was refused waits, and nothing else hurries.
    let when_due = |action| retry_at.is_none().then_some(action);
    let Some(seen) = seen else {
        if old.phase == DiskPhase::Ready && !disk.meta.deleting {
            let reason = "its files are missing: is the medium of its pool mounted?".to_owned();
            return (DiskStatus { reason: Some(reason), ..with(DiskPhase::Ready) }, None);
        }
        let phase = if disk.meta.deleting { DiskPhase::Deleting } else { DiskPhase::Preparing };
        return (with(phase), when_due(DiskAction::Make).filter(|_| !disk.meta.deleting));
    };
    if disk.meta.deleting {
        let can_go = !seen.is_busy && !is_in_use;
        return (with(DiskPhase::Deleting), when_due(DiskAction::Remove).filter(|_| can_go));
    }
    match &seen.state {
        DiskState::None => (with(DiskPhase::Preparing), when_due(DiskAction::Make)),
        DiskState::Making(percent) => {
            (DiskStatus { percent: Some(*percent), ..with(DiskPhase::Preparing) }, None)
        }
        DiskState::Failed(reason) => {
            let status = with(DiskPhase::Failed);
            // The first look at a failure is when the wait begins.
            if old.phase != DiskPhase::Failed {
                return (refused(status, reason.clone(), now), None);
            }
            let reason = Some(reason.clone());
            (DiskStatus { reason, ..status }, when_due(DiskAction::Make))
        }
        DiskState::Ready => {
            let status = DiskStatus {
                size_bytes: seen.size_bytes,
                used_bytes: seen.used_bytes,
                reverts: seen.reverts,
                ..with(DiskPhase::Ready)
            };
            let status = match &seen.trouble {
                Some(trouble) if status.reason.is_none() => {
                    DiskStatus { reason: Some(trouble.clone()), ..status }
                }
                _ => status,
            };
            if seen.is_busy {
                return (status, None);
            }
            let reverts = disk.spec.revert.as_ref().map_or(0, |revert| revert.number);
            let is_surplus = seen.snapshots.iter().any(|of| !snapshots.contains(&of.id));
            let action = if seen.reverts < reverts && !is_in_use {
                Some(DiskAction::Revert)
            } else if seen.size_bytes < disk.spec.size_bytes {
                Some(DiskAction::Grow)
            } else {
                (is_surplus || seen.is_untidy).then_some(DiskAction::Tidy)
            };
            (status, action.and_then(when_due))
        }
    }
}

/// The host has refused something.
pub(crate) fn refused(status: DiskStatus, reason: String, now: Timestamp) -> DiskStatus {
    DiskStatus { reason: Some(reason), retry_at: now.checked_add(RETRY).ok(), ..status }
}

/// Whether a VM can start with its disks. `None`: there is no such disk.
pub(crate) fn readiness<'a>(
    disks: impl Iterator<Item = (&'a Name, Option<(&'a Disk, bool)>)>,
) -> Readiness {
    let mut percents = Vec::new();
    for (name, disk) in disks {
        let Some((disk, is_busy)) = disk else {
            return Readiness::Failed(format!("there is no disk '{name}'"));
        };
        let reverts = disk.spec.revert.as_ref().map_or(0, |revert| revert.number);
        let is_moving = is_busy || disk.status.reverts < reverts;
        match disk.status.phase {
            DiskPhase::Failed | DiskPhase::Deleting => {
                let why = disk.status.reason.clone().unwrap_or_else(|| "it goes away".to_owned());
                return Readiness::Failed(format!("disk '{name}': {why}"));
            }
            DiskPhase::Ready if !is_moving => percents.push(100),
            DiskPhase::Ready => percents.push(99),
            DiskPhase::Pending | DiskPhase::Preparing => {
                percents.push(disk.status.percent.unwrap_or(0).min(99));
            }
        }
    }
    match percents.into_iter().min() {
        Some(percent @ ..100) => Readiness::Making(percent),
        _ => Readiness::Ready,
    }
}

/// What the status of a snapshot is, by what there is of its disks; and whether it is still to be taken.
pub(crate) fn decide_snapshot(
    old: &SnapshotStatus,
    id: SnapshotId,
    disks: &[&SeenDisk],
) -> (SnapshotStatus, bool) {
    let of = |disk: &&SeenDisk| disk.snapshots.iter().find(|of| of.id == id).cloned();
    let there: Vec<SeenSnapshot> = disks.iter().filter_map(of).collect();
    if old.phase == SnapshotPhase::Ready {
        return (old.clone(), false);
    }
    if there.len() < disks.len() {
        let trouble = disks.iter().find_map(|disk| disk.trouble.clone());
        return (SnapshotStatus { reason: trouble, ..old.clone() }, true);
    }
    let status = SnapshotStatus {
        phase: SnapshotPhase::Ready,
        reason: None,
        consistency: there.first().map(|of| of.consistency),
        size_bytes: there.iter().map(|of| of.size_bytes).sum(),
    };
    (status, false)
}
