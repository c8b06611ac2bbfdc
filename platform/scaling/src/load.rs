//! What VMs use of their CPUs, from what they have used so far.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use model::{Vm, VmId};

/// A shorter time says little.
const LEAST_MS: i64 = 10_000;

/// A VM's use, when it was looked at, and what that came to.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Timestamp,
    cpu_ms: u64,
    percent: Option<u32>,
}

/// The load of VMs.
#[derive(Debug, Default)]
pub struct Loads(BTreeMap<VmId, Sample>);

impl Loads {
    /// Takes what a VM has used, and gives what part of its CPUs it uses, in percent, once that can be told.
    pub fn of(&mut self, vm: &Vm, cpu_ms: u64, now: Timestamp) -> Option<u32> {
        let fresh = Sample { at: now, cpu_ms, percent: None };
        let sample = self.0.entry(vm.meta.id).or_insert(fresh);
        let passed = now.as_millisecond() - sample.at.as_millisecond();
        if cpu_ms < sample.cpu_ms || passed < 0 {
            // It has started anew, or the clock was set back.
            *sample = fresh;
        } else if passed >= LEAST_MS {
            let used = (cpu_ms - sample.cpu_ms).saturating_mul(100);
            let could = passed.unsigned_abs() * u64::from(vm.spec.cpus.max(1));
            let percent = u32::try_from(used / could).unwrap_or(u32::MAX).min(100);
            *sample = Sample { at: now, cpu_ms, percent: Some(percent) };
        }
        sample.percent
    }

    /// Forgets all other VMs.
    pub fn keep(&mut self, vms: &BTreeSet<VmId>) {
        self.0.retain(|id, _| vms.contains(id));
    }
}
