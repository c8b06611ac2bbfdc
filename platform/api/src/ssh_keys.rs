//! Public keys for SSH: VMs are made with them, by name.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use model::{Name, SshKey, SshKeySpec};
use registry::New;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::access::blocking;
use crate::extract::{Asking, Body, IfMatch, Params, Path, etag};
use crate::list::{ListParams, Page};
use crate::objects::{self, OfProject, ProjectParams, Visible, Which};
use crate::{Problem, Shared};

/// A key that is to be known.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewSshKey {
    /// What it is to be called.
    name: Name,
    /// What it is.
    spec: SshKeySpec,
}

/// The SSH keys there are
#[utoipa::path(get, path = "/v1/ssh-keys", tag = "ssh-keys", params(OfProject, ListParams), responses(
    (status = 200, description = "A page of them, the oldest first", body = Page<SshKey>),
))]
pub(crate) async fn list(
    State(state): Shared,
    of: Visible,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<SshKey>>, Problem> {
    objects::list(state, of, params).await
}

/// Make an SSH key known: VMs are made with it by `cloud_init.keys`
#[utoipa::path(post, path = "/v1/ssh-keys", tag = "ssh-keys", params(
    ProjectParams,
    ("Idempotency-Key" = Option<String>, Header, description = "Asked again with it within a day, nothing is done again"),
), request_body = NewSshKey, responses(
    (status = 201, description = "It is known", body = SshKey),
))]
pub(crate) async fn create(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    asking: Asking,
    Body(NewSshKey { name, spec }): Body<NewSshKey>,
) -> Result<impl IntoResponse, Problem> {
    blocking(move || {
        let new = New { name, project: of.project, spec };
        let kept = state.registry.create_ssh_key(new, &asking.asked)?;
        Ok((StatusCode::CREATED, etag(kept.revision), Json(kept.object)))
    })
    .await
}

/// An SSH key
#[utoipa::path(get, path = "/v1/ssh-keys/{key}", tag = "ssh-keys", params(
    ProjectParams, ("key" = String, Path, description = "Its name or ID"),
), responses(
    (status = 200, description = "It", body = SshKey),
))]
pub(crate) async fn get(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Path(key): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    objects::get::<SshKey>(state, of, key).await
}

/// Change what is noted down about an SSH key, by a merge patch
#[utoipa::path(patch, path = "/v1/ssh-keys/{key}", tag = "ssh-keys", params(
    ProjectParams, ("key" = String, Path, description = "Its name or ID"),
    ("If-Match" = Option<String>, Header, description = "The ETag that it must have"),
), request_body(content = Object, description = "As `{\"spec\": {\"labels\": {}}}`"), responses(
    (status = 200, description = "It, as it is now", body = SshKey),
))]
pub(crate) async fn patch(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Path(key): Path<String>,
    IfMatch(revision): IfMatch,
    Body(patch): Body<Value>,
) -> Result<impl IntoResponse, Problem> {
    objects::patch::<SshKey>(state, Which { of, name: key, revision }, patch, |_| Ok(())).await
}

/// Forget an SSH key; VMs that were made with it have it all the same
#[utoipa::path(delete, path = "/v1/ssh-keys/{key}", tag = "ssh-keys", params(
    ProjectParams, ("key" = String, Path, description = "Its name or ID"),
    ("If-Match" = Option<String>, Header, description = "The ETag that it must have"),
), responses(
    (status = 204, description = "It is gone"),
))]
pub(crate) async fn delete(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Path(key): Path<String>,
    IfMatch(revision): IfMatch,
) -> Result<StatusCode, Problem> {
    blocking(move || Ok(state.registry.delete_ssh_key(&of.project, &key, revision)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}
