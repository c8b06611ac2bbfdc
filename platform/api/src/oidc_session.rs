//! Signing in with an identity provider: a browser goes there, and comes back with a code.
//!
//! An attempt is this browser's that began it, which a cookie of its own tells, and good once and for ten minutes.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use model::Provided;
use oidc::{Attempt, OidcError, Provider};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::access::blocking;
use crate::extract::Params;
use crate::session::{open, set};
use crate::{Problem, Shared};

/// Browsers bring it along when the provider sends them back: that is another site.
const COOKIE: &str = "__Host-trine-oidc";
/// Attempts at a time: anybody may begin one.
const ATTEMPTS_MAX: usize = 1000;
/// How long one may take.
const ATTEMPT: Duration = Duration::from_secs(600);

/// Attempts that have not come back, by their states.
#[derive(Default)]
pub(crate) struct Attempts(Mutex<HashMap<String, (Attempt, Instant)>>);

impl Attempts {
    fn keep(&self, attempt: Attempt) -> Result<(), Problem> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, (_, begun)| begun.elapsed() < ATTEMPT);
        if all.len() >= ATTEMPTS_MAX {
            let detail = "too many are signing in just now: try again in some minutes";
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-attempts", detail));
        }
        all.insert(attempt.state.clone(), (attempt, Instant::now()));
        Ok(())
    }

    fn take(&self, state: &str) -> Option<Attempt> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (attempt, begun) = all.remove(state)?;
        (begun.elapsed() < ATTEMPT).then_some(attempt)
    }
}

impl From<OidcError> for Problem {
    fn from(error: OidcError) -> Self {
        let (status, code) = match error {
            OidcError::NoRole(_) => (StatusCode::FORBIDDEN, "no-role"),
            OidcError::Refused(_) => (StatusCode::UNAUTHORIZED, "provider-refused"),
            OidcError::Provider(_) | OidcError::Config(_) => {
                (StatusCode::BAD_GATEWAY, "provider-unavailable")
            }
        };
        tracing::warn!(%error, "nobody signs in");
        Self::new(status, code, error.to_string())
    }
}

fn provider(state: &crate::State) -> Result<&Provider, Problem> {
    let detail = "this daemon has no identity provider: it is given one with --oidc";
    let none = || Problem::new(StatusCode::NOT_FOUND, "no-provider", detail);
    state.provider.as_ref().ok_or_else(none)
}

fn cookie(value: &str, age_s: u64) -> (HeaderName, String) {
    let rest = format!("Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={age_s}");
    (header::SET_COOKIE, format!("{COOKIE}={value}; {rest}"))
}

fn cookie_of(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs =
        cookies.flat_map(|value| value.split(';')).filter_map(|one| one.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

/// Sign in with the identity provider: for browsers, which are sent there
#[utoipa::path(get, path = "/v1/session/oidc", tag = "session", responses(
    (status = 303, description = "To the provider"),
))]
pub(crate) async fn oidc(State(state): Shared) -> Result<Response, Problem> {
    let attempt = provider(&state)?.begin().await?;
    let headers =
        [(header::LOCATION, attempt.url.clone()), cookie(&attempt.state, ATTEMPT.as_secs())];
    state.attempts.keep(attempt)?;
    Ok((StatusCode::SEE_OTHER, headers).into_response())
}

/// What a provider sends a browser back with.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct CallbackParams {
    /// The attempt.
    #[serde(default)]
    state: String,
    /// What is exchanged for who it is.
    code: Option<String>,
    /// Why there is none.
    error: Option<String>,
}

/// Where the identity provider sends browsers back to
#[utoipa::path(get, path = "/v1/session/oidc/callback", tag = "session", params(CallbackParams), responses(
    (status = 303, description = "They are signed in: to the first page"),
))]
pub(crate) async fn oidc_callback(
    State(state): Shared,
    headers: HeaderMap,
    Params(CallbackParams { state: of, code, error }): Params<CallbackParams>,
) -> Result<Response, Problem> {
    let own = provider(&state)?;
    let refused = |detail: &str| Problem::new(StatusCode::UNAUTHORIZED, "provider-refused", detail);
    // Or somebody could be made to sign in as somebody else (RFC 9700, 4.7).
    let is_own = cookie_of(&headers) == Some(of.as_str());
    let attempt = state.attempts.take(&of).filter(|_| is_own).ok_or_else(|| {
        refused("this attempt to sign in was not begun in this browser, or is over: begin anew")
    })?;
    let Some(code) = code else {
        let why: String = error.unwrap_or_default().chars().take(200).collect();
        return Err(refused(&format!("the identity provider lets nobody in: {why}")));
    };
    let person = own.finish(&attempt, &code).await?;
    let (issuer, registry) = (own.issuer().to_owned(), state.registry.clone());
    let user = blocking(move || {
        let provided = Provided { issuer, subject: person.subject, rights: person.rights };
        let user = registry.provide_user(&person.name, provided, Timestamp::now())?;
        if user.object.all_rights().highest().is_none() {
            return Err(OidcError::NoRole(user.object.name.to_string()).into());
        }
        if user.object.disabled {
            let detail = format!("user '{}' is disabled here", user.object.name);
            return Err(Problem::new(StatusCode::FORBIDDEN, "user-disabled", detail));
        }
        Ok(user)
    });
    let (secret, caller) = open(&state, user.await?).await?;
    let first = [(header::LOCATION, "/".to_owned()), cookie("", 0)];
    let mut response = (StatusCode::SEE_OTHER, first, Extension(caller)).into_response();
    for (name, value) in set(&secret, "") {
        let value = value.parse::<HeaderValue>().map_err(|error| Problem::internal(&error))?;
        response.headers_mut().append(name, value);
    }
    Ok(response)
}
