//! A guest's serial port.

use std::future::poll_fn;
use std::time::Duration;

use axum::body::{Body as Stream, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use model::Vm;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::access::blocking;
use crate::alive::gone;
use crate::extract::{Asking, Params, Path};
use crate::objects::ProjectParams;
use crate::{Problem, Shared};

/// Longest text typed at once: what a FIFO takes whole.
pub(crate) const TYPED_MAX: usize = 4096;
/// A guest that takes nothing for so long is not typed at.
const PATIENCE: Duration = Duration::from_secs(2);

/// How to read.
#[derive(Debug, Clone, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ReadParams {
    /// Read on as the guest prints.
    #[serde(default)]
    follow: bool,
}

/// That of a VM which has run.
pub(crate) async fn console(
    state: &std::sync::Arc<crate::State>,
    of: ProjectParams,
    vm: String,
) -> Result<host::Console, Problem> {
    let state = state.clone();
    blocking(move || {
        let vm = state.registry.get::<Vm>(&of.project, &vm)?.object;
        state.consoles.get(vm.meta.id).ok_or_else(|| {
            let detail = format!("VM '{}' has no console yet: start it first", vm.meta.name);
            Problem::new(StatusCode::CONFLICT, "vm-not-running", detail)
        })
    })
    .await
}

/// What a VM printed at its serial port
#[utoipa::path(get, path = "/v1/vms/{vm}/console", tag = "vms", params(
    ProjectParams, ReadParams, ("vm" = String, Path, description = "Its name or ID"),
), responses(
    (status = 200, description = "The last 128 KiB, and with `follow` what comes", content_type = "application/octet-stream", body = String),
))]
pub(crate) async fn read(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Params(how): Params<ReadParams>,
    Path(vm): Path<String>,
    asking: Asking,
) -> Result<Response, Problem> {
    let console = console(&state, of, vm).await?;
    let kind = [(header::CONTENT_TYPE, "application/octet-stream")];
    if !how.follow {
        return Ok((kind, console.read(0).0).into_response());
    }
    let pieces = stream::unfold((console, 0), |(console, at)| async move {
        let (bytes, end) = poll_fn(|context| console.poll_read(at, context)).await?;
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(bytes)), (console, end)))
    });
    let pieces = pieces.take_until(gone(state, asking.caller));
    Ok((kind, Stream::from_stream(pieces)).into_response())
}

/// Type at a VM's serial port
#[utoipa::path(post, path = "/v1/vms/{vm}/console", tag = "vms", params(
    ProjectParams, ("vm" = String, Path, description = "Its name or ID"),
), request_body(content = String, description = "At most 4096 bytes", content_type = "application/octet-stream"), responses(
    (status = 204, description = "It is typed"),
))]
pub(crate) async fn write(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Path(vm): Path<String>,
    typed: Bytes,
) -> Result<StatusCode, Problem> {
    if typed.len() > TYPED_MAX {
        let detail = format!("at most {TYPED_MAX} bytes are typed at once");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail));
    }
    let console = console(&state, of, vm).await?;
    type_all(&console, &typed).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Types as the guest takes it.
pub(crate) async fn type_all(console: &host::Console, typed: &[u8]) -> Result<(), Problem> {
    let mut rest = typed;
    let until = tokio::time::Instant::now() + PATIENCE;
    while !rest.is_empty() {
        let taken = console.write(rest).map_err(|error| Problem::internal(&error))?;
        rest = &rest[taken..];
        if taken == 0 {
            if tokio::time::Instant::now() >= until {
                let detail = "the guest takes nothing that is typed: is it running?";
                return Err(Problem::new(StatusCode::CONFLICT, "console-full", detail));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}
