//! What the kernel's trace points tell of KVM: when a vCPU was entered first, and why KVM returned to
//! the VMM.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};

const TRACING: &str = "/sys/kernel/tracing";
/// In `trace`: our mark, and the first entry.
const START: &str = "tracing_mark_write";
const ENTRY: &str = "kvm_entry";
const USER_EXITS: &str = "events/kvm/kvm_userspace_exit/trigger";
/// KVM's exits for port and MMIO accesses: KVM_EXIT_IO and KVM_EXIT_MMIO.
const ACCESSES: [u32; 2] = [2, 6];

/// A trace that is being made.
pub struct Trace(());

/// What it showed.
pub struct Told {
    /// From the beginning to the first entry of a vCPU, in milliseconds.
    pub entry_ms: f64,
    /// How often KVM returned to the VMM, by KVM's reason.
    pub exits: BTreeMap<u32, u64>,
}

impl Told {
    /// Exits for accesses to ports and MMIO.
    pub fn accesses(&self) -> u64 {
        ACCESSES.iter().filter_map(|reason| self.exits.get(reason)).sum()
    }
}

impl Trace {
    /// Begins.
    pub fn begin() -> anyhow::Result<Self> {
        set("tracing_on", "0")?;
        set("trace", "")?;
        set("trace_clock", "mono")?;
        // The first entry ends the trace, so that the others cost next to nothing.
        set("events/kvm/kvm_entry/trigger", "traceoff:1")?;
        set("events/kvm/kvm_entry/enable", "1")?;
        set(USER_EXITS, "hist:keys=reason")?;
        set("tracing_on", "1")?;
        set("trace_marker", "start")?;
        Ok(Self(()))
    }

    /// What has happened until now.
    pub fn told(self) -> anyhow::Result<Told> {
        let histogram = get("events/kvm/kvm_userspace_exit/hist")?;
        let trace = get("trace")?;
        set(USER_EXITS, "!hist:keys=reason")?;
        set("events/kvm/kvm_entry/trigger", "!traceoff:1")?;
        set("events/kvm/kvm_entry/enable", "0")?;
        let entry_ms = entry_ms(&trace).context("no vCPU was entered")?;
        Ok(Told { entry_ms, exits: exits(&histogram) })
    }
}

fn set(file: &str, value: &str) -> anyhow::Result<()> {
    let path = Path::new(TRACING).join(file);
    ensure!(path.exists(), "there is no {}: is tracefs mounted?", path.display());
    fs::write(&path, value).with_context(|| format!("cannot write {}", path.display()))
}

fn get(file: &str) -> anyhow::Result<String> {
    let path = Path::new(TRACING).join(file);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Lines are `task-pid [cpu] flags seconds: event: ...`.
fn entry_ms(trace: &str) -> Option<f64> {
    let at = |event: &str| -> Option<f64> {
        let (before, _) =
            trace.lines().find_map(|line| line.split_once(&format!(": {event}: ")))?;
        before.rsplit(' ').next()?.parse().ok()
    };
    Some((at(ENTRY)? - at(START)?) * 1e3)
}

/// Lines are "{ reason: 2 } hitcount: 227".
fn exits(histogram: &str) -> BTreeMap<u32, u64> {
    let line = |line: &str| {
        let (reason, count) = line.strip_prefix("{ reason:")?.split_once("} hitcount:")?;
        Some((reason.trim().parse().ok()?, count.trim().parse().ok()?))
    };
    histogram.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_are_counted_by_reason() {
        let histogram = "# event histogram\n#\n\n{ reason:          6 } hitcount:        242\n\
                         { reason:          2 } hitcount:        303\n\nTotals:\n    Hits: 545\n";
        let told = Told { entry_ms: 0.0, exits: exits(histogram) };
        assert_eq!((told.exits.len(), told.accesses()), (2, 545));
    }

    #[test]
    fn the_first_entry_is_counted_from_the_mark() {
        let trace = "# tracer: nop\n#\n\
                     xtask-81 [000] ..... 5.250000: tracing_mark_write: start\n\
                     vcpu0-83 [000] d.... 5.262500: kvm_entry: vcpu 0, rip 0xfff0\n";
        assert!((entry_ms(trace).unwrap() - 12.5).abs() < 1e-6);
        assert_eq!(entry_ms("nothing"), None);
    }
}
