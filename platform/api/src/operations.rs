//! Operations.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use model::{Operation, OperationId, OperationState, Role};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::access::blocking;
use crate::extract::{Asking, Params, Path};
use crate::list::{ListParams, Page};
use crate::objects::{OfProject, Visible};
use crate::{Problem, Shared};

/// Longest wait: shorter than what proxies and clients wait for an answer.
const WAIT_MAX_S: u64 = 50;

/// Whether to wait.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct WaitParams {
    /// Answer when the operation is over, or after so many seconds: at most 50.
    #[serde(default)]
    #[param(maximum = 50)]
    wait_s: u64,
}

/// Operations, the oldest first
#[utoipa::path(get, path = "/v1/operations", tag = "operations", params(OfProject, ListParams), responses(
    (status = 200, description = "A page of them", body = Page<Operation>),
))]
pub(crate) async fn list(
    State(state): Shared,
    of: Visible,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<Operation>>, Problem> {
    blocking(move || {
        let (all, revision) = state.registry.operations(params.begin()?.0)?;
        let all = all.into_iter().map(|kept| kept.object);
        params.page(all.filter(|one| of.has(&one.target.project)).collect(), revision).map(Json)
    })
    .await
}

/// An operation
#[utoipa::path(get, path = "/v1/operations/{operation}", tag = "operations", params(
    WaitParams, ("operation" = String, Path, description = "Its ID"),
), responses(
    (status = 200, description = "It", body = Operation),
))]
pub(crate) async fn get(
    State(state): Shared,
    Params(how): Params<WaitParams>,
    Path(id): Path<OperationId>,
    asking: Asking,
) -> Result<Json<Operation>, Problem> {
    let limit = Duration::from_secs(how.wait_s.min(WAIT_MAX_S));
    let until = tokio::time::Instant::now() + limit;
    let registry = state.registry.clone();
    let (mut operation, mut watch) = blocking(move || {
        // Watched from before it is read, so that nothing is missed.
        let key = format!("/operations/{id}");
        let (_, now) = registry.store().get(&key).map_err(registry::RegistryError::from)?;
        let watch = registry.store().watch(&key, now.next());
        let watch = watch.map_err(registry::RegistryError::from)?;
        Ok((registry.operation(id)?.object, watch))
    })
    .await?;
    asking.caller.need(Role::Viewer, &operation.target.project)?;
    while operation.state == OperationState::Running {
        let change = std::future::poll_fn(|context| watch.poll(context));
        if !matches!(tokio::time::timeout_at(until, change).await, Ok(Ok(_))) {
            break;
        }
        let registry = state.registry.clone();
        operation = blocking(move || Ok(registry.operation(id)?.object)).await?;
    }
    Ok(Json(operation))
}

/// Cancel an operation: a VM that was to start is then off
#[utoipa::path(post, path = "/v1/operations/{operation}/cancel", tag = "operations", params(
    ("operation" = String, Path, description = "Its ID"),
), responses(
    (status = 200, description = "It is cancelled", body = Operation),
))]
pub(crate) async fn cancel(
    State(state): Shared,
    Path(id): Path<OperationId>,
    asking: Asking,
) -> Result<Json<Operation>, Problem> {
    blocking(move || {
        let operation = state.registry.operation(id)?.object;
        asking.caller.need(Role::Operator, &operation.target.project)?;
        Ok(Json(state.registry.cancel(id, &asking.asked)?))
    })
    .await
}
