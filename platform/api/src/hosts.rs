//! The host that the daemon runs on.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::sse::{Event, Sse};
use futures_util::StreamExt;
use futures_util::stream::{self, Stream};
use host::{Facts, Load};
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};
use utoipa::ToSchema;

use crate::Shared;
use crate::alive::gone;
use crate::extract::Asking;

/// How often it is told how busy it is.
const EVERY: Duration = Duration::from_secs(2);

/// What kind of host this is.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct HostView {
    /// Its name.
    name: String,
    /// Its kernel and that's version.
    kernel: String,
    /// The model of its CPUs.
    cpu_model: String,
    /// CPUs that VMs can run on.
    cpus: u32,
    /// RAM in bytes.
    memory_bytes: u64,
}

/// How busy the host is. The data of each event.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct HostUsage {
    /// When.
    #[schema(format = DateTime)]
    at: String,
    /// Time that all its CPUs together have worked, in milliseconds.
    cpu_ms: u64,
    /// RAM in use, in bytes.
    memory_used_bytes: u64,
}

/// This host
#[utoipa::path(get, path = "/v1/host", tag = "host", responses(
    (status = 200, description = "What kind of host it is", body = HostView),
))]
pub(crate) async fn get() -> Json<HostView> {
    let Facts { name, kernel, cpu_model, cpus, memory_bytes } = Facts::of_this_host();
    Json(HostView { name, kernel, cpu_model, cpus, memory_bytes })
}

/// How busy this host is, every two seconds, as server-sent events
#[utoipa::path(get, path = "/v1/host/usage", tag = "host", responses(
    (status = 200, description = "Events", content_type = "text/event-stream", body = HostUsage),
))]
pub(crate) async fn usage(
    State(state): Shared,
    asking: Asking,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let mut every = interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let loads = stream::unfold(every, |mut every| async move {
        every.tick().await;
        let Load { cpu_ms, memory_used_bytes } = Load::of_this_host();
        let view = HostUsage { at: Timestamp::now().to_string(), cpu_ms, memory_used_bytes };
        Some((Ok(Event::default().json_data(view).ok()?), every))
    });
    Sse::new(loads.take_until(gone(state, asking.caller)))
}
