//! The thread that looks after VMs: a step when something has changed, and from time to time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context;
use api::Metrics;
use jiff::Timestamp;
use reconcile::{Reconciler, Refusal};
use registry::Registry;
use scaling::Scaler;
use store::{Revision, Watch};

/// While something is on its way.
const SOON: Duration = Duration::from_millis(50);
/// When nothing is: so late a VM's end is noticed.
const IDLE: Duration = Duration::from_secs(1);
/// How often what is old is forgotten.
const CLEAN: Duration = Duration::from_secs(600);
/// Revisions that are kept for watches and pages.
const HISTORY: u64 = 5000;

/// Looks after VMs until it is told to stop.
pub struct Steward {
    stops: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// Makes the first step, and begins.
pub fn begin(
    reconciler: Reconciler,
    scaler: Scaler,
    registry: Registry,
    metrics: Arc<Metrics>,
) -> anyhow::Result<Steward> {
    let stops = Arc::new(AtomicBool::new(false));
    let told = stops.clone();
    let watch = registry.store().get("").and_then(|(_, now)| registry.store().watch("/", now));
    let mut work = Work { watch: watch.ok(), reconciler, scaler, registry, metrics, strays: 0 };
    work.step();
    let thread = thread::Builder::new().name("steward".into());
    let thread = thread.spawn(move || work.run(&told)).context("cannot start a thread")?;
    Ok(Steward { stops, thread })
}

impl Steward {
    /// Returns when the step that is being made is done.
    pub fn stop(self) {
        self.stops.store(true, Ordering::Relaxed);
        if self.thread.join().is_err() {
            tracing::error!("the steward has panicked");
        }
    }
}

struct Work {
    watch: Option<Watch>,
    reconciler: Reconciler,
    scaler: Scaler,
    registry: Registry,
    metrics: Arc<Metrics>,
    strays: usize,
}

impl Work {
    fn run(mut self, stops: &AtomicBool) {
        let mut cleaned = Instant::now();
        let mut wait = SOON;
        while !stops.load(Ordering::Relaxed) {
            self.wait(wait);
            wait = if self.step() { SOON } else { IDLE };
            if cleaned.elapsed() > CLEAN {
                cleaned = Instant::now();
                if let Err(error) = self.clean() {
                    tracing::warn!(error = %errchain::Chain(&error), "cannot forget what is old");
                }
            }
        }
    }

    /// Until something changes, or for so long.
    fn wait(&mut self, limit: Duration) {
        let Some(watch) = &mut self.watch else {
            self.watch = self
                .registry
                .store()
                .get("")
                .ok()
                .and_then(|(_, now)| self.registry.store().watch("/", now.next()).ok());
            return thread::sleep(limit.min(SOON));
        };
        let heard = watch.next_within(limit);
        // All that waits is seen in one step.
        while matches!(watch.next_within(Duration::ZERO), Ok(Some(_))) {}
        if heard.is_err() {
            self.watch = None;
        }
    }

    /// Makes a step; whether the next one is to be soon.
    fn step(&mut self) -> bool {
        let begin = Instant::now();
        let report = self.reconciler.step(Timestamp::now());
        if let Err(error) = self.scaler.step(Timestamp::now()) {
            tracing::error!(error = %errchain::Chain(&error), "a step of scale sets was cut off");
        }
        self.metrics.step(report.as_ref().ok(), begin.elapsed());
        match report {
            Ok(report) => {
                for Refusal { of, action, why } in &report.refused {
                    tracing::warn!(of, action, why, "the host refuses");
                }
                if report.strays.len() != self.strays {
                    self.strays = report.strays.len();
                    let strays = &report.strays;
                    tracing::warn!(?strays, "VMs that the state does not know are left alone");
                }
                report.is_unsettled
            }
            Err(error) => {
                tracing::error!(error = %errchain::Chain(&error), "a step was cut off");
                false
            }
        }
    }

    fn clean(&self) -> Result<(), registry::RegistryError> {
        let now = Timestamp::now();
        self.registry.forget_operations(now)?;
        self.registry.forget_audit(now)?;
        let (_, revision) = self.registry.store().get("/")?;
        let old = Revision(revision.0.saturating_sub(HISTORY));
        if old > Revision::NONE {
            match self.registry.store().compact(old) {
                // Nothing has changed since.
                Err(store::StoreError::Compacted { .. }) => {}
                compacted => compacted?,
            }
        }
        Ok(())
    }
}
