//! Users.

use std::time::Instant;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use model::{Name, Rights, Role, User};
use registry::{Kept, UserChange};
use serde::Deserialize;
use utoipa::ToSchema;

use crate::access::blocking;
use crate::extract::{Asking, Body, IfMatch, Params, Path, etag};
use crate::list::{ListParams, Page};
use crate::{Caller, Peer, Problem, Shared, password};

/// A user who is asked for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewUser {
    /// What they are to be called.
    name: Name,
    /// Their password, of 8 to 256 bytes; without one they cannot sign in by one.
    #[serde(default)]
    password: Option<String>,
    /// What they may do.
    #[serde(default)]
    rights: Rights,
}

/// What of a user is to change.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UserPatch {
    /// All that they may do, instead of what they might; what their groups give is beside it.
    #[serde(default)]
    rights: Option<Rights>,
    /// They cannot sign in, and their sessions and tokens are good for nothing.
    #[serde(default)]
    disabled: Option<bool>,
}

/// Another password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPassword {
    /// The new one, of 8 to 256 bytes; `null`: none.
    password: Option<String>,
    /// The one they have, from who is no administrator.
    #[serde(default)]
    old_password: Option<String>,
}

fn tagged(Kept { object, revision }: Kept<User>) -> impl IntoResponse {
    (etag(revision), Json(object))
}

/// It is themselves.
fn is_self(caller: &Caller, user: &str) -> bool {
    caller.user.as_ref().is_some_and(|own| own.as_ref() == user)
}

/// The users there are
#[utoipa::path(get, path = "/v1/users", tag = "users", params(ListParams), responses(
    (status = 200, description = "A page of them, the oldest first", body = Page<User>),
))]
pub(crate) async fn list(
    State(state): Shared,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<User>>, Problem> {
    blocking(move || {
        let (all, revision) = state.registry.users(params.begin()?.0)?;
        params.page(all.into_iter().map(|kept| kept.object).collect(), revision).map(Json)
    })
    .await
}

/// Make a user
#[utoipa::path(post, path = "/v1/users", tag = "users", request_body = NewUser, responses(
    (status = 201, description = "They can sign in", body = User),
))]
pub(crate) async fn create(
    State(state): Shared,
    asking: Asking,
    Body(NewUser { name, password, rights }): Body<NewUser>,
) -> Result<impl IntoResponse, Problem> {
    let password = match password {
        Some(password) => Some(password::hash(password).await?),
        None => None,
    };
    blocking(move || {
        let user = state.registry.create_user(name, rights, password, asking.asked.at)?;
        Ok((StatusCode::CREATED, tagged(user)))
    })
    .await
}

/// A user
#[utoipa::path(get, path = "/v1/users/{user}", tag = "users", params(
    ("user" = String, Path, description = "Their name or ID"),
), responses(
    (status = 200, description = "They", body = User),
))]
pub(crate) async fn get(
    State(state): Shared,
    Path(user): Path<String>,
    asking: Asking,
) -> Result<impl IntoResponse, Problem> {
    if !is_self(&asking.caller, &user) {
        asking.caller.need_everywhere(Role::Admin)?;
    }
    blocking(move || Ok(tagged(state.registry.user(&user)?))).await
}

/// Change what a user may do
#[utoipa::path(patch, path = "/v1/users/{user}", tag = "users", params(
    ("user" = String, Path, description = "Their name or ID"),
    ("If-Match" = Option<String>, Header, description = "The ETag that they must have"),
), request_body = UserPatch, responses(
    (status = 200, description = "The user as they are now", body = User),
))]
pub(crate) async fn patch(
    State(state): Shared,
    Path(user): Path<String>,
    IfMatch(revision): IfMatch,
    Body(UserPatch { rights, disabled }): Body<UserPatch>,
) -> Result<impl IntoResponse, Problem> {
    let change = UserChange { rights, disabled };
    blocking(move || Ok(tagged(state.registry.change_user(&user, &change, revision)?))).await
}

/// Give a user another password: all their sessions end
#[utoipa::path(put, path = "/v1/users/{user}/password", tag = "users", params(
    ("user" = String, Path, description = "Their name or ID"),
), request_body = NewPassword, responses(
    (status = 204, description = "It is the new one from now on"),
))]
pub(crate) async fn set_password(
    State(state): Shared,
    axum::Extension(peer): axum::Extension<Peer>,
    Path(user): Path<String>,
    asking: Asking,
    Body(new): Body<NewPassword>,
) -> Result<Response, Problem> {
    let is_admin = asking.caller.need_everywhere(Role::Admin);
    let is_self = is_self(&asking.caller, &user);
    if !is_self {
        is_admin?;
    } else if is_admin.is_err() || new.old_password.is_some() {
        // Whoever finds a browser open does not keep the user out of it.
        let from = peer.from();
        if let Err(often) = state.gate.attempt(&user, &from, Instant::now()) {
            return Ok(often.into_response());
        }
        let (registry, of) = (state.registry.clone(), user.clone());
        let kept = blocking(move || Ok(registry.password_of(&of)?)).await?;
        let kept = kept.and_then(|of| of.password);
        if !password::is_right(new.old_password.unwrap_or_default(), kept).await? {
            let detail = "old_password is not the user's password";
            return Err(Problem::new(StatusCode::FORBIDDEN, "wrong-password", detail));
        }
        state.gate.passed(&user, &from);
    }
    let hash = match new.password {
        Some(password) => Some(password::hash(password).await?),
        None => None,
    };
    blocking(move || Ok(state.registry.set_password(&user, hash.as_deref())?)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Delete a user, with their sessions and tokens
#[utoipa::path(delete, path = "/v1/users/{user}", tag = "users", params(
    ("user" = String, Path, description = "Their name or ID"),
    ("If-Match" = Option<String>, Header, description = "The ETag that they must have"),
), responses(
    (status = 204, description = "They are gone"),
))]
pub(crate) async fn delete(
    State(state): Shared,
    Path(user): Path<String>,
    IfMatch(revision): IfMatch,
) -> Result<StatusCode, Problem> {
    blocking(move || Ok(state.registry.delete_user(&user, revision)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}
