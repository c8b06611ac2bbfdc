//! What handlers take, with problem documents where it is not there.

use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, FromRequestParts, Json, Query, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use jiff::Timestamp;
use model::Requestor;
use registry::Asked;
use serde::de::DeserializeOwned;
use store::Revision;

use crate::requests::RequestId;
use crate::{Caller, Problem};

/// A JSON body.
pub(crate) struct Body<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match Json::<T>::from_request(request, state).await {
            Ok(Json(body)) => Ok(Self(body)),
            Err(JsonRejection::MissingJsonContentType(_)) => {
                let detail = "say 'Content-Type: application/json'";
                Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "no-json", detail))
            }
            Err(JsonRejection::JsonDataError(error)) => {
                let detail = error.body_text();
                Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid-body", detail))
            }
            Err(JsonRejection::BytesRejection(error)) => {
                Err(Problem::new(error.status(), "too-large", error.body_text()))
            }
            Err(error) => Err(Problem::bad_request(error.body_text())),
        }
    }
}

/// A JSON body that need not be there, and is.
pub(crate) fn json<T: DeserializeOwned>(headers: &HeaderMap, body: &[u8]) -> Result<T, Problem> {
    // Another site's form cannot say so.
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is_json = kind.is_some_and(|kind| kind.split(';').next() == Some("application/json"));
    if !is_json {
        let detail = "say 'Content-Type: application/json'";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "no-json", detail));
    }
    serde_json::from_slice(body).map_err(|error| {
        let (status, code) = match error.is_data() {
            true => (StatusCode::UNPROCESSABLE_ENTITY, "invalid-body"),
            false => (StatusCode::BAD_REQUEST, "bad-request"),
        };
        Problem::new(status, code, error.to_string())
    })
}

/// Parameters after the path.
pub(crate) struct Params<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query.map(|Query(query)| Self(query)).map_err(|e| Problem::bad_request(e.body_text()))
    }
}

/// Part of the path: a name, an ID.
pub(crate) struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        let bad = |error: axum::extract::rejection::PathRejection| {
            Problem::bad_request(error.body_text())
        };
        path.map(|axum::extract::Path(path)| Self(path)).map_err(bad)
    }
}

/// Who asks, and when: [`Asked`].
pub(crate) struct Asking {
    pub asked: Asked,
    pub caller: Caller,
}

impl<S: Send + Sync> FromRequestParts<S> for Asking {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Caller>().cloned();
        // `access` lets nobody through without.
        let caller = caller.ok_or_else(|| {
            Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "nobody said who asks")
        })?;
        let request = parts.extensions.get::<RequestId>().map_or("", |id| id.0.as_str());
        let by = Requestor { who: caller.who.clone(), request: request.to_owned() };
        Ok(Self { asked: Asked { by, at: Timestamp::now() }, caller })
    }
}

/// The revision that an object must still be of.
pub(crate) struct IfMatch(pub Option<Revision>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        if_match(&parts.headers).map(Self)
    }
}

fn if_match(headers: &HeaderMap) -> Result<Option<Revision>, Problem> {
    let Some(header) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = header.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    let revision = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    let revision = revision.and_then(|text| text.parse().ok()).map(Revision);
    let bad = || Problem::bad_request("If-Match is the ETag of an answer, with its quotes, or *");
    revision.map(Some).ok_or_else(bad)
}

/// The tag of an object of this revision.
pub(crate) fn etag(revision: Revision) -> [(header::HeaderName, String); 1] {
    [(header::ETAG, format!("\"{revision}\""))]
}
