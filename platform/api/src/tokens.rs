//! Tokens.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use model::{Name, Role, Token};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::access::{blocking, digest};
use crate::extract::{Asking, Body, Path};
use crate::{Problem, Shared};

/// A token that is asked for.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewToken {
    /// What it is to be called.
    name: Name,
    /// What its bearer may do.
    role: Role,
    /// For how many seconds it is good; without it, for ever.
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

/// The tokens there are
#[utoipa::path(get, path = "/v1/tokens", tag = "tokens", responses(
    (status = 200, description = "All of them, without secrets", body = Vec<Token>),
    (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn list(State(state): Shared) -> Result<Json<Vec<Token>>, Problem> {
    blocking(move || Ok(Json(state.registry.tokens()?))).await
}

/// Make a token
#[utoipa::path(post, path = "/v1/tokens", tag = "tokens", request_body = NewToken, responses(
    (status = 201, description = "It is good from now on", body = NewlyMade),
    (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn create(
    State(state): Shared,
    asking: Asking,
    Body(new): Body<NewToken>,
) -> Result<(StatusCode, Json<NewlyMade>), Problem> {
    // Two random UUIDs have 244 bits of the kernel's randomness.
    let secret = format!("trine_{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
    blocking(move || {
        let now: Timestamp = asking.asked.at;
        let after = |s: u32| now + SignedDuration::from_secs(s.into());
        let expires = new.expires_in_s.map(after);
        let registry = &state.registry;
        let token = registry.create_token(new.name, new.role, expires, digest(&secret), now)?;
        Ok((StatusCode::CREATED, Json(NewlyMade { token, secret })))
    })
    .await
}

/// Delete a token: it is good no longer
#[utoipa::path(delete, path = "/v1/tokens/{token}", tag = "tokens", params(
    ("token" = String, Path, description = "Its name"),
), responses(
    (status = 204, description = "It is gone"),
    (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn delete(
    State(state): Shared,
    Path(name): Path<Name>,
) -> Result<StatusCode, Problem> {
    blocking(move || Ok(state.registry.delete_token(&name)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}
