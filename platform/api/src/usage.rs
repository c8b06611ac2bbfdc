//! What a VM takes of its host.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, Sse};
use futures_util::StreamExt;
use futures_util::stream::{self, Stream};
use jiff::Timestamp;
use model::{Vm, VmId};
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};
use utoipa::ToSchema;

use crate::access::blocking;
use crate::alive::gone;
use crate::extract::{Asking, Params, Path};
use crate::objects::ProjectParams;
use crate::{Problem, Shared};

/// How often it is told.
const EVERY: Duration = Duration::from_secs(1);

/// What a VM's process has taken so far. The data of each event.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct UsageView {
    /// When.
    #[schema(format = DateTime)]
    at: String,
    /// It runs; without that, the rest is zero.
    is_running: bool,
    /// Time of the host's CPUs since its start, in milliseconds.
    cpu_ms: u64,
    /// Memory that is its now, in bytes.
    memory_bytes: u64,
    /// Bytes read from the host's disks since its start.
    read_bytes: u64,
    /// Bytes written to them.
    written_bytes: u64,
}

/// What a VM takes of its host, every second, as server-sent events
#[utoipa::path(get, path = "/v1/vms/{vm}/usage", tag = "vms", params(
    ProjectParams, ("vm" = String, Path, description = "Its name or ID"),
), responses(
    (status = 200, description = "Events", content_type = "text/event-stream", body = UsageView),
))]
pub(crate) async fn usage(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Path(vm): Path<String>,
    asking: Asking,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let registry = state.registry.clone();
    let id = blocking(move || Ok(registry.get::<Vm>(&of.project, &vm)?.object.meta.id)).await?;
    let mut every = interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let gone = gone(state.clone(), asking.caller);
    let events = stream::unfold((state, every), move |(state, mut every)| async move {
        every.tick().await;
        let view = view(&state, id).await?;
        let event = Event::default().json_data(view).ok()?;
        Some((Ok(event), (state, every)))
    });
    Ok(Sse::new(events.take_until(gone)))
}

/// `None` once there is no such VM.
async fn view(state: &Arc<crate::State>, id: VmId) -> Option<UsageView> {
    let of = state.clone();
    let look = move || {
        let is_there = of.registry.by_id::<Vm>(id)?.is_some();
        Ok(is_there.then(|| of.guests.usage(id)))
    };
    let usage = blocking(look).await.ok()??;
    let is_running = usage.is_some();
    let usage = usage.unwrap_or_default();
    Some(UsageView {
        at: Timestamp::now().to_string(),
        is_running,
        cpu_ms: usage.cpu_ms,
        memory_bytes: usage.memory_bytes,
        read_bytes: usage.read_bytes,
        written_bytes: usage.written_bytes,
    })
}
