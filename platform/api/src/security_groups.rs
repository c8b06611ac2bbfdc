//! Security groups.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use model::{Name, SecurityGroup, SecurityGroupSpec};
use registry::New;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::access::blocking;
use crate::extract::{Asking, Body, IfMatch, Params, Path, etag};
use crate::list::{ListParams, Page};
use crate::objects::{self, OfProject, ProjectParams, Visible, Which};
use crate::{Problem, Shared};

/// A security group that is asked for.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewSecurityGroupBody {
    /// What it is to be called.
    name: Name,
    /// What is wanted of it.
    #[serde(default)]
    spec: SecurityGroupSpec,
}

/// The security groups there are
#[utoipa::path(get, path = "/v1/security-groups", tag = "security-groups", params(OfProject, ListParams), responses(
    (status = 200, description = "A page of them, the oldest first", body = Page<SecurityGroup>),
))]
pub(crate) async fn list(
    State(state): Shared,
    of: Visible,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<SecurityGroup>>, Problem> {
    objects::list(state, of, params).await
}

/// Make a security group
#[utoipa::path(post, path = "/v1/security-groups", tag = "security-groups", params(
    ProjectParams,
    ("Idempotency-Key" = Option<String>, Header, description = "Asked again with it within a day, nothing is done again"),
), request_body = NewSecurityGroupBody, responses(
    (status = 201, description = "It is there", body = SecurityGroup),
))]
pub(crate) async fn create(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    asking: Asking,
    Body(body): Body<NewSecurityGroupBody>,
) -> Result<impl IntoResponse, Problem> {
    blocking(move || {
        let new = New { name: body.name, project: of.project, spec: body.spec };
        let kept = state.registry.create_security_group(new, &asking.asked)?;
        Ok((StatusCode::CREATED, etag(kept.revision), Json(kept.object)))
    })
    .await
}

/// A security group
#[utoipa::path(get, path = "/v1/security-groups/{group}", tag = "security-groups", params(
    ProjectParams, ("group" = String, Path, description = "Its name or ID"),
), responses(
    (status = 200, description = "It", body = SecurityGroup),
))]
pub(crate) async fn get(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Path(group): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    objects::get::<SecurityGroup>(state, of, group).await
}

/// Change a security group's rules, by a merge patch; they hold for running VMs at once
#[utoipa::path(patch, path = "/v1/security-groups/{group}", tag = "security-groups", params(
    ProjectParams, ("group" = String, Path, description = "Its name or ID"),
    ("If-Match" = Option<String>, Header, description = "The ETag that it must have"),
), request_body(content = Object, description = "As `{\"spec\": {\"rules\": []}}`: all rules, in place of those there are"),
responses(
    (status = 200, description = "The group with the new rules", body = SecurityGroup),
))]
pub(crate) async fn patch(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Path(group): Path<String>,
    IfMatch(revision): IfMatch,
    Body(patch): Body<Value>,
) -> Result<impl IntoResponse, Problem> {
    let which = Which { of, name: group, revision };
    objects::patch::<SecurityGroup>(state, which, patch, |_| Ok(())).await
}

/// Delete a security group that nobody names
#[utoipa::path(delete, path = "/v1/security-groups/{group}", tag = "security-groups", params(
    ProjectParams, ("group" = String, Path, description = "Its name or ID"),
    ("If-Match" = Option<String>, Header, description = "The ETag that it must have"),
), responses(
    (status = 204, description = "It is gone"),
))]
pub(crate) async fn delete(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Path(group): Path<String>,
    IfMatch(revision): IfMatch,
) -> Result<StatusCode, Problem> {
    let of = of.project;
    blocking(move || Ok(state.registry.delete_security_group(&of, &group, revision)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}
