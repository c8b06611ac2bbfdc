//! API v1: what people and programs can ask of the platform.
//!
//! [`Api::router`] is all of it. Who listens, and knows who is at the other end, gives each request a [`Peer`].
//!
//! *Invariants*: a request is let through by one table (`access`), by method and path, before any handler
//! sees it: no endpoint can forget to. A change answers with an operation and waits for nothing; who wants to wait
//! asks for the operation. What is open ends when its caller may it no longer. Every error is a problem document with a code that stays. Every change asked
//! for is in the audit, refused or not. The document in `docs/openapi.json` is made of the handlers.
//!
//! What this crate may not know: how VMs run, sockets, TLS.
//!
//! Specifications: RFC 9110 (HTTP), RFC 9457 (problem details), RFC 7396 (merge patch), RFC 6265bis
//! (cookies), RFC 6455 (WebSocket), WHATWG server-sent events, OpenAPI 3.1, RFC 9106 (Argon2).

mod access;
mod alive;
mod console;
mod disks;
mod extract;
mod filter;
mod hosts;
mod images;
mod list;
mod metrics;
mod networks;
mod objects;
mod oidc_session;
mod operations;
mod password;
mod pools;
mod problem;
mod projects;
mod requests;
mod scale_sets;
mod security_groups;
mod service;
mod session;
mod snapshots;
mod sockets;
mod ssh_keys;
mod tokens;
mod usage;
mod users;
mod vms;
mod watch;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use registry::Registry;
use utoipa::OpenApi;
use utoipa::openapi::{
    ContentBuilder, KnownFormat, ObjectBuilder, Ref, RefOr, ResponseBuilder, Schema, SchemaFormat,
    Type,
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use access::{Caller, Peer};
pub use disks::of_image;
pub use metrics::Metrics;
pub use problem::Problem;

/// What handlers have.
pub struct State {
    registry: Registry,
    consoles: Arc<host::Consoles>,
    guests: host::Guests,
    images: ::images::Store,
    metrics: Arc<Metrics>,
    /// Users of this host who may do anything, besides root.
    own_uid: u32,
    /// Requests with an idempotency key that are being answered.
    in_progress: Mutex<BTreeSet<String>>,
    /// With whom people can sign in.
    provider: Option<oidc::Provider>,
    attempts: oidc_session::Attempts,
    gate: password::Gate,
    identity: alive::Identity,
}

type Shared = axum::extract::State<Arc<State>>;

/// The API.
pub struct Api(Arc<State>);

/// What the API is over.
pub struct Parts {
    /// The state.
    pub registry: Registry,
    /// What guests print.
    pub consoles: Arc<host::Consoles>,
    /// VMs' processes.
    pub guests: host::Guests,
    /// What disks are made of.
    pub images: ::images::Store,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who of this host may do what root may.
    pub own_uid: u32,
    /// With whom people can sign in.
    pub provider: Option<oidc::Provider>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Trine",
        version = "1.0.0",
        description = "Virtual machines on any x86-64 Linux host.\n\nChanges answer with an operation. \
        Errors are problem documents (RFC 9457) with a stable `code`. A list has the `revision` it is of; \
        a watch from the next one misses nothing.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    components(schemas(Problem))
)]
struct Document;

fn routes() -> OpenApiRouter<Arc<State>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(vms::list, vms::create))
        .routes(routes!(vms::get, vms::patch, vms::delete))
        .routes(routes!(vms::start))
        .routes(routes!(vms::stop))
        .routes(routes!(vms::restart))
        .routes(routes!(vms::pause))
        .routes(routes!(vms::resize))
        .routes(routes!(vms::resume))
        .routes(routes!(console::read, console::write))
        .routes(routes!(sockets::terminal))
        .routes(routes!(sockets::screen))
        .routes(routes!(usage::usage))
        .routes(routes!(operations::list))
        .routes(routes!(operations::get))
        .routes(routes!(operations::cancel))
        .routes(routes!(hosts::get))
        .routes(routes!(hosts::usage))
        .routes(routes!(networks::list, networks::create))
        .routes(routes!(networks::get, networks::patch, networks::delete))
        .routes(routes!(networks::addresses))
        .routes(routes!(security_groups::list, security_groups::create))
        .routes(routes!(security_groups::get, security_groups::patch, security_groups::delete))
        .routes(routes!(scale_sets::list, scale_sets::create))
        .routes(routes!(scale_sets::get, scale_sets::patch, scale_sets::delete))
        .routes(routes!(disks::list, disks::create))
        .routes(routes!(disks::get, disks::patch, disks::delete))
        .routes(routes!(disks::upload))
        .routes(routes!(disks::resize))
        .routes(routes!(disks::attach))
        .routes(routes!(disks::detach))
        .routes(routes!(snapshots::list, snapshots::create))
        .routes(routes!(snapshots::get, snapshots::delete))
        .routes(routes!(snapshots::revert))
        .routes(routes!(pools::list, pools::create))
        .routes(routes!(pools::patch, pools::delete))
        .routes(routes!(images::list, images::upload))
        .routes(routes!(images::get, images::delete))
        .routes(routes!(images::download))
        .routes(routes!(projects::list, projects::create))
        .routes(routes!(projects::get, projects::patch, projects::delete))
        .routes(routes!(projects::members))
        .routes(routes!(projects::set_member, projects::remove_member))
        .routes(routes!(users::list, users::create))
        .routes(routes!(users::get, users::patch, users::delete))
        .routes(routes!(users::set_password))
        .routes(routes!(ssh_keys::list, ssh_keys::create))
        .routes(routes!(ssh_keys::get, ssh_keys::patch, ssh_keys::delete))
        .routes(routes!(session::get, session::begin, session::end))
        .routes(routes!(session::methods))
        .routes(routes!(oidc_session::oidc))
        .routes(routes!(oidc_session::oidc_callback))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::delete))
        .routes(routes!(requests::audit))
        .routes(routes!(watch::watch))
        .routes(routes!(watch::socket))
        .routes(routes!(service::version))
        .routes(routes!(service::live))
        .routes(routes!(service::ready))
        .routes(routes!(service::metrics))
        .routes(routes!(service::document))
}

/// The OpenAPI document, as JSON.
pub fn document() -> String {
    let (_, mut document) = routes().split_for_parts();
    let problem = ResponseBuilder::new().description("A problem").content(
        "application/problem+json",
        ContentBuilder::new().schema(Some(Ref::from_schema_name("Problem"))).build(),
    );
    let problem = RefOr::T(problem.build());
    let binary = SchemaFormat::KnownFormat(KnownFormat::Binary);
    let bytes = ObjectBuilder::new().schema_type(Type::String).format(Some(binary)).build();
    let bytes = ContentBuilder::new().schema(Some(RefOr::T(Schema::Object(bytes)))).build();
    // Generated clients name functions by these; a function of ours is called so in its module only.
    for item in document.paths.paths.values_mut() {
        let all = [&mut item.get, &mut item.post, &mut item.patch, &mut item.put, &mut item.delete];
        for operation in all.into_iter().flatten() {
            operation.responses.responses.insert("default".to_owned(), problem.clone());
            if let Some(RefOr::T(body)) = &mut operation.request_body
                && let Some(content) = body.content.get_mut("application/octet-stream")
            {
                *content = RefOr::T(bytes.clone());
            }
            let tag = operation.tags.iter().flatten().next().cloned().unwrap_or_default();
            operation.operation_id = operation.operation_id.take().map(|id| format!("{tag}_{id}"));
        }
    }
    let mut text = document.to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

impl Api {
    /// Over these parts.
    pub fn new(parts: Parts) -> Self {
        let Parts { registry, consoles, guests, images, metrics, own_uid, provider } = parts;
        Self(Arc::new(State {
            registry,
            consoles,
            guests,
            images,
            metrics,
            own_uid,
            in_progress: Mutex::default(),
            provider,
            attempts: oidc_session::Attempts::default(),
            gate: password::Gate::default(),
            identity: alive::Identity::default(),
        }))
    }

    /// All of it. Each request needs a [`Peer`] among its extensions.
    pub fn router(&self) -> Router {
        let (router, _) = routes().split_for_parts();
        router
            .fallback(problem::no_such_path)
            .method_not_allowed_fallback(problem::no_such_method)
            .layer(from_fn_with_state(self.0.clone(), requests::once))
            .layer(from_fn_with_state(self.0.clone(), access::admit))
            .layer(from_fn_with_state(self.0.clone(), requests::record))
            .layer(from_fn(requests::name))
            .with_state(self.0.clone())
    }
}

#[cfg(test)]
mod tests;
