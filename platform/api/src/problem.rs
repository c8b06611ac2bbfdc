//! Errors, as programs and people get them.

use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use registry::RegistryError;
use serde::Serialize;
use store::StoreError;
use utoipa::ToSchema;

/// A problem document (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// A URI that stands for the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status.
    pub status: u16,
    /// The HTTP status, in words.
    pub title: String,
    /// The kind of problem: it stays.
    pub code: String,
    /// What is wrong and what to do.
    pub detail: String,
}

impl Problem {
    /// A problem.
    pub fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:trine:problem:{code}"),
            status: status.as_u16(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            code: code.to_owned(),
            detail: detail.into(),
        }
    }

    /// What was asked cannot be understood.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", detail)
    }

    /// The daemon failed; the log says more.
    pub fn internal(error: &dyn std::error::Error) -> Self {
        tracing::error!(error = %errchain::Chain(error), "a request failed");
        let detail = "the daemon failed: its log says more, under this request's ID";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::BAD_REQUEST);
        let body = serde_json::to_string(&self).unwrap_or_default();
        (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response()
    }
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        use RegistryError as E;
        let (status, code) = match &error {
            E::Missing { .. } => (StatusCode::NOT_FOUND, "not-found"),
            E::Exists { .. } => (StatusCode::CONFLICT, "name-taken"),
            E::Changed => (StatusCode::PRECONDITION_FAILED, "changed"),
            E::Spec(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid-spec"),
            E::Fixed(_) => (StatusCode::UNPROCESSABLE_ENTITY, "fixed-field"),
            E::Protected(_) => (StatusCode::CONFLICT, "protected"),
            E::Running(_) => (StatusCode::CONFLICT, "vm-running"),
            E::NotRunning(_) => (StatusCode::CONFLICT, "vm-not-running"),
            E::Deleting { kind, .. } => {
                (StatusCode::CONFLICT, &*format!("{}-deleting", kind.to_lowercase()))
            }
            E::InUse { .. } => (StatusCode::CONFLICT, "in-use"),
            E::NetworkFull(_) => (StatusCode::CONFLICT, "network-full"),
            E::AddressTaken(_) => (StatusCode::CONFLICT, "address-taken"),
            E::AddressOutside(_) => (StatusCode::UNPROCESSABLE_ENTITY, "address-outside"),
            E::PortTaken { .. } => (StatusCode::CONFLICT, "port-taken"),
            E::SubnetTaken(_) => (StatusCode::CONFLICT, "subnet-taken"),
            E::NoSubnet => (StatusCode::CONFLICT, "no-subnet"),
            E::NotEmpty(_) => (StatusCode::CONFLICT, "project-not-empty"),
            E::Attached { .. } => (StatusCode::CONFLICT, "disk-attached"),
            E::NotAttached(_) => (StatusCode::CONFLICT, "disk-not-attached"),
            E::HasSnapshots { .. } => (StatusCode::CONFLICT, "disk-has-snapshots"),
            E::Shrink { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "disk-shrinks"),
            E::Quota { .. } => (StatusCode::CONFLICT, "quota-exceeded"),
            E::ProjectQuota { .. } => (StatusCode::CONFLICT, "project-quota-exceeded"),
            E::PoolInUse(_) => (StatusCode::CONFLICT, "pool-in-use"),
            E::NoDisks(_) | E::ApartFrom { .. } => {
                (StatusCode::UNPROCESSABLE_ENTITY, "invalid-spec")
            }
            E::NotTaken(_) => (StatusCode::CONFLICT, "snapshot-not-taken"),
            E::RunningDisk(_) => (StatusCode::CONFLICT, "vm-running"),
            E::NotCancellable(_) => (StatusCode::CONFLICT, "not-cancellable"),
            E::Store(StoreError::Compacted { .. }) => (StatusCode::GONE, "revision-compacted"),
            E::Store(StoreError::Future { .. }) => (StatusCode::BAD_REQUEST, "revision-unknown"),
            E::Store(StoreError::TooLarge) => (StatusCode::PAYLOAD_TOO_LARGE, "too-large"),
            E::Store(StoreError::Database(_)) => {
                tracing::error!(error = %errchain::Chain(&error), "the state cannot be used");
                let detail = "the state cannot be read or written just now: see whether the host's \
                              disk is full, and ask again";
                let status = StatusCode::SERVICE_UNAVAILABLE;
                return Self::new(status, "state-unavailable", detail);
            }
            E::Store(_) | E::Damaged { .. } => return Self::internal(&error),
        };
        Self::new(status, code, errchain::Chain(&error).to_string())
    }
}

pub(crate) async fn no_such_path(uri: Uri) -> Problem {
    let detail = format!("there is nothing at {}: see /v1/openapi.json", uri.path());
    Problem::new(StatusCode::NOT_FOUND, "no-such-path", detail)
}

pub(crate) async fn no_such_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} has no {method}: see /v1/openapi.json", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "no-such-method", detail)
}
