//! What has become of an operation: a function of its VM.

use jiff::Timestamp;
use model::{Failure, Operation, OperationState, Phase, Power, Verb, Vm};

/// Brings `operation` up to date with its VM, or with the VM's being gone.
pub(crate) fn judge(operation: &mut Operation, vm: Option<&Vm>, now: Timestamp) {
    let Some(vm) = vm else {
        let state = match operation.verb {
            Verb::Delete => OperationState::Done,
            _ => OperationState::Cancelled,
        };
        return operation.finish_as(state, None, now);
    };
    let is_over_taken = match operation.verb {
        Verb::Delete => false,
        _ if vm.meta.deleting => true,
        // A VM may be made to be off; then it is made when its disk is.
        Verb::Create => vm.spec.boot != operation.boot,
        Verb::Start | Verb::Restart => !vm.spec.power.is_on() || vm.spec.boot != operation.boot,
        Verb::Stop => vm.spec.power.is_on(),
        Verb::Pause => vm.spec.power != Power::Paused,
        Verb::Resume => vm.spec.power != Power::On,
    };
    if is_over_taken {
        return operation.finish_as(OperationState::Cancelled, None, now);
    }
    match outcome(operation, vm) {
        Some(error) => operation.finish(error, now),
        None => {
            operation.phase = vm.status.phase.as_str().to_owned();
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
        Verb::Delete => None,
    }
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
