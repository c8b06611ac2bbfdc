//! Scale sets.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use model::{Name, ScaleSet, ScaleSetSpec};
use registry::New;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::access::blocking;
use crate::extract::{Asking, Body, IfMatch, Params, Path, etag};
use crate::list::{ListParams, Page};
use crate::objects::{self, OfProject, ProjectParams, Visible, Which};
use crate::vms::check_files;
use crate::{Problem, Shared};

/// A scale set that is asked for.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewScaleSetBody {
    /// What it is to be called; its VMs are called so, with a number.
    name: Name,
    /// What is wanted of it.
    spec: ScaleSetSpec,
}

/// The scale sets there are
#[utoipa::path(get, path = "/v1/scale-sets", tag = "scale-sets", params(OfProject, ListParams), responses(
    (status = 200, description = "A page of them, the oldest first", body = Page<ScaleSet>),
))]
pub(crate) async fn list(
    State(state): Shared,
    of: Visible,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<ScaleSet>>, Problem> {
    objects::list(state, of, params).await
}

/// Make a scale set: as many VMs of a template as are wanted, or as their load asks for
#[utoipa::path(post, path = "/v1/scale-sets", tag = "scale-sets", params(
    ProjectParams,
    ("Idempotency-Key" = Option<String>, Header, description = "Asked again with it within a day, nothing is done again"),
), request_body = NewScaleSetBody, responses(
    (status = 201, description = "It is there, and its VMs come", body = ScaleSet),
))]
pub(crate) async fn create(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    asking: Asking,
    Body(body): Body<NewScaleSetBody>,
) -> Result<impl IntoResponse, Problem> {
    check_files(&body.spec.template, &asking.caller)?;
    blocking(move || {
        let new = New { name: body.name, project: of.project, spec: body.spec };
        let kept = state.registry.create_scale_set(new, &asking.asked)?;
        Ok((StatusCode::CREATED, etag(kept.revision), Json(kept.object)))
    })
    .await
}

/// A scale set
#[utoipa::path(get, path = "/v1/scale-sets/{set}", tag = "scale-sets", params(
    ProjectParams, ("set" = String, Path, description = "Its name or ID"),
), responses(
    (status = 200, description = "It", body = ScaleSet),
))]
pub(crate) async fn get(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Path(set): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    objects::get::<ScaleSet>(state, of, set).await
}

/// Change a scale set, by a merge patch; VMs of another template are replaced, some at a time
#[utoipa::path(patch, path = "/v1/scale-sets/{set}", tag = "scale-sets", params(
    ProjectParams, ("set" = String, Path, description = "Its name or ID"),
    ("If-Match" = Option<String>, Header, description = "The ETag that it must have"),
), request_body(content = Object, description = "As `{\"spec\": {\"size\": 5}}`"),
responses(
    (status = 200, description = "The set with the new spec", body = ScaleSet),
))]
pub(crate) async fn patch(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Path(set): Path<String>,
    IfMatch(revision): IfMatch,
    asking: Asking,
    Body(patch): Body<Value>,
) -> Result<impl IntoResponse, Problem> {
    let (registry, project) = (state.registry.clone(), of.project.clone());
    let check = move |spec: &ScaleSetSpec| {
        check_files(&spec.template, &asking.caller)?;
        Ok(registry.check_cards(&spec.template, &project, None)?)
    };
    objects::patch::<ScaleSet>(state, Which { of, name: set, revision }, patch, check).await
}

/// Delete a scale set and its VMs
#[utoipa::path(delete, path = "/v1/scale-sets/{set}", tag = "scale-sets", params(
    ProjectParams, ("set" = String, Path, description = "Its name or ID"),
    ("If-Match" = Option<String>, Header, description = "The ETag that it must have"),
), responses(
    (status = 202, description = "It is going away: it is gone when its last VM is", body = ScaleSet),
))]
pub(crate) async fn delete(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Path(set): Path<String>,
    IfMatch(revision): IfMatch,
) -> Result<impl IntoResponse, Problem> {
    blocking(move || {
        let kept = state.registry.delete_scale_set(&of.project, &set, revision)?;
        Ok((StatusCode::ACCEPTED, Json(kept.object)))
    })
    .await
}
