//! Numbers, for Prometheus.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::Method;
use model::Phase;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use reconcile::Report;

/// A reconciler that has not made a step for so long does not work.
const STEP_LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: String,
    path: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    phase: &'static str,
}

/// The daemon's numbers.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Histogram,
    vms: Family<PhaseLabels, Gauge>,
    operations: Gauge,
    strays: Gauge,
    steps: Counter,
    steps_failed: Counter,
    step_seconds: Histogram,
    last_step: Mutex<Instant>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn seconds() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0])
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("trine");
        let requests = Family::default();
        registry.register("api_requests", "Requests that were answered", requests.clone());
        let request_seconds = seconds();
        let help = "Time to the beginning of an answer";
        registry.register_with_unit(
            "api_request_duration",
            help,
            Unit::Seconds,
            request_seconds.clone(),
        );
        let vms = Family::default();
        registry.register("vms", "VMs by phase", vms.clone());
        let operations = Gauge::default();
        registry.register("operations_running", "Operations not yet over", operations.clone());
        let strays = Gauge::default();
        let help = "VMs on the host that the store does not know";
        registry.register("vms_stray", help, strays.clone());
        let steps = Counter::default();
        registry.register("reconcile_steps", "Steps of the reconciler", steps.clone());
        let steps_failed = Counter::default();
        let help = "Steps of the reconciler that were cut off by an error";
        registry.register("reconcile_steps_failed", help, steps_failed.clone());
        let step_seconds = seconds();
        let help = "Time of a step of the reconciler";
        registry.register_with_unit(
            "reconcile_step_duration",
            help,
            Unit::Seconds,
            step_seconds.clone(),
        );
        Self {
            registry,
            requests,
            request_seconds,
            vms,
            operations,
            strays,
            steps,
            steps_failed,
            step_seconds,
            last_step: Mutex::new(Instant::now()),
        }
    }

    pub(crate) fn request(&self, method: &Method, path: &str, status: u16, took: Duration) {
        let labels = RequestLabels { method: method.to_string(), path: path.to_owned(), status };
        self.requests.get_or_create(&labels).inc();
        self.request_seconds.observe(took.as_secs_f64());
    }

    /// A step was made, or failed.
    pub fn step(&self, report: Option<&Report>, took: Duration) {
        self.steps.inc();
        self.step_seconds.observe(took.as_secs_f64());
        let Some(report) = report else {
            self.steps_failed.inc();
            return;
        };
        *self.last_step.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        for phase in Phase::ALL {
            let count = report.phases.get(&phase).copied().unwrap_or(0);
            let gauge = self.vms.get_or_create(&PhaseLabels { phase: phase.as_str() });
            gauge.set(count.cast_signed());
        }
        self.operations.set(report.operations.cast_signed());
        self.strays.set(report.strays.len() as i64);
    }

    pub(crate) fn is_stepping(&self) -> bool {
        self.last_step.lock().unwrap_or_else(PoisonError::into_inner).elapsed() < STEP_LIMIT
    }

    /// All of them, as OpenMetrics text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // A string takes all there is to write.
        let _ = encode(&mut text, &self.registry);
        text
    }

    /// The same in the older format (text 0.0.4), in which a counter's help and type are of its whole name.
    pub fn plain(&self) -> String {
        let text = self.text();
        let counters: BTreeSet<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter"))
            .collect();
        let mut plain = String::with_capacity(text.len());
        for line in text.lines() {
            let mut words = line.splitn(4, ' ');
            match (words.next(), words.next(), words.next(), words.next()) {
                (Some("#"), Some(what @ ("HELP" | "TYPE")), Some(name), Some(rest)) => {
                    let total = if counters.contains(name) { "_total" } else { "" };
                    plain.push_str(&format!("# {what} {name}{total} {rest}\n"));
                }
                (Some("#"), ..) => {}
                _ => {
                    plain.push_str(line);
                    plain.push('\n');
                }
            }
        }
        plain
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn promtool_finds_nothing_to_say_about_the_metrics() {
        let metrics = Metrics::new();
        metrics.request(&Method::GET, "/v1/vms", 200, Duration::from_millis(3));
        metrics.step(Some(&Report::default()), Duration::from_millis(1));
        let mut promtool = Command::new("promtool")
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("promtool is there: apt-get install prometheus");
        promtool.stdin.take().unwrap().write_all(metrics.plain().as_bytes()).unwrap();
        let said = promtool.wait_with_output().unwrap();
        let words = [said.stdout, said.stderr].concat();
        assert!(said.status.success() && words.is_empty(), "{}", String::from_utf8_lossy(&words));
        assert!(metrics.plain().contains("trine_api_requests_total{"));
    }
}
