//! Signing in: by a token, by name and password, or with an identity provider, into a cookie that no script can read.
//!
//! The cookie is a secret as a token's is: who signs in with a token has that in it, and everybody else a secret
//! of a session's own. It counts only for what our own pages ask for ([`cookie`]): a browser sends it along with
//! whatever other sites make it ask.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use jiff::Timestamp;
use model::{Rights, Role, User};
use registry::Kept;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::access::{blocking, caller, digest};
use crate::extract::{Asking, json};
use crate::{Caller, Peer, Problem, Shared, password, tokens};

/// How long somebody is signed in.
pub(crate) const SESSION: Duration = Duration::from_secs(12 * 3600);

/// The prefix is a promise that browsers keep: over TLS only, to this host only, from it only.
const COOKIE: &str = "__Host-trine";

/// Who is signed in.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Session {
    /// `uid:N`, `user:NAME` or `token:NAME`.
    who: String,
    /// The highest role that they have anywhere; `null`: none yet.
    role: Option<Role>,
    /// What they may, and where.
    rights: Rights,
    /// When they have to sign in again.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires: Option<Timestamp>,
}

impl From<&Caller> for Session {
    fn from(caller: &Caller) -> Self {
        let Caller { who, rights, expires, .. } = caller.clone();
        Self { who, role: rights.highest(), rights, expires }
    }
}

/// Somebody's name and password.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignIn {
    /// What they are called.
    #[schema(example = "ann")]
    user: String,
    /// Their password.
    password: String,
}

/// By what one can sign in, besides a token.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Methods {
    /// By name and password.
    password: bool,
    /// With an identity provider, which is called so: a browser goes to `/v1/session/oidc`.
    oidc: Option<String>,
}

/// The secret in a request's cookie, if it is one of our own pages that asks.
///
/// Browsers name the origin of the page with all that changes something, and with WebSockets; nothing else of another
/// site's gets a `SameSite=Strict` cookie.
pub(crate) fn cookie<'a>(method: &Method, headers: &'a HeaderMap) -> Option<&'a str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs =
        cookies.flat_map(|value| value.split(';')).filter_map(|one| one.trim().split_once('='));
    let (_, secret) = pairs.find(|(name, _)| *name == COOKIE)?;
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let is_own = match headers.get(header::ORIGIN) {
        Some(origin) => {
            let origin = origin.to_str().ok().and_then(|origin| origin.strip_prefix("https://"));
            origin.is_some() && origin == host
        }
        None => {
            let is_read = matches!(*method, Method::GET | Method::HEAD);
            is_read && !headers.contains_key(header::UPGRADE)
        }
    };
    is_own.then_some(secret)
}

pub(crate) fn set(value: &str, rest: &str) -> [(HeaderName, String); 1] {
    let cookie = format!("{COOKIE}={value}; Path=/; Secure; HttpOnly; SameSite=Strict{rest}");
    [(header::SET_COOKIE, cookie)]
}

/// Who is signed in
#[utoipa::path(get, path = "/v1/session", tag = "session", responses(
    (status = 200, description = "Who asks, and what they may", body = Session),
))]
pub(crate) async fn get(asking: Asking) -> Json<Session> {
    Json(Session::from(&asking.caller))
}

/// By what one can sign in
#[utoipa::path(get, path = "/v1/session/methods", tag = "session", responses(
    (status = 200, description = "Besides tokens", body = Methods),
))]
pub(crate) async fn methods(State(state): Shared) -> Json<Methods> {
    let oidc = state.provider.as_ref().map(|provider| provider.name().to_owned());
    Json(Methods { password: true, oidc })
}

/// Sign in, by name and password or by the token of `Authorization`
///
/// The answer's cookie says who asks from now on: for twelve hours, or for as long as the token is good.
#[utoipa::path(post, path = "/v1/session", tag = "session", request_body = Option<SignIn>, responses(
    (status = 200, description = "They are signed in", body = Session),
))]
pub(crate) async fn begin(
    State(state): Shared,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    if !body.is_empty() {
        let SignIn { user, password } = json(&headers, &body)?;
        return Ok(match by_password(&state, peer, &user, password).await? {
            Ok((secret, caller)) => {
                let session = Json(Session::from(&caller));
                (set(&secret, ""), Extension(caller), session).into_response()
            }
            Err(often) => often.into_response(),
        });
    }
    let header = headers.get(header::AUTHORIZATION).and_then(|header| header.to_str().ok());
    let secret = header.and_then(|header| header.strip_prefix("Bearer ")).map(str::to_owned);
    let caller = caller(&state, &Method::POST, &headers, Some(peer)).await?;
    let Some(secret) = secret else {
        let detail = "give a user and a password, or say 'Authorization: Bearer TOKEN'";
        return Err(Problem::bad_request(detail));
    };
    let session = Json(Session::from(&caller));
    Ok((set(&secret, ""), Extension(caller), session).into_response())
}

async fn by_password(
    state: &Arc<crate::State>,
    peer: Peer,
    user: &str,
    password: String,
) -> Result<Result<(String, Caller), password::TooOften>, Problem> {
    let from = peer.from();
    if let Err(often) = state.gate.attempt(user, &from, Instant::now()) {
        return Ok(Err(often));
    }
    let (registry, name) = (state.registry.clone(), user.to_owned());
    let known = blocking(move || Ok(registry.password_of(&name)?)).await?;
    let (known, kept) = known.map_or((None, None), |of| (Some(of.user), of.password));
    let is_right = password::is_right(password, kept).await?;
    let known = known.filter(|known| is_right && !known.object.disabled);
    let Some(known) = known else {
        let detail = "this is not the name and the password of a user who may sign in";
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "wrong-password", detail));
    };
    state.gate.passed(user, &from);
    open(state, known).await.map(Ok)
}

/// Opens a session for somebody who has proved who they are. Its secret is told this once.
pub(crate) async fn open(
    state: &Arc<crate::State>,
    user: Kept<User>,
) -> Result<(String, Caller), Problem> {
    let secret = tokens::secret();
    let (registry, digest) = (state.registry.clone(), digest(&secret));
    let caller = blocking(move || {
        let now = Timestamp::now();
        registry.begin_session(&user, &digest, SESSION, now)?;
        let bearer = registry.bearer(&digest, now)?;
        let gone = || Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "the user has gone");
        Ok(Caller::bearing(digest, bearer.ok_or_else(gone)?))
    });
    Ok((secret, caller.await?))
}

/// Sign out: the session is over. A token is as good as before
#[utoipa::path(delete, path = "/v1/session", tag = "session", responses(
    (status = 204, description = "The cookie is gone"),
))]
pub(crate) async fn end(
    State(state): Shared,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Problem> {
    // Also of one that is over already.
    let header = headers.get(header::AUTHORIZATION).and_then(|header| header.to_str().ok());
    let secret = header.and_then(|header| header.strip_prefix("Bearer "));
    if let Some(secret) = secret.or(cookie(&Method::DELETE, &headers)) {
        let digest = digest(secret);
        blocking(move || Ok(state.registry.end_session(&digest)?)).await?;
    }
    Ok((StatusCode::NO_CONTENT, set("", "; Max-Age=0")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(method: &Method, headers: &[(&'static str, &'static str)]) -> Option<String> {
        let pairs = headers.iter().map(|(name, value)| {
            (HeaderName::from_static(name), axum::http::HeaderValue::from_static(value))
        });
        cookie(method, &pairs.collect()).map(str::to_owned)
    }

    #[test]
    fn a_cookie_counts_only_for_our_own_pages() {
        let own = [("cookie", "a=b; __Host-trine=s"), ("host", "h:8443")];
        let with = |more: &[(&'static str, &'static str)]| [&own[..], more].concat();
        let s = Some("s".to_owned());
        assert_eq!(secret(&Method::GET, &own), s);
        assert_eq!(secret(&Method::GET, &with(&[("origin", "https://h:8443")])), s);
        assert_eq!(secret(&Method::POST, &with(&[("origin", "https://h:8443")])), s);
        let socket = ("upgrade", "websocket");
        assert_eq!(secret(&Method::GET, &with(&[("origin", "https://h:8443"), socket])), s);
        for origin in
            ["https://evil.example", "http://h:8443", "https://h:8443.evil", "null", "https://h"]
        {
            for method in [Method::GET, Method::POST, Method::DELETE] {
                assert_eq!(
                    secret(&method, &with(&[("origin", origin)])),
                    None,
                    "{method} {origin}"
                );
            }
        }
        assert_eq!(secret(&Method::POST, &own), None);
        assert_eq!(secret(&Method::GET, &with(&[socket])), None);
        assert_eq!(secret(&Method::GET, &[("cookie", "trine=s"), ("host", "h")]), None);
    }
}
