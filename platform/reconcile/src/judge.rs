//! What has become of an operation: a function of the object it is about.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use model::{
    Disk, DiskId, DiskPhase, Failure, Kind, Operation, OperationState, Phase, Power, Snapshot,
    SnapshotPhase, Verb, Vm,
};
use uuid::Uuid;

/// So long a guest has to let a disk go, before it is told that it does not.
const DETACH_LIMIT: SignedDuration = SignedDuration::from_secs(60);

/// What there is.
pub(crate) struct World<'a> {
    pub vms: BTreeMap<Uuid, &'a Vm>,
    pub disks: BTreeMap<DiskId, &'a Disk>,
    pub snapshots: BTreeMap<Uuid, &'a Snapshot>,
}

/// How an operation on an object that is there ends, if it does.
enum Outcome {
    Goes { phase: String, percent: u8 },
    Done,
    Cancelled,
    Failed { code: &'static str, message: String },
}

/// Brings `operation` up to date with its object, or with that's being gone.
pub(crate) fn judge(operation: &mut Operation, world: &World<'_>, now: Timestamp) {
    let id = operation.target.id;
    let outcome = match operation.target.kind {
        Kind::Vm => match world.vms.get(&id) {
            Some(vm) => return judge_vm(operation, vm, now),
            None => None,
        },
        Kind::Disk => world.disks.get(&DiskId(id)).map(|disk| of_disk(operation, disk, world, now)),
        Kind::Snapshot => world.snapshots.get(&id).map(|of| of_snapshot(operation, of, world)),
        // Who does them reports on them.
        Kind::Image
        | Kind::Operation
        | Kind::Project
        | Kind::Network
        | Kind::SecurityGroup
        | Kind::ScaleSet
        | Kind::SshKey => return,
    };
    let is_gone = || match operation.verb {
        Verb::Delete => Outcome::Done,
        _ => Outcome::Cancelled,
    };
    match outcome.unwrap_or_else(is_gone) {
        Outcome::Goes { phase, percent } => (operation.phase, operation.percent) = (phase, percent),
        Outcome::Done => operation.finish(None, now),
        Outcome::Cancelled => operation.finish_as(OperationState::Cancelled, None, now),
        Outcome::Failed { code, message } => {
            operation.finish(Some(Failure { code: code.to_owned(), message }), now);
        }
    }
}

fn goes(phase: &str, percent: u8) -> Outcome {
    Outcome::Goes { phase: phase.to_owned(), percent }
}

fn of_disk(operation: &Operation, disk: &Disk, world: &World<'_>, now: Timestamp) -> Outcome {
    if disk.meta.deleting {
        return match operation.verb {
            Verb::Delete => goes("deleting", 50),
            _ => Outcome::Cancelled,
        };
    }
    let status = &disk.status;
    let refused = |code| {
        let message = status.reason.clone().filter(|_| status.retry_at.is_some());
        message.map(|message| Outcome::Failed { code, message })
    };
    let vm = |name: &model::Name| {
        let is_it = |vm: &&&Vm| vm.meta.name == *name && vm.meta.project == disk.meta.project;
        world.vms.values().find(is_it).copied()
    };
    match operation.verb {
        Verb::Create => match status.phase {
            DiskPhase::Ready => Outcome::Done,
            _ => refused("disk-failed")
                .unwrap_or_else(|| goes(status.phase.as_str(), status.percent.unwrap_or(0))),
        },
        Verb::Resize if status.size_bytes >= disk.spec.size_bytes => Outcome::Done,
        Verb::Resize => refused("resize-failed").unwrap_or_else(|| goes("growing", 50)),
        Verb::Attach => match disk.spec.vm.as_ref().and_then(vm) {
            None => Outcome::Cancelled,
            Some(vm) => of_attach(disk, vm),
        },
        Verb::Detach if disk.spec.vm.is_some() => Outcome::Cancelled,
        Verb::Detach if status.vm.is_none() => Outcome::Done,
        Verb::Detach if now.duration_since(operation.created) > DETACH_LIMIT => Outcome::Failed {
            code: "guest-keeps-disk",
            message: "the guest has not let the disk go; it may later, and does when it is stopped"
                .to_owned(),
        },
        Verb::Detach => goes("asking the guest to let it go", 50),
        _ => Outcome::Cancelled,
    }
}

/// It is attached when the guest of a VM that runs has it.
fn of_attach(disk: &Disk, vm: &Vm) -> Outcome {
    match vm.status.phase {
        Phase::Running | Phase::Paused if vm.status.disks.contains(&disk.meta.name) => {
            Outcome::Done
        }
        Phase::Running | Phase::Paused => match &vm.status.reason {
            Some(message) => Outcome::Failed { code: "attach-failed", message: message.clone() },
            None => goes("attaching", 50),
        },
        Phase::Starting => goes("starting", 50),
        _ => Outcome::Done,
    }
}

fn of_snapshot(operation: &Operation, snapshot: &Snapshot, world: &World<'_>) -> Outcome {
    let status = &snapshot.status;
    match operation.verb {
        Verb::Delete => goes("deleting", 50),
        _ if snapshot.meta.deleting => Outcome::Cancelled,
        Verb::Create => match (status.phase, &status.reason) {
            (SnapshotPhase::Ready, _) => Outcome::Done,
            (_, Some(reason)) => {
                Outcome::Failed { code: "snapshot-failed", message: reason.clone() }
            }
            (_, None) => goes("taking the snapshot", 10),
        },
        Verb::Revert => {
            let disks = || snapshot.spec.disk_ids.iter().filter_map(|id| world.disks.get(id));
            let is_left = |disk: &&&Disk| {
                let revert = disk.spec.revert.as_ref();
                revert
                    .is_some_and(|of| of.to == snapshot.meta.id && of.number > disk.status.reverts)
            };
            match disks().find(is_left) {
                None => Outcome::Done,
                Some(disk) => match disk.status.reason.clone() {
                    Some(message) => Outcome::Failed { code: "revert-failed", message },
                    None => goes("reverting", 50),
                },
            }
        }
        _ => Outcome::Cancelled,
    }
}

fn judge_vm(operation: &mut Operation, vm: &Vm, now: Timestamp) {
    let is_over_taken = match operation.verb {
        Verb::Delete => false,
        _ if vm.meta.deleting => true,
        // A VM may be made to be off; then it is made when its disk is.
        Verb::Create => vm.spec.boot != operation.boot,
        Verb::Start | Verb::Restart => !vm.spec.power.is_on() || vm.spec.boot != operation.boot,
        Verb::Stop => vm.spec.power.is_on(),
        Verb::Pause => vm.spec.power != Power::Paused,
        Verb::Resume => vm.spec.power != Power::On,
        Verb::Resize => false,
        _ => true,
    };
    if is_over_taken {
        return operation.finish_as(OperationState::Cancelled, None, now);
    }
    match outcome(operation, vm) {
        Some(error) => operation.finish(error, now),
        None => {
            let phase = vm.status.phase.as_str();
            let is_up = matches!(vm.status.phase, Phase::Running | Phase::Paused);
            let is_growing = is_up && operation.verb == Verb::Resize;
            operation.phase = if is_growing { "growing" } else { phase }.to_owned();
            operation.percent = percent(vm);
            operation.can_cancel =
                matches!(operation.verb, Verb::Create | Verb::Start | Verb::Restart);
        }
    }
}

/// `Some` when it is over, with what went wrong.
fn outcome(operation: &Operation, vm: &Vm) -> Option<Option<Failure>> {
    let phase = vm.status.phase;
    let failed = |code: &str| {
        let message = vm.status.reason.clone().unwrap_or_else(|| "it has ended".to_owned());
        Some(Some(Failure { code: code.to_owned(), message }))
    };
    match operation.verb {
        Verb::Create | Verb::Start | Verb::Restart => {
            let is_of_it = vm.status.boot >= operation.boot;
            match phase {
                Phase::Stopped if !vm.spec.power.is_on() => Some(None),
                Phase::Running if is_of_it => Some(None),
                Phase::Paused if is_of_it => Some(None),
                // It has run, and its guest has ended.
                Phase::Stopped if is_of_it => Some(None),
                Phase::Failed if is_of_it => failed("start-failed"),
                _ => None,
            }
        }
        Verb::Stop => match phase {
            Phase::Stopped | Phase::Failed => Some(None),
            _ => None,
        },
        Verb::Pause | Verb::Resume => match phase {
            Phase::Paused if operation.verb == Verb::Pause => Some(None),
            Phase::Running if operation.verb == Verb::Resume => Some(None),
            Phase::Stopped | Phase::Failed => failed("vm-has-ended"),
            _ => None,
        },
        Verb::Resize => match phase {
            Phase::Starting | Phase::Preparing | Phase::Pending => None,
            Phase::Running | Phase::Paused if !has_its_size(vm) => {
                vm.status.reason.as_ref().and_then(|_| failed("resize-failed"))
            }
            // What cannot come before the next start is noted down for that.
            _ => Some(None),
        },
        _ => None,
    }
}

/// Its guest has the CPUs and RAM that it can get without a start.
fn has_its_size(vm: &Vm) -> bool {
    let (spec, status) = (&vm.spec, &vm.status);
    let waits = |field: &str| status.at_next_start.iter().any(|of| of == field);
    let has_cpus = status.cpus.is_some_and(|cpus| cpus >= spec.cpus);
    let has_memory = status.memory_bytes.is_some_and(|bytes| bytes >= spec.memory_bytes);
    (has_cpus || waits("cpus")) && (has_memory || waits("memory_bytes"))
}

/// Most of a VM's first start is its disk.
fn percent(vm: &Vm) -> u8 {
    match vm.status.phase {
        Phase::Preparing => vm.status.prepared_percent.unwrap_or(0).min(100) / 10 * 9,
        Phase::Starting => 95,
        Phase::Stopping | Phase::Deleting => 50,
        _ => 0,
    }
}
