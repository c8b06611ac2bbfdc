//! What is done for one set next: a function without side effects.

use jiff::Timestamp;
use model::{Phase, Power, ScaleSet, ScaleSetPhase, ScaleSetStatus, Vm};

/// VMs made or stopped in one step: a host is not buried.
const AT_ONCE: usize = 10;
/// Load that is within a tenth of what is wanted is left alone, or sizes would swing.
const TOLERANCE_PERCENT: u64 = 10;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action<'a> {
    /// Make so many VMs.
    Make(usize),
    /// Ask this VM's guest to shut down.
    Stop(&'a Vm),
    /// Delete this VM, which does not run.
    Delete(&'a Vm),
}

/// How the set is, and what to do. `vms` are its, the oldest first; `template` is the digest of what they shall be; `load` is what
/// they use of their CPUs, in percent.
pub fn decide<'a>(
    set: &ScaleSet,
    vms: &'a [Vm],
    template: &str,
    load: Option<u32>,
    now: Timestamp,
) -> (ScaleSetStatus, Vec<Action<'a>>) {
    let mut status = scaled(set, vms, load, now);
    let is_current =
        |vm: &&Vm| vm.spec.scale_set.as_ref().is_some_and(|of| of.template == template);
    let runs = |vm: &&Vm| vm.status.phase == Phase::Running;
    status.vms = count(vms.len());
    status.running = count(vms.iter().filter(runs).count());
    status.current = count(vms.iter().filter(is_current).count());
    let (there, leaving): (Vec<&Vm>, Vec<&Vm>) = vms.iter().partition(stays);
    let off =
        |vm: &&&Vm| !vm.meta.deleting && matches!(vm.status.phase, Phase::Stopped | Phase::Failed);
    let mut actions: Vec<_> =
        leaving.iter().filter(off).take(AT_ONCE).map(|vm| Action::Delete(vm)).collect();
    let wanted = status.wanted as usize;
    if there.len() < wanted {
        actions.push(Action::Make((wanted - there.len()).min(AT_ONCE)));
    } else if there.len() > wanted {
        let mut surplus = there.clone();
        surplus.sort_by_key(|vm| (is_current(vm), runs(vm), std::cmp::Reverse(vm.meta.id)));
        let surplus = surplus.into_iter().take((there.len() - wanted).min(AT_ONCE));
        actions.extend(surplus.map(Action::Stop));
    } else if there.iter().all(|vm| runs(vm) || !is_current(vm)) {
        let at_once = set.spec.replace_at_once as usize;
        let room = at_once.saturating_sub(leaving.len());
        let old = there.iter().filter(|vm| !is_current(vm));
        actions.extend(old.take(room).map(|vm| Action::Stop(vm)));
    }
    let failed = there.iter().find(|vm| vm.status.phase == Phase::Failed);
    (status.phase, status.reason) = match failed {
        _ if set.meta.deleting => (ScaleSetPhase::Deleting, None),
        Some(vm) => {
            let why = vm.status.reason.clone().unwrap_or_else(|| "it has failed".to_owned());
            (ScaleSetPhase::Failed, Some(format!("VM '{}': {why}", vm.meta.name)))
        }
        None if actions.is_empty() && leaving.is_empty() && there.iter().all(runs) => {
            (ScaleSetPhase::Ready, None)
        }
        None => (ScaleSetPhase::Changing, None),
    };
    (status, actions)
}

/// It is to run, and does or may come to.
fn stays(vm: &&Vm) -> bool {
    let has_ended = vm.status.phase == Phase::Stopped && vm.status.boot >= vm.spec.boot;
    !vm.meta.deleting && matches!(vm.spec.power, Power::On | Power::Paused) && !has_ended
}

/// How many VMs there are to be by now.
fn scaled(set: &ScaleSet, vms: &[Vm], load: Option<u32>, now: Timestamp) -> ScaleSetStatus {
    let before = &set.status;
    let mut status = ScaleSetStatus {
        wanted: set.spec.size_of(None),
        cpu_percent: load,
        scaled: before.scaled,
        ..ScaleSetStatus::default()
    };
    if set.meta.deleting {
        status.wanted = 0;
        return status;
    }
    let Some(scale) = &set.spec.autoscale else { return status };
    let was = (before.wanted > 0).then_some(before.wanted);
    status.wanted = set.spec.size_of(was);
    let rests = |then: Timestamp| now.duration_since(then).as_secs() < i64::from(scale.cool_down_s);
    // Of VMs that come or go the load says nothing yet.
    let is_settled = vms.len() == status.wanted as usize
        && vms.iter().all(|vm| vm.status.phase == Phase::Running);
    let Some(load) = load.filter(|_| is_settled && !before.scaled.is_some_and(rests)) else {
        return status;
    };
    let (load, target) = (u64::from(load), u64::from(scale.cpu_percent));
    if load.abs_diff(target) * 100 <= target * TOLERANCE_PERCENT {
        return status;
    }
    let fitting = (u64::from(status.wanted) * load).div_ceil(target).max(1);
    let wanted = set.spec.size_of(Some(u32::try_from(fitting).unwrap_or(u32::MAX)));
    if wanted != status.wanted {
        status.wanted = wanted;
        status.scaled = Some(now);
    }
    status
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
