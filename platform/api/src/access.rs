//! Who asks, and what they may.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use model::Role;
use registry::Digest;
use sha2::Digest as _;

use crate::{Problem, session};

/// Who is at the other end of a connection, as the host tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// A user of this host, at the local socket.
    Local {
        /// Who.
        uid: u32,
    },
    /// Somebody at this address.
    Remote(SocketAddr),
}

impl Peer {
    pub(crate) fn from(self) -> String {
        match self {
            Self::Local { .. } => "local".to_owned(),
            Self::Remote(address) => address.ip().to_string(),
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// `uid:N` or `token:NAME`.
    pub who: String,
    /// What they may.
    pub role: Role,
}

/// A secret's digest.
pub(crate) fn digest(secret: &str) -> Digest {
    let digest = sha2::Sha256::digest(secret);
    Digest(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What a request needs, by method and path; `None`: nothing.
pub(crate) fn needs(method: &Method, path: &str) -> Option<Role> {
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    match path {
        "/healthz" | "/readyz" if is_read => None,
        _ if ["/v1/tokens", "/v1/audit"].iter().any(|of| path.starts_with(of)) => Some(Role::Admin),
        // Who sees a screen can type.
        _ if path.starts_with("/v1/vms/") && path.ends_with("/screen") => Some(Role::Operator),
        "/v1/session" => Some(Role::Viewer),
        _ if is_read => Some(Role::Viewer),
        _ if ["/v1/projects", "/v1/pools"].iter().any(|of| path.starts_with(of)) => {
            Some(Role::Admin)
        }
        _ => Some(Role::Operator),
    }
}

/// Lets through who may, as a [`Caller`] among the request's extensions.
pub(crate) async fn admit(
    State(state): State<Arc<crate::State>>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(needed) = needs(request.method(), request.uri().path()) else {
        return next.run(request).await;
    };
    let peer = request.extensions().get::<Peer>().copied();
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let caller = match caller(&state, &method, &headers, peer).await {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    if caller.role < needed {
        let detail = format!(
            "this needs the role {needed:?}, and {} has {:?}: ask for a token with more",
            caller.who, caller.role
        );
        let mut response = Problem::new(StatusCode::FORBIDDEN, "forbidden", detail).into_response();
        response.extensions_mut().insert(caller);
        return response;
    }
    request.extensions_mut().insert(caller.clone());
    let mut response = next.run(request).await;
    response.extensions_mut().insert(caller);
    response
}

async fn caller(
    state: &Arc<crate::State>,
    method: &Method,
    headers: &HeaderMap,
    peer: Option<Peer>,
) -> Result<Caller, Problem> {
    let unknown = |detail: &str| Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", detail);
    let secret = match headers.get(header::AUTHORIZATION) {
        Some(header) => {
            let secret = header.to_str().ok().and_then(|text| text.strip_prefix("Bearer "));
            Some(secret.ok_or_else(|| unknown("say 'Authorization: Bearer TOKEN'"))?)
        }
        None => session::cookie(method, headers),
    };
    if let Some(secret) = secret {
        let (registry, digest) = (state.registry.clone(), digest(secret));
        let token = blocking(move || Ok(registry.token_of(&digest, Timestamp::now())?)).await?;
        let token = token.ok_or_else(|| unknown("the token is not known, or has expired"))?;
        return Ok(Caller { who: format!("token:{}", token.name), role: token.role });
    }
    match peer {
        Some(Peer::Local { uid }) if uid == 0 || uid == state.own_uid => {
            Ok(Caller { who: format!("uid:{uid}"), role: Role::Admin })
        }
        _ => Err(unknown("say who you are, with 'Authorization: Bearer TOKEN'")),
    }
}

/// Does what waits for the medium, where that holds nobody up.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Problem::internal(&error)),
    }
}
