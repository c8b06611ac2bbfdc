//! What changes, as it does: server-sent events, or a WebSocket.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::ws::{Message, WebSocket};
use axum::response::Response;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::StreamExt;
use futures_util::stream::{self, Stream};
use model::{
    Disk, Kind, Name, Role, ScaleSet, SecurityGroup, Snapshot, SshKey, VirtualNetwork, Vm,
};
use registry::{Mirrored, RegistryError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{Batch, Change, Range, Revision};
use utoipa::{IntoParams, ToSchema};

use crate::access::blocking;
use crate::alive::gone;
use crate::extract::{Asking, Params};
use crate::objects::Visible;
use crate::sockets::{Upgrade, upgrade};
use crate::{Caller, Problem, Shared};

/// Proxies close what is silent for a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// From when on.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct WatchParams {
    /// The first revision: one after a list's, or after that of the last event; without it, the next.
    from: Option<u64>,
    /// Only what is in this project.
    #[param(value_type = Option<String>)]
    project: Option<Name>,
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

/// Changes from a revision on, of what the caller may see, until they may no more.
async fn changes(
    state: Arc<crate::State>,
    params: WatchParams,
    caller: Caller,
) -> Result<impl Stream<Item = ChangeView>, Problem> {
    if let Some(project) = &params.project {
        caller.need(Role::Viewer, project)?;
    }
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
    let gone = gone(state.clone(), caller.clone());
    let sight = Arc::new(Visible { rights: caller.rights, of: params.project });
    let batches = stream::unfold((state, watch), move |(state, mut watch)| {
        let sight = sight.clone();
        async move {
            let batch = poll_fn(|context| watch.poll(context)).await.ok()?;
            let of = state.clone();
            let changes = blocking(move || views(&of, &batch, &sight)).await.ok()?;
            Some((stream::iter(changes), (state, watch)))
        }
    });
    Ok(batches.flatten().take_until(gone))
}

/// Changes from a revision on, as server-sent events
///
/// Each event's `id` is its revision. A reader that is too slow is hung up on, and goes on from the next
/// one; so is one whose token or session is over, or whose roles have changed. Of a revision that is compacted,
/// nothing is told: read lists anew.
#[utoipa::path(get, path = "/v1/watch", tag = "watch", params(WatchParams), responses(
    (status = 200, description = "Events", content_type = "text/event-stream", body = ChangeView),
))]
pub(crate) async fn watch(
    State(state): Shared,
    Params(params): Params<WatchParams>,
    asking: Asking,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let changes = changes(state, params, asking.caller).await?;
    let events = changes.filter_map(|change| std::future::ready(event(&change).map(Ok)));
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// Changes from a revision on, as a WebSocket
///
/// Each message is a change, as the data of the events of `/v1/watch`. What is sent there is not read.
#[utoipa::path(get, path = "/v1/watch/socket", tag = "watch", params(WatchParams), responses(
    (status = 101, description = "A WebSocket"),
))]
pub(crate) async fn socket(
    State(state): Shared,
    Params(params): Params<WatchParams>,
    asking: Asking,
    socket: Upgrade,
) -> Result<Response, Problem> {
    let socket = upgrade(socket)?.max_message_size(1024);
    let changes = changes(state, params, asking.caller).await?;
    Ok(socket.on_upgrade(move |socket| async move {
        let _ = tell(socket, changes).await;
    }))
}

async fn tell(
    mut socket: WebSocket,
    changes: impl Stream<Item = ChangeView>,
) -> Result<(), axum::Error> {
    let mut changes = std::pin::pin!(changes);
    let mut alive = tokio::time::interval(KEEP_ALIVE);
    loop {
        tokio::select! {
            change = changes.next() => match change {
                Some(change) => {
                    let text = serde_json::to_string(&change).map_err(axum::Error::new)?;
                    socket.send(Message::Text(text.into())).await?;
                }
                None => return Ok(()),
            },
            said = socket.recv() => match said.transpose()? {
                Some(Message::Close(_)) | None => return Ok(()),
                Some(_) => {}
            },
            _ = alive.tick() => socket.send(Message::Ping(Bytes::new())).await?,
        }
    }
}

/// The project of something that was written at a revision.
fn project_at(state: &crate::State, kind: Kind, id: &str, at: Revision) -> Option<Name> {
    if kind == Kind::Project {
        return id.parse().ok();
    }
    let prefix = match kind {
        Kind::Operation => format!("/operations/{id}"),
        kind => format!("/{}/{id}/meta", kind.plural()),
    };
    let range = Range { at: Some(at), limit: Some(1), ..Range::prefix(prefix) };
    let page = state.registry.store().range(&range).ok()?;
    let value: Value = serde_json::from_slice(&page.entries.first()?.value).ok()?;
    let project = value.get("target").unwrap_or(&value).get("project")?;
    project.as_str()?.parse().ok()
}

fn event(change: &ChangeView) -> Option<Event> {
    Event::default().id(change.revision.to_string()).json_data(change).ok()
}

/// What a transaction changed, of what people may see: an object once, however many parts of it.
fn views(
    state: &Arc<crate::State>,
    batch: &Batch,
    sight: &Visible,
) -> Result<Vec<ChangeView>, Problem> {
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
        if !sight.has_all() {
            let at = match change {
                Change::Put(_) => batch.revision,
                Change::Delete(_) => Revision(batch.revision.0.saturating_sub(1)),
            };
            // Of what is long gone, nobody knows any more whose it was.
            if !project_at(state, kind, id, at).is_some_and(|project| sight.has(&project)) {
                continue;
            }
        }
        let object = match (kind, change) {
            (Kind::Vm, _) => whole::<Vm>(state, id)?,
            (Kind::Network, _) => whole::<VirtualNetwork>(state, id)?,
            (Kind::SecurityGroup, _) => whole::<SecurityGroup>(state, id)?,
            (Kind::ScaleSet, _) => whole::<ScaleSet>(state, id)?,
            (Kind::Disk, _) => whole::<Disk>(state, id)?,
            (Kind::Snapshot, _) => whole::<Snapshot>(state, id)?,
            (Kind::SshKey, _) => whole::<SshKey>(state, id)?,
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
