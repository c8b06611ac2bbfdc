//! What is done for every request: an ID, the audit, answers that are given once.

use std::sync::{Arc, PoisonError};
use std::time::Instant;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use registry::{Answer, AuditRecord};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::access::{blocking, digest};
use crate::extract::Params;
use crate::list::{ListParams, Page};
use crate::{Caller, Peer, Problem, Shared};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const IDEMPOTENCY_KEY: &str = "idempotency-key";
const KEY_LEN_MAX: usize = 128;
/// What is read of a body that may have to be compared later, and of an answer that is kept.
const BODY_LEN_MAX: usize = 512 << 10;

/// What a request is called in log, audit and operation.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub String);

/// Gives the request an ID, and tells it.
pub(crate) async fn name(mut request: Request, next: Next) -> Response {
    let id = Uuid::now_v7().to_string();
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    // No browser keeps answers, nor guesses what they are.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn is_change(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// Counts, logs, and writes changes into the audit.
pub(crate) async fn record(
    State(state): State<Arc<crate::State>>,
    request: Request,
    next: Next,
) -> Response {
    let begin = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    // What clients make up must not make time series.
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let from = request.extensions().get::<Peer>().map_or_else(String::new, |peer| peer.from());
    let id = request.extensions().get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default();
    let response = next.run(request).await;
    let (status, took) = (response.status().as_u16(), begin.elapsed());
    state.metrics.request(&method, &route, status, took);
    let who = response.extensions().get::<Caller>().map(|caller| caller.who.clone());
    tracing::debug!(request = id, %method, path, status, who, took_us = took.as_micros() as u64);
    if is_change(&method) && !path.ends_with("/console") {
        let what = format!("{method} {path}");
        let record = AuditRecord { at: Timestamp::now(), who, from, what, status, request: id };
        let registry = state.registry.clone();
        let written = blocking(move || Ok(registry.audit(&record)?)).await;
        if let Err(problem) = written {
            // What cannot be put down is not told to be done.
            return problem.into_response();
        }
    }
    response
}

/// Answers a request that comes again with its idempotency key as it was answered.
pub(crate) async fn once(
    State(state): State<Arc<crate::State>>,
    request: Request,
    next: Next,
) -> Response {
    match once_or_problem(&state, request, next).await {
        Ok(response) => response,
        Err(problem) => problem.into_response(),
    }
}

/// Holds a key for as long as its request is being answered.
struct InProgress<'a>(&'a crate::State, String);

impl Drop for InProgress<'_> {
    fn drop(&mut self) {
        self.0.in_progress.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

async fn once_or_problem(
    state: &Arc<crate::State>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let caller = request.extensions().get::<Caller>().cloned();
    // An answer with a secret in it is not kept.
    if request.uri().path() == "/v1/tokens" {
        return Ok(next.run(request).await);
    }
    let key = request.headers().get(IDEMPOTENCY_KEY).cloned();
    let (Some(key), Some(Caller { who, .. }), &Method::POST) = (key, caller, request.method())
    else {
        return Ok(next.run(request).await);
    };
    let key = key.to_str().unwrap_or_default().to_owned();
    let is_key = !key.is_empty()
        && key.len() <= KEY_LEN_MAX
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    if !is_key {
        let detail = "an Idempotency-Key is 1 to 128 letters, digits, '.', '_' and '-'";
        return Err(Problem::bad_request(detail));
    }
    let held = format!("{who}/{key}");
    if !state.in_progress.lock().unwrap_or_else(PoisonError::into_inner).insert(held.clone()) {
        let detail = "the first request with this Idempotency-Key is still being answered";
        return Err(Problem::new(StatusCode::CONFLICT, "in-progress", detail));
    }
    let _held = InProgress(state, held);
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, BODY_LEN_MAX).await.map_err(|_| {
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "the body is too large")
    })?;
    let body_text = String::from_utf8_lossy(&body);
    let asked = digest(&format!("{} {}\n{body_text}", parts.method, parts.uri)).0;
    let (registry, of, by) = (state.registry.clone(), key.clone(), who.clone());
    let answer = blocking(move || Ok(registry.answer(&by, &of)?)).await?;
    match answer {
        Some(answer) if answer.request != asked => {
            let detail = "this Idempotency-Key was used for another request: take a new one";
            Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency-key-reused", detail))
        }
        Some(answer) => Ok(replay(&answer)),
        None => {
            let request = Request::from_parts(parts, Body::from(body));
            let response = next.run(request).await;
            keep(state, who, key, asked, response).await
        }
    }
}

fn replay(answer: &Answer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    let kind = match status.is_success() {
        true => "application/json",
        false => "application/problem+json",
    };
    let replayed = HeaderName::from_static("idempotency-replayed");
    let headers = [(header::CONTENT_TYPE, kind), (replayed, "true")];
    (status, headers, answer.body.clone()).into_response()
}

/// Remembers an answer, unless the daemon failed: then another try is wanted.
async fn keep(
    state: &Arc<crate::State>,
    who: String,
    key: String,
    asked: String,
    response: Response,
) -> Result<Response, Problem> {
    if response.status().is_server_error() {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, BODY_LEN_MAX).await.map_err(|error| Problem::internal(&error))?;
    let answer = Answer {
        request: asked,
        status: parts.status.as_u16(),
        body: String::from_utf8_lossy(&body).into_owned(),
    };
    let registry = state.registry.clone();
    blocking(move || Ok(registry.remember(&who, &key, &answer)?)).await?;
    Ok(Response::from_parts(parts, Body::from(body)))
}

/// A change that was asked for.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct AuditView {
    /// When.
    #[schema(format = DateTime)]
    at: String,
    /// `uid:N`, `user:NAME` or `token:NAME`; `null` when it was not known.
    who: Option<String>,
    /// `local`, or the client's address.
    from: String,
    /// Method and path.
    what: String,
    /// The status it was answered with.
    status: u16,
    /// The request's ID.
    request: String,
}

/// What was asked for, by whom, and how it was answered, the oldest first
#[utoipa::path(get, path = "/v1/audit", tag = "audit", params(ListParams), responses(
    (status = 200, description = "A page of it", body = Page<AuditView>),
))]
pub(crate) async fn audit(
    State(state): Shared,
    Params(params): Params<ListParams>,
) -> Result<Json<Page<AuditView>>, Problem> {
    blocking(move || {
        let (all, revision) = state.registry.audited(params.begin()?.0)?;
        let view = |record: AuditRecord| AuditView {
            at: record.at.to_string(),
            who: record.who,
            from: record.from,
            what: record.what,
            status: record.status,
            request: record.request,
        };
        let all = all.into_iter().map(|kept| view(kept.object)).collect();
        params.page(all, revision).map(Json)
    })
    .await
}
