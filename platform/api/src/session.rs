//! Signing in, for browsers: a token, kept in a cookie that no script can read.
//!
//! The cookie is the token, so a session ends when its token does. It counts only for what our own pages ask for
//! ([`cookie`]): a browser sends it along with whatever other sites make it ask.

use axum::Json;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::response::IntoResponse;
use model::Role;
use serde::Serialize;
use utoipa::ToSchema;

use crate::Problem;
use crate::extract::Asking;

/// The prefix is a promise that browsers keep: over TLS only, to this host only, from it only.
const COOKIE: &str = "__Host-trine";

/// Who is signed in.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Session {
    /// `uid:N` or `token:NAME`.
    who: String,
    /// What they may.
    role: Role,
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

fn set(value: &str, rest: &str) -> [(HeaderName, String); 1] {
    let cookie = format!("{COOKIE}={value}; Path=/; Secure; HttpOnly; SameSite=Strict{rest}");
    [(header::SET_COOKIE, cookie)]
}

/// Who is signed in
#[utoipa::path(get, path = "/v1/session", tag = "session", responses(
    (status = 200, description = "Who asks, and what they may", body = Session),
    (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn get(asking: Asking) -> Json<Session> {
    Json(Session { who: asking.caller.who, role: asking.caller.role })
}

/// Sign in, in a browser: the token of `Authorization` is kept in a cookie
#[utoipa::path(post, path = "/v1/session", tag = "session", responses(
    (status = 200, description = "Its cookie says who asks from now on", body = Session),
    (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn begin(
    headers: HeaderMap,
    asking: Asking,
) -> Result<impl IntoResponse, Problem> {
    let header = headers.get(header::AUTHORIZATION).and_then(|header| header.to_str().ok());
    let Some(secret) = header.and_then(|header| header.strip_prefix("Bearer ")) else {
        return Err(Problem::bad_request("say 'Authorization: Bearer TOKEN' to sign in with it"));
    };
    Ok((set(secret, ""), get(asking).await))
}

/// Sign out
#[utoipa::path(delete, path = "/v1/session", tag = "session", responses(
    (status = 204, description = "The cookie is gone; its token is as good as before"),
    (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
))]
pub(crate) async fn end() -> impl IntoResponse {
    (StatusCode::NO_CONTENT, set("", "; Max-Age=0"))
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
