//! Snapshots of disks.

use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use model::{Labels, Name, Operation, Snapshot, SnapshotSpec};
use registry::New;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::extract::{Asking, Body, Params, Path};
use crate::list::{ListParams, Page};
use crate::objects::{self, OfProject, ProjectParams, Visible};
use crate::{Problem, Shared};

/// A snapshot that is asked for.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewSnapshot {
    /// What it is to be called.
    name: Name,
    /// The VM whose disks it is of.
    #[serde(default)]
    vm: Option<Name>,
    /// Of which disks; of all that the VM has, if none is named.
    #[serde(default)]
    disks: Vec<Name>,
    /// What its owner notes down.
    #[serde(default)]
    labels: Labels,
}

/// A snapshot that is being taken.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct SnapshotCreated {
    /// It.
    snapshot: Snapshot,
    /// What reports on it.
    operation: Operation,
}

/// The snapshots there are
#[utoipa::path(get, path = "/v1/snapshots", tag = "snapshots", params(OfProject, ListParams), responses(
    (status = 200, description = "A page of snapshots, the oldest first", body = Page<Snapshot>),
))]
pub(crate) async fn list(
    State(state): Shared,
    of: Visible,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<Snapshot>>, Problem> {
    objects::list(state, of, params).await
}

/// Take a snapshot of a VM's disks, or of some: all at one moment, with file systems at rest if the guest's agent answers
#[utoipa::path(post, path = "/v1/snapshots", tag = "snapshots", params(
    ProjectParams,
    ("Idempotency-Key" = Option<String>, Header, description = "Asked again with it within a day, nothing is done again"),
), request_body = NewSnapshot, responses(
    (status = 202, description = "It is being taken", body = SnapshotCreated),
))]
pub(crate) async fn create(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    asking: Asking,
    Body(NewSnapshot { name, vm, disks, labels }): Body<NewSnapshot>,
) -> Result<impl IntoResponse, Problem> {
    let create = move |state: &crate::State| {
        let spec = SnapshotSpec { disks, disk_ids: Vec::new(), vm, labels };
        let new = New { name, project: of.project, spec };
        Ok(state.registry.create_snapshot(new, &asking.asked)?)
    };
    objects::create(state, create, |snapshot, operation| SnapshotCreated { snapshot, operation })
        .await
}

/// A snapshot
#[utoipa::path(get, path = "/v1/snapshots/{snapshot}", tag = "snapshots", params(
    ProjectParams, ("snapshot" = String, Path, description = "Its name or ID"),
), responses(
    (status = 200, description = "It; its ETag is its spec's", body = Snapshot),
))]
pub(crate) async fn get(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Path(snapshot): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    objects::get::<Snapshot>(state, of, snapshot).await
}

/// Make the disks of a VM that is off what they were. What was written since is gone
#[utoipa::path(post, path = "/v1/snapshots/{snapshot}/revert", tag = "snapshots", params(
    ProjectParams, ("snapshot" = String, Path, description = "Its name or ID"),
), responses(
    (status = 202, description = "It is being done", body = Operation),
))]
pub(crate) async fn revert(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Path(snapshot): Path<String>,
    asking: Asking,
) -> Result<impl IntoResponse, Problem> {
    objects::change(state, move |state| {
        Ok(state.registry.revert(&of.project, &snapshot, &asking.asked)?)
    })
    .await
}

/// Delete a snapshot; its disks stay as they are
#[utoipa::path(delete, path = "/v1/snapshots/{snapshot}", tag = "snapshots", params(
    ProjectParams, ("snapshot" = String, Path, description = "Its name or ID"),
), responses(
    (status = 202, description = "It is going away", body = Operation),
))]
pub(crate) async fn delete(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Path(snapshot): Path<String>,
    asking: Asking,
) -> Result<impl IntoResponse, Problem> {
    objects::change(state, move |state| {
        Ok(state.registry.delete_snapshot(&of.project, &snapshot, &asking.asked)?)
    })
    .await
}
