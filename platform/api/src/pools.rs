//! Pools: the folders in which disks are.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use model::{Disk, Name, Pool};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::access::blocking;
use crate::extract::{Asking, Body, Params, Path};
use crate::list::{ListParams, Page};
use crate::{Problem, Shared};

/// A pool that is asked for.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewPool {
    /// What it is to be called.
    name: Name,
    /// The folder: an absolute path of the host.
    path: String,
    /// How large all its disks together may be; without it, as the medium lets them.
    #[serde(default)]
    quota_bytes: Option<u64>,
}

/// What of a pool can change.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PoolPatch {
    /// How large all its disks together may be; `null`: as the medium lets them.
    quota_bytes: Option<u64>,
}

/// A pool, and what is in it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct PoolView {
    #[serde(flatten)]
    pool: Pool,
    /// How many disks are in it.
    disks: u64,
    /// How large they are, together.
    size_bytes: u64,
    /// Bytes they take.
    used_bytes: u64,
}

fn views(pools: Vec<Pool>, disks: &[Arc<Disk>]) -> Vec<PoolView> {
    let view = |pool: Pool| {
        let of = || disks.iter().filter(|disk| disk.spec.pool == pool.name);
        PoolView {
            disks: of().count() as u64,
            size_bytes: of().map(|disk| disk.spec.size_bytes).sum(),
            used_bytes: of().map(|disk| disk.status.used_bytes).sum(),
            pool,
        }
    };
    pools.into_iter().map(view).collect()
}

/// The pools there are
#[utoipa::path(get, path = "/v1/pools", tag = "pools", params(ListParams), responses(
    (status = 200, description = "A page of them, by name", body = Page<PoolView>),
))]
pub(crate) async fn list(
    State(state): Shared,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<PoolView>>, Problem> {
    blocking(move || {
        let (pools, revision) = state.registry.pools(params.begin()?.0)?;
        let (disks, _) = state.registry.all::<Disk>(Some(revision))?;
        let pools = pools.into_iter().map(|kept| kept.object).collect();
        params.page(views(pools, &disks), revision).map(Json)
    })
    .await
}

/// Make a pool of a folder of the host
#[utoipa::path(post, path = "/v1/pools", tag = "pools", request_body = NewPool, responses(
    (status = 201, description = "It is there", body = Pool),
))]
pub(crate) async fn create(
    State(state): Shared,
    asking: Asking,
    Body(NewPool { name, path, quota_bytes }): Body<NewPool>,
) -> Result<(StatusCode, Json<Pool>), Problem> {
    blocking(move || {
        let pool = Pool { name, path: Some(path), quota_bytes, created: asking.asked.at };
        pool.check().map_err(registry::RegistryError::from)?;
        let path = pool.path.as_deref().unwrap_or_default();
        if let Err(error) = std::fs::create_dir_all(path) {
            let detail = format!("{path} cannot be used: {error}");
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-spec", detail));
        }
        Ok((StatusCode::CREATED, Json(state.registry.create_pool(pool)?)))
    })
    .await
}

/// Set a pool's quota
#[utoipa::path(patch, path = "/v1/pools/{pool}", tag = "pools", params(
    ("pool" = String, Path, description = "Its name"),
), request_body = PoolPatch, responses(
    (status = 200, description = "The pool", body = Pool),
))]
pub(crate) async fn patch(
    State(state): Shared,
    Path(name): Path<Name>,
    Body(PoolPatch { quota_bytes }): Body<PoolPatch>,
) -> Result<Json<Pool>, Problem> {
    blocking(move || Ok(Json(state.registry.set_quota(&name, quota_bytes)?))).await
}

/// Forget a pool without disks; its folder stays
#[utoipa::path(delete, path = "/v1/pools/{pool}", tag = "pools", params(
    ("pool" = String, Path, description = "Its name"),
), responses(
    (status = 204, description = "It is gone"),
))]
pub(crate) async fn delete(
    State(state): Shared,
    Path(name): Path<Name>,
) -> Result<StatusCode, Problem> {
    blocking(move || Ok(state.registry.delete_pool(&name)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}
