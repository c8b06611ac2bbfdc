//! Networks, and whose their addresses are.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use model::{Address, Name, NetworkSpec, VirtualNetwork};
use registry::New;
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::access::blocking;
use crate::extract::{Asking, Body, IfMatch, Params, Path, etag};
use crate::list::{ListParams, Page};
use crate::objects::{self, OfProject, ProjectParams, Visible, Which};
use crate::{Problem, Shared};

/// A network that is asked for.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewNetworkBody {
    /// What it is to be called.
    name: Name,
    /// What is wanted of it.
    #[serde(default)]
    spec: NetworkSpec,
}

/// The networks there are
#[utoipa::path(get, path = "/v1/networks", tag = "networks", params(OfProject, ListParams), responses(
    (status = 200, description = "A page of networks, the oldest first", body = Page<VirtualNetwork>),
))]
pub(crate) async fn list(
    State(state): Shared,
    of: Visible,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<VirtualNetwork>>, Problem> {
    objects::list(state, of, params).await
}

/// Make a network; its status tells when it is ready
#[utoipa::path(post, path = "/v1/networks", tag = "networks", params(
    ProjectParams,
    ("Idempotency-Key" = Option<String>, Header, description = "Asked again with it within a day, nothing is done again"),
), request_body = NewNetworkBody, responses(
    (status = 201, description = "It is written down, with its addresses", body = VirtualNetwork),
))]
pub(crate) async fn create(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    asking: Asking,
    Body(body): Body<NewNetworkBody>,
) -> Result<impl IntoResponse, Problem> {
    blocking(move || {
        let new = New { name: body.name, project: of.project, spec: body.spec };
        let taken = host::subnets_in_use();
        let kept = state.registry.create_network(new, &taken, &asking.asked)?;
        Ok((StatusCode::CREATED, etag(kept.revision), Json(kept.object)))
    })
    .await
}

/// A network
#[utoipa::path(get, path = "/v1/networks/{network}", tag = "networks", params(
    ProjectParams, ("network" = String, Path, description = "Its name or ID"),
), responses(
    (status = 200, description = "It; its ETag is its spec's", body = VirtualNetwork),
))]
pub(crate) async fn get(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Path(network): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    objects::get::<VirtualNetwork>(state, of, network).await
}

/// Change a network's labels or its way out, by a merge patch
#[utoipa::path(patch, path = "/v1/networks/{network}", tag = "networks", params(
    ProjectParams, ("network" = String, Path, description = "Its name or ID"),
    ("If-Match" = Option<String>, Header, description = "The ETag that it must have"),
), request_body(content = Object, description = "As `{\"spec\": {\"nat\": false}}`"),
responses(
    (status = 200, description = "The network with the new spec", body = VirtualNetwork),
))]
pub(crate) async fn patch(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Path(network): Path<String>,
    IfMatch(revision): IfMatch,
    Body(patch): Body<Value>,
) -> Result<impl IntoResponse, Problem> {
    let which = Which { of, name: network, revision };
    objects::patch::<VirtualNetwork>(state, which, patch, |_| Ok(())).await
}

/// Delete a network that no VM has a card on
#[utoipa::path(delete, path = "/v1/networks/{network}", tag = "networks", params(
    ProjectParams, ("network" = String, Path, description = "Its name or ID"),
    ("If-Match" = Option<String>, Header, description = "The ETag that it must have"),
), responses(
    (status = 204, description = "It is gone, and soon all there is of it on the host"),
))]
pub(crate) async fn delete(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Path(network): Path<String>,
    IfMatch(revision): IfMatch,
) -> Result<StatusCode, Problem> {
    blocking(move || Ok(state.registry.delete_network(&of.project, &network, revision)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The addresses of networks that VMs have
#[utoipa::path(get, path = "/v1/addresses", tag = "networks", params(OfProject, ListParams), responses(
    (status = 200, description = "A page of them, by network", body = Page<Address>),
))]
pub(crate) async fn addresses(
    State(state): Shared,
    of: Visible,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<Address>>, Problem> {
    blocking(move || {
        let (all, revision) = state.registry.addresses(params.begin()?.0)?;
        let all = all.into_iter().filter(|address| of.has(&address.project)).collect();
        params.page(all, revision).map(Json)
    })
    .await
}
