//! The daemon itself.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use crate::access::blocking;
use crate::{Problem, Shared};

/// What answers.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Version {
    /// Its name.
    program: &'static str,
    /// Its version.
    version: &'static str,
    /// The API's.
    api: &'static str,
}

/// What answers here
#[utoipa::path(get, path = "/v1/version", tag = "service", responses(
    (status = 200, description = "Program and versions", body = Version),
))]
pub(crate) async fn version() -> Json<Version> {
    Json(Version { program: "trined", version: env!("CARGO_PKG_VERSION"), api: "1.0.0" })
}

/// Whether the daemon lives
#[utoipa::path(get, path = "/healthz", tag = "service", responses(
    (status = 200, description = "It does", body = String),
))]
pub(crate) async fn live() -> &'static str {
    "ok\n"
}

/// Whether the daemon can work: its store answers, and its last look at the host was not long ago
#[utoipa::path(get, path = "/readyz", tag = "service", responses(
    (status = 200, description = "It can", body = String),
))]
pub(crate) async fn ready(State(state): Shared) -> Result<&'static str, Problem> {
    let registry = state.registry.clone();
    blocking(move || Ok(registry.projects(None)?)).await?;
    if !state.metrics.is_stepping() {
        let detail = "VMs have not been looked after for a while: the log says why";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-stepping", detail));
    }
    Ok("ok\n")
}

/// Metrics, for Prometheus
#[utoipa::path(get, path = "/metrics", tag = "service", responses(
    (status = 200, description = "OpenMetrics text", body = String),
))]
pub(crate) async fn metrics(State(state): Shared, headers: HeaderMap) -> impl IntoResponse {
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let (kind, text) = match accepted.is_some_and(|kinds| kinds.contains("openmetrics-text")) {
        true => {
            ("application/openmetrics-text; version=1.0.0; charset=utf-8", state.metrics.text())
        }
        false => ("text/plain; version=0.0.4; charset=utf-8", state.metrics.plain()),
    };
    ([(header::CONTENT_TYPE, kind)], text)
}

/// This document
#[utoipa::path(get, path = "/v1/openapi.json", tag = "service", responses(
    (status = 200, description = "OpenAPI 3.1", body = Object),
))]
pub(crate) async fn document() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], crate::document())
}
