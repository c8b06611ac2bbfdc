//! Projects, their quotas, and who may do what in them.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use model::{Name, Project, ProjectStatus, Quota, Role};
use registry::{Kept, RegistryError};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use crate::access::blocking;
use crate::extract::{Asking, Body, IfMatch, Params, Path, etag};
use crate::list::{ListParams, Page};
use crate::objects::merge;
use crate::{Problem, Shared};

/// A project that is asked for.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewProject {
    /// What it is to be called.
    name: Name,
    /// How much all that is in it may take together.
    #[serde(default)]
    quota: Quota,
}

/// What of a project can change.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProjectPatch {
    /// How much all that is in it may take: a merge patch, in which `null` takes a limit away.
    #[schema(value_type = Quota)]
    quota: Value,
}

/// A project, and how it is.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ProjectView {
    #[serde(flatten)]
    project: Project,
    /// How it is.
    status: ProjectStatus,
}

/// Somebody with a role in a project.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Member {
    /// Who.
    user: Name,
    /// What they may do there.
    role: Role,
}

/// The role that somebody is to have.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MemberRole {
    /// What they may do there.
    role: Role,
}

fn view(state: &crate::State, project: Project) -> Result<ProjectView, Problem> {
    let used = state.registry.used(&project.name)?;
    Ok(ProjectView { project, status: ProjectStatus { used } })
}

/// The projects that the caller may see
#[utoipa::path(get, path = "/v1/projects", tag = "projects", params(ListParams), responses(
    (status = 200, description = "A page of them, by name", body = Page<ProjectView>),
))]
pub(crate) async fn list(
    State(state): Shared,
    Params(params): Params<ListParams>,
    asking: Asking,
) -> Result<Json<Page<ProjectView>>, Problem> {
    blocking(move || {
        let (all, revision) = state.registry.projects(params.begin()?.0)?;
        let all = all.into_iter().map(|kept| kept.object);
        let seen = all.filter(|of| asking.caller.need(Role::Viewer, &of.name).is_ok());
        let views = seen.map(|of| view(&state, of)).collect::<Result<_, _>>()?;
        params.page(views, revision).map(Json)
    })
    .await
}

/// Make a project
#[utoipa::path(post, path = "/v1/projects", tag = "projects", request_body = NewProject, responses(
    (status = 201, description = "It is there", body = ProjectView),
))]
pub(crate) async fn create(
    State(state): Shared,
    asking: Asking,
    Body(NewProject { name, quota }): Body<NewProject>,
) -> Result<(StatusCode, Json<ProjectView>), Problem> {
    blocking(move || {
        let project = state.registry.create_project(name, quota, asking.asked.at)?;
        Ok((StatusCode::CREATED, Json(view(&state, project)?)))
    })
    .await
}

/// A project, its quota and what is taken of it
#[utoipa::path(get, path = "/v1/projects/{project}", tag = "projects", params(
    ("project" = String, Path, description = "Its name"),
), responses(
    (status = 200, description = "It", body = ProjectView),
))]
pub(crate) async fn get(
    State(state): Shared,
    Path(name): Path<Name>,
) -> Result<impl IntoResponse, Problem> {
    blocking(move || {
        let Kept { object, revision } = state.registry.project(&name)?;
        Ok((etag(revision), Json(view(&state, object)?)))
    })
    .await
}

/// Change a project's quota; what is there stays
#[utoipa::path(patch, path = "/v1/projects/{project}", tag = "projects", params(
    ("project" = String, Path, description = "Its name"),
    ("If-Match" = Option<String>, Header, description = "The ETag that it must have"),
), request_body = ProjectPatch, responses(
    (status = 200, description = "It, as it is now", body = ProjectView),
))]
pub(crate) async fn patch(
    State(state): Shared,
    Path(name): Path<Name>,
    IfMatch(revision): IfMatch,
    Body(ProjectPatch { quota }): Body<ProjectPatch>,
) -> Result<impl IntoResponse, Problem> {
    blocking(move || {
        let patched = |old: &Quota| {
            let damaged =
                |source| RegistryError::Damaged { key: "the patched quota".to_owned(), source };
            let mut value = serde_json::to_value(old).map_err(damaged)?;
            merge(&mut value, &quota);
            serde_json::from_value(value).map_err(damaged)
        };
        let changed = state.registry.set_project_quota(&name, patched, revision);
        let Kept { object, revision } = changed.map_err(|error| match error {
            RegistryError::Damaged { key, source } if key == "the patched quota" => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid-body",
                format!("quota: {source}"),
            ),
            error => error.into(),
        })?;
        Ok((etag(revision), Json(view(&state, object)?)))
    })
    .await
}

/// Delete an empty project; nobody has a role in it any more
#[utoipa::path(delete, path = "/v1/projects/{project}", tag = "projects", params(
    ("project" = String, Path, description = "Its name"),
    ("If-Match" = Option<String>, Header, description = "The ETag that it must have"),
), responses(
    (status = 204, description = "It is gone"),
))]
pub(crate) async fn delete(
    State(state): Shared,
    Path(name): Path<Name>,
    IfMatch(revision): IfMatch,
) -> Result<StatusCode, Problem> {
    blocking(move || Ok(state.registry.delete_project(&name, revision)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Who has a role in a project, besides those who have one everywhere
#[utoipa::path(get, path = "/v1/projects/{project}/members", tag = "projects", params(
    ListParams, ("project" = String, Path, description = "Its name"),
), responses(
    (status = 200, description = "A page of them", body = Page<Member>),
))]
pub(crate) async fn members(
    State(state): Shared,
    Path(name): Path<Name>,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<Member>>, Problem> {
    blocking(move || {
        state.registry.project(&name)?;
        let (all, revision) = state.registry.users(params.begin()?.0)?;
        let member = |kept: Kept<model::User>| {
            let role = *kept.object.all_rights().projects.get(&name)?;
            Some(Member { user: kept.object.name, role })
        };
        params.page(all.into_iter().filter_map(member).collect(), revision).map(Json)
    })
    .await
}

/// Give a user a role in a project
#[utoipa::path(put, path = "/v1/projects/{project}/members/{user}", tag = "projects", params(
    ("project" = String, Path, description = "Its name"),
    ("user" = String, Path, description = "Their name or ID"),
), request_body = MemberRole, responses(
    (status = 200, description = "They have it", body = Member),
))]
pub(crate) async fn set_member(
    State(state): Shared,
    Path((project, user)): Path<(Name, String)>,
    Body(MemberRole { role }): Body<MemberRole>,
) -> Result<Json<Member>, Problem> {
    blocking(move || {
        let user = state.registry.set_member(&project, &user, Some(role))?.object;
        Ok(Json(Member { user: user.name, role }))
    })
    .await
}

/// Take a user's role in a project from them; what their groups give stays
#[utoipa::path(delete, path = "/v1/projects/{project}/members/{user}", tag = "projects", params(
    ("project" = String, Path, description = "Its name"),
    ("user" = String, Path, description = "Their name or ID"),
), responses(
    (status = 204, description = "They have none of their own"),
))]
pub(crate) async fn remove_member(
    State(state): Shared,
    Path((project, user)): Path<(Name, String)>,
) -> Result<StatusCode, Problem> {
    blocking(move || Ok(state.registry.set_member(&project, &user, None)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}
