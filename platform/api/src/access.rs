//! Who asks, and what they may.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{MatchedPath, Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use model::{Name, Rights, Role};
use registry::{Bearer, Digest};
use sha2::Digest as _;

use crate::objects::{OfProject, ProjectParams};
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
    /// `uid:N`, `user:NAME` or `token:NAME`.
    pub who: String,
    /// What they may.
    pub rights: Rights,
    /// The user that they are, or whose token it is.
    pub user: Option<Name>,
    /// When that ends.
    pub expires: Option<Timestamp>,
    /// What they have proved it with; nothing at the local socket.
    pub secret: Option<Digest>,
}

impl Caller {
    pub(crate) fn bearing(digest: Digest, bearer: Bearer) -> Self {
        let Bearer { who, rights, user, expires } = bearer;
        Self { who, rights, user, expires, secret: Some(digest) }
    }

    /// They have this role in a project.
    pub(crate) fn need(&self, role: Role, project: &Name) -> Result<(), Problem> {
        if self.rights.role_in(project) >= Some(role) {
            return Ok(());
        }
        let role = role.as_str();
        let detail = format!(
            "this needs the role {role} in project '{project}', and {} has not got it: ask an \
             administrator of the project for it",
            self.who
        );
        Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail))
    }

    /// They have this role everywhere.
    pub(crate) fn need_everywhere(&self, role: Role) -> Result<(), Problem> {
        if self.rights.everywhere >= Some(role) {
            return Ok(());
        }
        let role = role.as_str();
        let detail = format!(
            "this needs the role {role} everywhere, and {} has not got it: ask an administrator \
             for it",
            self.who
        );
        Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail))
    }
}

/// A secret's digest.
pub(crate) fn digest(secret: &str) -> Digest {
    let digest = sha2::Sha256::digest(secret);
    Digest(digest.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What a request needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Nothing: it is for everybody, or is how to become known.
    Nothing,
    /// To be known. Its handler shows, and does, only what the caller may see and do.
    Known,
    /// A role in the project that `project` says, or in the default one.
    InProject(Role),
    /// To see the project that `project` says, if it says one. What it lists is chosen by [`crate::objects::Visible`].
    Listing,
    /// A role in the project that is in the path.
    OfProject(Role),
    /// A role everywhere.
    Everywhere(Role),
}

/// What a request needs, by its method and route. What is in nobody's list needs everything.
pub(crate) fn needs(method: &Method, route: &str) -> Needs {
    use Needs::{Everywhere, InProject, Known, Listing, Nothing, OfProject};
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    let mut parts = route.trim_start_matches('/').trim_start_matches("v1/").split('/');
    let (noun, rest) = (parts.next().unwrap_or_default(), parts.collect::<Vec<_>>());
    let is_list = rest.is_empty();
    match noun {
        "healthz" | "readyz" if is_read => Nothing,
        "session" if is_list && is_read => Known,
        "session" => Nothing,
        "version" | "openapi.json" | "watch" if is_read => Known,
        "operations" if is_list && is_read => Listing,
        "tokens" | "operations" => Known,
        // Who sees a screen can type.
        "vms" if rest.last() == Some(&"screen") => InProject(Role::Operator),
        "addresses" if is_read => Listing,
        "vms" | "disks" | "disk-uploads" | "snapshots" | "networks" | "security-groups"
        | "scale-sets" | "ssh-keys" => match (is_read, is_list) {
            (true, true) => Listing,
            (true, false) => InProject(Role::Viewer),
            (false, _) => InProject(Role::Operator),
        },
        "projects" if is_list && is_read => Known,
        "projects" if is_read => OfProject(Role::Viewer),
        "projects" if rest.get(1) == Some(&"members") => OfProject(Role::Admin),
        // Their own, and their own password.
        "users" if rest.len() == 1 && is_read || rest.get(1) == Some(&"password") => Known,
        "images" | "pools" if is_read => Known,
        "images" => Everywhere(Role::Operator),
        "host" | "hosts" | "metrics" if is_read => Everywhere(Role::Viewer),
        // projects, users, pools, hosts, audit
        _ => Everywhere(Role::Admin),
    }
}

/// The project that a path names, if it is written as it is called.
fn project_of(uri: &Uri) -> Option<Name> {
    uri.path().split('/').nth(3)?.parse().ok()
}

fn check(caller: &Caller, needed: Needs, uri: &Uri) -> Result<(), Problem> {
    let unread =
        |error: axum::extract::rejection::QueryRejection| Problem::bad_request(error.body_text());
    match needed {
        Needs::Nothing | Needs::Known => Ok(()),
        Needs::Everywhere(role) => caller.need_everywhere(role),
        // Read as handlers read it.
        Needs::InProject(role) => {
            let Query(of) = Query::<ProjectParams>::try_from_uri(uri).map_err(unread)?;
            caller.need(role, &of.project)
        }
        Needs::Listing => {
            let Query(of) = Query::<OfProject>::try_from_uri(uri).map_err(unread)?;
            of.project.map_or(Ok(()), |project| caller.need(Role::Viewer, &project))
        }
        Needs::OfProject(role) => match project_of(uri) {
            Some(project) => caller.need(role, &project),
            None => caller.need_everywhere(role),
        },
    }
}

/// Lets through who may, as a [`Caller`] among the request's extensions.
pub(crate) async fn admit(
    State(state): State<Arc<crate::State>>,
    mut request: Request,
    next: Next,
) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    // Where nothing is, everybody who is known is told so.
    let needed = route.map_or(Needs::Known, |route| needs(request.method(), route.as_str()));
    if needed == Needs::Nothing {
        return next.run(request).await;
    }
    let peer = request.extensions().get::<Peer>().copied();
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let caller = match caller(&state, &method, &headers, peer).await {
        Ok(caller) => caller,
        Err(problem) => return problem.into_response(),
    };
    if let Err(problem) = check(&caller, needed, request.uri()) {
        let mut response = problem.into_response();
        response.extensions_mut().insert(caller);
        return response;
    }
    request.extensions_mut().insert(caller.clone());
    let mut response = next.run(request).await;
    response.extensions_mut().insert(caller);
    response
}

pub(crate) async fn caller(
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
        let of = digest.clone();
        let bearer = blocking(move || Ok(registry.bearer(&of, Timestamp::now())?)).await?;
        let bearer = bearer.ok_or_else(|| unknown("the token is not known, or has expired"))?;
        return Ok(Caller::bearing(digest, bearer));
    }
    match peer {
        Some(Peer::Local { uid }) if uid == 0 || uid == state.own_uid => Ok(Caller {
            who: format!("uid:{uid}"),
            rights: Rights::everywhere(Role::Admin),
            user: None,
            expires: None,
            secret: None,
        }),
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
