//! What one VM is and what is done for it next: a function without side effects.
//!
//! ```text
//!  its disks are made      start
//!  pending, preparing ───────────▶ starting ──▶ running ◀──▶ paused
//!          │                          │            │ power button, then end
//!          ▼                          ▼            ▼
//!        failed ◀─────────────────── (ended) ◀── stopping
//!                                       │
//!                                       ▼
//!                                    stopped
//! ```

use jiff::{SignedDuration, Timestamp};
use model::{Name, OnEnd, Phase, Power, Vm, VmEnd, VmSpec, VmStatus};

use crate::{Process, Readiness, Seen, Size};

/// What is asked of the host for a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Run it.
    Start,
    /// Let it stand.
    Pause,
    /// Let it go on.
    Resume,
    /// Give it CPUs, and RAM in bytes, so that it has so much in all.
    Grow {
        /// So many CPUs.
        cpus: Option<u32>,
        /// So much RAM.
        memory_bytes: Option<u64>,
    },
    /// Ask its guest to shut down.
    PowerButton,
    /// End it.
    End,
    /// Give it this disk.
    Attach(Name),
    /// Ask its guest to let this disk go.
    Detach(Name),
    /// Take away what is left of it.
    Remove,
}

/// A run of so many seconds was no failure to start.
const RAN_WELL_S: u64 = 60;
/// The longest wait before another start is 2 to the power of this, in seconds.
const BACKOFF_MAX: u32 = 8;

/// What the VM's status is, and what to do for it.
pub fn decide(
    vm: &Vm,
    seen: Option<&Seen>,
    disks: &Readiness,
    now: Timestamp,
) -> (VmStatus, Option<Action>) {
    let none = Seen { id: vm.meta.id, process: Process::None };
    let seen = seen.unwrap_or(&none);
    // What lasts from step to step; all else is seen anew.
    let kept = VmStatus {
        boot: vm.status.boot,
        host: vm.status.host.clone(),
        failures: vm.status.failures,
        last_end: vm.status.last_end.clone(),
        networks: vm.status.networks.clone(),
        ..VmStatus::default()
    };
    match &seen.process {
        Process::Starting { boot, pid } => {
            let status = VmStatus { phase: Phase::Starting, boot: *boot, pid: *pid, ..kept };
            alive(vm, status, *boot, None, disks, now)
        }
        Process::Live { boot, pid, engine, engine_reason, cage, is_paused, size, disks: has } => {
            let status = VmStatus {
                phase: if *is_paused { Phase::Paused } else { Phase::Running },
                boot: *boot,
                pid: Some(*pid),
                engine: Some(*engine),
                engine_reason: Some(engine_reason.clone()),
                cage: Some(cage.clone()),
                cpus: Some(size.cpus),
                memory_bytes: Some(size.memory_bytes),
                cpus_max: Some(size.cpus_max),
                memory_max_bytes: Some(size.memory_max_bytes),
                at_next_start: at_next_start(&vm.spec, size),
                disks: has.clone(),
                ..kept
            };
            let (status, action) = alive(vm, status, *boot, Some(*is_paused), disks, now);
            let is_settled = action.is_none() && status.phase != Phase::Stopping;
            (status, action.or_else(|| growth(&vm.spec, size).filter(|_| is_settled)))
        }
        Process::None => at_rest(vm, kept, disks, None, now),
        Process::Ended(end) => {
            let status = VmStatus { boot: end.boot, last_end: Some(end.clone()), ..kept };
            at_rest(vm, status, disks, Some(end), now)
        }
    }
}

/// `is_paused` is not known before the guest is in.
fn alive(
    vm: &Vm,
    status: VmStatus,
    boot: u64,
    is_paused: Option<bool>,
    disks: &Readiness,
    now: Timestamp,
) -> (VmStatus, Option<Action>) {
    if vm.meta.deleting {
        return (VmStatus { phase: Phase::Deleting, ..status }, Some(Action::End));
    }
    let is_wanted = vm.spec.power.is_on() && boot >= vm.spec.boot;
    if is_wanted {
        let action = match (vm.spec.power, is_paused) {
            (Power::Paused, Some(false)) => Some(Action::Pause),
            (Power::On, Some(true)) => Some(Action::Resume),
            (_, Some(_)) => disk_action(vm, &status, disks),
            _ => None,
        };
        return (status, action);
    }
    let stopping = |since, action| {
        let phase = Phase::Stopping;
        (VmStatus { phase, stopping_since: Some(since), ..status.clone() }, action)
    };
    // A clock that was set back does not make the wait longer than it is.
    let since = vm.status.stopping_since.map(|since| since.min(now));
    let limit = SignedDuration::from_secs(vm.spec.stop_limit_s.into());
    match (since, is_paused) {
        _ if vm.spec.power == Power::OffNow => stopping(since.unwrap_or(now), Some(Action::End)),
        // Nobody in there could be asked.
        (None, None) => stopping(now, Some(Action::End)),
        (Some(since), _) if now.duration_since(since) >= limit => {
            stopping(since, Some(Action::End))
        }
        (None, Some(true)) => (status, Some(Action::Resume)),
        (None, Some(false)) => stopping(now, Some(Action::PowerButton)),
        (Some(since), _) => stopping(since, None),
    }
}

/// What of a spec a VM that runs cannot get: more than it has room for, and less than it has.
fn at_next_start(spec: &VmSpec, size: &Size) -> Vec<String> {
    let cpus = spec.cpus < size.cpus || spec.cpus > size.cpus_max;
    // What came with the last step is not too much.
    let surplus = size.memory_bytes.saturating_sub(spec.memory_bytes);
    let memory = surplus > 0 && surplus >= size.memory_step_bytes
        || spec.memory_bytes > size.memory_max_bytes;
    let fields = [("cpus", cpus), ("memory_bytes", memory)];
    fields.iter().filter(|(_, waits)| *waits).map(|(field, _)| (*field).to_owned()).collect()
}

/// What is done so that a running VM has the CPUs and RAM that it is to have.
fn growth(spec: &VmSpec, size: &Size) -> Option<Action> {
    let cpus = (size.cpus + 1..=size.cpus_max).contains(&spec.cpus).then_some(spec.cpus);
    let memory = spec.memory_bytes;
    let memory = (size.memory_bytes + 1..=size.memory_max_bytes).contains(&memory);
    let memory_bytes = memory.then(|| size.memory_for(spec.memory_bytes));
    (cpus.is_some() || memory_bytes.is_some()).then_some(Action::Grow { cpus, memory_bytes })
}

/// What is done so that a running VM has the disks that it is to have.
fn disk_action(vm: &Vm, status: &VmStatus, disks: &Readiness) -> Option<Action> {
    let lacks = |disk: &&Name| !status.disks.contains(disk);
    let comes = vm.spec.disks.iter().find(lacks).filter(|_| *disks == Readiness::Ready);
    let goes = status.disks.iter().find(|disk| !vm.spec.disks.contains(disk));
    goes.cloned().map(Action::Detach).or_else(|| comes.cloned().map(Action::Attach))
}

fn at_rest(
    vm: &Vm,
    status: VmStatus,
    disks: &Readiness,
    end: Option<&VmEnd>,
    now: Timestamp,
) -> (VmStatus, Option<Action>) {
    if vm.meta.deleting {
        return (VmStatus { phase: Phase::Deleting, ..status }, Some(Action::Remove));
    }
    let failed = |reason: &str| {
        (VmStatus { phase: Phase::Failed, reason: Some(reason.to_owned()), ..status.clone() }, None)
    };
    let preparing = VmStatus { phase: Phase::Preparing, ..status.clone() };
    match disks {
        Readiness::Making(percent) => {
            let reason = Some("its disks are being made".to_owned());
            return (VmStatus { reason, prepared_percent: Some(*percent), ..preparing }, None);
        }
        Readiness::Failed(reason) => {
            let (status, action) = failed(reason);
            return (VmStatus { boot: vm.spec.boot, ..status }, action);
        }
        Readiness::Ready => {}
    }
    let starting = VmStatus { phase: Phase::Starting, ..status.clone() };
    let stopped = VmStatus { phase: Phase::Stopped, ..status.clone() };
    if !vm.spec.power.is_on() {
        return (VmStatus { failures: 0, ..stopped }, None);
    }
    let Some(end) = end.filter(|end| end.boot >= vm.spec.boot) else {
        return (VmStatus { failures: 0, ..starting }, Some(Action::Start));
    };
    // It ended by itself.
    let starts_again = match vm.spec.on_end {
        OnEnd::Stay => false,
        OnEnd::RestartOnFailure => !end.is_orderly,
        OnEnd::Restart => true,
    };
    if !starts_again {
        let reason = Some(end.how.clone());
        return if end.is_orderly {
            (VmStatus { reason, ..stopped }, None)
        } else {
            failed(&end.how)
        };
    }
    let retry_at = vm.status.retry_at.map(|at| at.min(after_failures(status.failures, now)));
    match retry_at {
        Some(at) if now >= at => (starting, Some(Action::Start)),
        Some(at) => {
            (VmStatus { retry_at: Some(at), reason: vm.status.reason.clone(), ..starting }, None)
        }
        None => {
            let failures = if end.ran_s >= RAN_WELL_S { 1 } else { status.failures + 1 };
            let reason = format!("{}: it is started again", end.how);
            let retry_at = Some(after_failures(failures, now));
            (VmStatus { failures, retry_at, reason: Some(reason), ..starting }, None)
        }
    }
}

/// When it is started again after so many failures; no later, should the clock have been set back since.
fn after_failures(failures: u32, now: Timestamp) -> Timestamp {
    let wait = SignedDuration::from_secs(1 << failures.min(BACKOFF_MAX));
    now.checked_add(wait).unwrap_or(Timestamp::MAX)
}
