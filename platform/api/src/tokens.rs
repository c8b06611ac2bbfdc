//! Tokens.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use model::{Name, Rights, Role, Token};
use registry::Registry;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::access::{blocking, digest};
use crate::extract::{Asking, Body, Params, Path};
use crate::list::{ListParams, Page};
use crate::{Caller, Problem, Shared};

/// A token that is asked for.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewToken {
    /// What it is to be called.
    name: Name,
    /// What its bearer may do, at most.
    role: Role,
    /// The user whose it is: it may no more than they may. Without it, it is nobody's, and for administrators to make;
    /// of who has signed in, their own.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    user: Option<Name>,
    /// The project in which it is good, if only in one.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    project: Option<Name>,
    /// For how many seconds it is good; without it, for ever.
    #[serde(default)]
    expires_in_s: Option<u32>,
}

/// A token, with what is told this once.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct NewlyMade {
    #[serde(flatten)]
    token: Token,
    /// What to say as `Authorization: Bearer SECRET`. It is not kept, and never told again.
    secret: String,
}

/// Two random UUIDs have 244 bits of the kernel's randomness.
pub(crate) fn secret() -> String {
    format!("trine_{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// Whether somebody manages a token: it is theirs, or of a project that they administer.
fn manages(caller: &Caller, user: Option<&Name>, project: Option<&Name>) -> Result<(), Problem> {
    match (user, project) {
        _ if caller.need_everywhere(Role::Admin).is_ok() => Ok(()),
        (Some(user), _) if caller.user.as_ref() == Some(user) => Ok(()),
        (None, Some(project)) => caller.need(Role::Admin, project),
        _ => caller.need_everywhere(Role::Admin),
    }
}

/// Nobody makes a token that may more than they may.
fn check(caller: &Caller, new: &NewToken, registry: &Registry) -> Result<(), Problem> {
    manages(caller, new.user.as_ref(), new.project.as_ref())?;
    let mut rights = match &new.project {
        Some(project) => Rights::within(project.clone(), new.role),
        None => Rights::everywhere(new.role),
    };
    if let Some(user) = &new.user {
        rights = rights.within_those(&registry.user(user.as_ref())?.object.all_rights());
    }
    if let Some(role) = rights.everywhere {
        caller.need_everywhere(role)?;
    }
    rights.projects.iter().try_for_each(|(project, role)| caller.need(*role, project))
}

/// The tokens that the caller manages
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens", params(ListParams), responses(
    (status = 200, description = "A page of them, by name, without secrets", body = Page<Token>),
))]
pub(crate) async fn list(
    State(state): Shared,
    Params(params): Params<ListParams>,
    asking: Asking,
) -> Result<Json<Page<Token>>, Problem> {
    blocking(move || {
        let (all, revision) = state.registry.tokens(params.begin()?.0)?;
        let all = all.into_iter().map(|kept| kept.object);
        let is_managed = |token: &Token| {
            manages(&asking.caller, token.user.as_ref(), token.project.as_ref()).is_ok()
        };
        params.page(all.filter(is_managed).collect(), revision).map(Json)
    })
    .await
}

/// Make a token
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens", request_body = NewToken, responses(
    (status = 201, description = "It is good from now on", body = NewlyMade),
))]
pub(crate) async fn create(
    State(state): Shared,
    asking: Asking,
    Body(mut new): Body<NewToken>,
) -> Result<(StatusCode, Json<NewlyMade>), Problem> {
    blocking(move || {
        if new.project.is_none() && asking.caller.need_everywhere(Role::Admin).is_err() {
            new.user = new.user.or(asking.caller.user.clone());
        }
        check(&asking.caller, &new, &state.registry)?;
        let now: Timestamp = asking.asked.at;
        let expires = new.expires_in_s.map(|s| now + SignedDuration::from_secs(s.into()));
        let NewToken { name, role, user, project, .. } = new;
        let secret = secret();
        let new = registry::NewToken { name, role, user, project, expires };
        let token = state.registry.create_token(new, digest(&secret), now)?;
        Ok((StatusCode::CREATED, Json(NewlyMade { token, secret })))
    })
    .await
}

/// Delete a token: it is good no longer, and what is open with it ends
#[utoipa::path(delete, path = "/v1/tokens/{token}", tag = "tokens", params(
    ("token" = String, Path, description = "Its name"),
), responses(
    (status = 204, description = "It is gone"),
))]
pub(crate) async fn delete(
    State(state): Shared,
    Path(name): Path<Name>,
    asking: Asking,
) -> Result<StatusCode, Problem> {
    blocking(move || {
        let is_admin = asking.caller.need_everywhere(Role::Admin);
        let token = match state.registry.token(&name) {
            Ok(token) => token,
            // Who manages only some is not told which others there are.
            Err(error) => return is_admin.and(Err(error.into())),
        };
        manages(&asking.caller, token.user.as_ref(), token.project.as_ref()).or(is_admin)?;
        Ok(state.registry.delete_token(&name)?)
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}
