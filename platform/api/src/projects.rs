//! Projects.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use model::{Name, Project};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::access::blocking;
use crate::extract::{Asking, Body, Params, Path};
use crate::list::{ListParams, Page};
use crate::{Problem, Shared};

/// A project that is asked for.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewProject {
    /// What it is to be called.
    name: Name,
}

/// The projects there are
#[utoipa::path(get, path = "/v1/projects", tag = "projects", params(ListParams), responses(
    (status = 200, description = "A page of them, by name", body = Page<Project>),
    (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn list(
    State(state): Shared,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<Project>>, Problem> {
    blocking(move || {
        let (all, revision) = state.registry.projects(params.begin()?.0)?;
        params.page(all.into_iter().map(|kept| kept.object).collect(), revision).map(Json)
    })
    .await
}

/// Make a project
#[utoipa::path(post, path = "/v1/projects", tag = "projects", request_body = NewProject, responses(
    (status = 201, description = "It is there", body = Project),
    (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn create(
    State(state): Shared,
    asking: Asking,
    Body(new): Body<NewProject>,
) -> Result<(StatusCode, Json<Project>), Problem> {
    blocking(move || {
        let project = state.registry.create_project(new.name, asking.asked.at)?;
        Ok((StatusCode::CREATED, Json(project)))
    })
    .await
}

/// Delete an empty project
#[utoipa::path(delete, path = "/v1/projects/{project}", tag = "projects", params(
    ("project" = String, Path, description = "Its name"),
), responses(
    (status = 204, description = "It is gone"),
    (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn delete(
    State(state): Shared,
    Path(name): Path<Name>,
) -> Result<StatusCode, Problem> {
    blocking(move || Ok(state.registry.delete_project(&name)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}
