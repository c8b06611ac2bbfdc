//! What changes, as it does: server-sent events.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::{self, Stream};
use model::{Disk, Kind, ScaleSet, SecurityGroup, Snapshot, VirtualNetwork, Vm};
use registry::{Mirrored, RegistryError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{Batch, Change, Revision};
use utoipa::{IntoParams, ToSchema};

use crate::access::blocking;
use crate::extract::Params;
use crate::{Problem, Shared};

/// Proxies close what is silent for a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// From when on.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct WatchParams {
    /// The first revision: one after a list's, or after that of the last event; without it, the next.
    from: Option<u64>,
}

/// A change. The data of each event.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ChangeView {
    /// When.
    revision: u64,
    /// Of what kind.
    kind: Kind,
    /// Its ID, or a project's name.
    id: String,
    /// The object after the change, or after a later one; `null` when it is gone.
    object: Option<Value>,
}

/// Changes from a revision on, as server-sent events
///
/// Each event's `id` is its revision. A reader that is too slow is hung up on, and goes on from the next
/// one. Of a revision that is compacted, nothing is told: read lists anew.
#[utoipa::path(get, path = "/v1/watch", tag = "watch", params(WatchParams), responses(
    (status = 200, description = "Events", content_type = "text/event-stream", body = ChangeView),
    (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn watch(
    State(state): Shared,
    Params(params): Params<WatchParams>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let of = state.clone();
    let watch = blocking(move || {
        let store = of.registry.store();
        let from = match params.from {
            Some(from) => Revision(from),
            None => store.get("").map_err(RegistryError::from)?.1.next(),
        };
        Ok(store.watch("/", from).map_err(RegistryError::from)?)
    })
    .await?;
    let batches = stream::unfold((state, watch), |(state, mut watch)| async move {
        let batch = poll_fn(|context| watch.poll(context)).await.ok()?;
        let of = state.clone();
        let changes = blocking(move || views(&of, &batch)).await.ok()?;
        let events: Vec<_> = changes.iter().filter_map(event).map(Ok).collect();
        Some((stream::iter(events), (state, watch)))
    });
    use futures_util::StreamExt;
    Ok(Sse::new(batches.flatten()).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

fn event(change: &ChangeView) -> Option<Event> {
    Event::default().id(change.revision.to_string()).json_data(change).ok()
}

/// What a transaction changed, of what people may see: an object once, however many parts of it.
fn views(state: &Arc<crate::State>, batch: &Batch) -> Result<Vec<ChangeView>, Problem> {
    let mut views: Vec<ChangeView> = Vec::new();
    for change in &batch.changes {
        let mut parts = change.key().splitn(4, '/').skip(1);
        let (Some(kind), Some(id)) = (parts.next(), parts.next()) else { continue };
        let Some(kind) = Kind::ALL.into_iter().find(|known| known.plural() == kind) else {
            continue;
        };
        if views.iter().any(|view| view.kind == kind && view.id == id) {
            continue;
        }
        let object = match (kind, change) {
            (Kind::Vm, _) => whole::<Vm>(state, id)?,
            (Kind::Network, _) => whole::<VirtualNetwork>(state, id)?,
            (Kind::SecurityGroup, _) => whole::<SecurityGroup>(state, id)?,
            (Kind::ScaleSet, _) => whole::<ScaleSet>(state, id)?,
            (Kind::Disk, _) => whole::<Disk>(state, id)?,
            (Kind::Snapshot, _) => whole::<Snapshot>(state, id)?,
            (Kind::Image, _) => continue,
            (Kind::Operation | Kind::Project, Change::Put(entry)) => {
                let read = serde_json::from_slice(&entry.value);
                Some(read.map_err(|error| Problem::internal(&error))?)
            }
            (Kind::Operation | Kind::Project, Change::Delete(_)) => None,
        };
        let (revision, id) = (batch.revision.0, id.to_owned());
        views.push(ChangeView { revision, kind, id, object });
    }
    Ok(views)
}

/// An object that has parts; `None` when it is gone.
fn whole<O: Mirrored>(state: &Arc<crate::State>, id: &str) -> Result<Option<Value>, Problem> {
    let Ok(id) = id.parse() else { return Ok(None) };
    let found = state.registry.by_id::<O>(id)?;
    let value = found.map(serde_json::to_value).transpose();
    value.map_err(|error| Problem::internal(&error))
}
