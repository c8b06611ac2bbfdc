//! `trined --leave`: before a host is without Trine, for a while or for good.
//!
//! VMs, their disks and all else that is managed is kept: to the next daemon they are VMs whose guests have shut down.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use model::VmId;
use reconcile::{Host, Process, WantedNetworks};

const AGAIN: Duration = Duration::from_millis(200);

/// Shuts all guests down, ends VMs that have not after so long, and takes away what was made for networks.
///
/// # Errors
/// When the host cannot tell what runs, or some of it cannot be ended.
pub fn leave(host: &dyn Host, patience: Duration) -> anyhow::Result<()> {
    let begin = Instant::now();
    let mut asked = BTreeSet::new();
    loop {
        let running = running(host)?;
        if running.is_empty() {
            break;
        }
        let is_over = begin.elapsed() >= patience;
        for (id, listens) in running {
            if is_over {
                tracing::warn!(vm = %id, "the guest does not shut down: ended");
                host.end(id)?;
            } else if listens && asked.insert(id) {
                tracing::info!(vm = %id, "is shut down");
                host.press_power_button(id)?;
            }
        }
        if is_over {
            break;
        }
        thread::sleep(AGAIN);
    }
    host.network(&WantedNetworks::default()).context("cannot take networks away")?;
    Ok(())
}

/// What runs, and whether its guest can be asked.
fn running(host: &dyn Host) -> anyhow::Result<Vec<(VmId, bool)>> {
    let runs = |process: &Process| match process {
        Process::None | Process::Ended(_) => None,
        Process::Starting { .. } => Some(false),
        Process::Live { is_paused, .. } => Some(!is_paused),
    };
    let seen = host.see(None)?;
    Ok(seen.into_iter().filter_map(|seen| Some((seen.id, runs(&seen.process)?))).collect())
}
