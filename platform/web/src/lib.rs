//! The web UI, as files inside the daemon.
//!
//! [`over`] puts it over the API: what is one of its files, or a page somebody opens in a browser, is answered
//! here, and everything else by the API. The sources are in `ui/`; `cargo xtask ui` builds them, and a
//! program that is built after it has them in it. One that is built without says so, in a page.
//!
//! *Invariants*: no page is served that may run a script, or load anything, from elsewhere, or that may be shown
//! inside another. What is kept by browsers for ever has a digest of itself in its name.
//!
//! What this crate may not know: the API behind it, beyond which paths are its own.
//!
//! Specifications: Content Security Policy Level 3, RFC 9110 section 12.5.3 and RFC 8246.

mod files;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::{Next, from_fn};
use axum::response::Response;

use files::File;

/// Scripts and connections are our own. The terminal makes style elements as it runs.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; manifest-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What is the API's, whoever asks.
const OF_API: &[&str] = &["/v1", "/healthz", "/readyz", "/metrics"];

/// Puts the UI over the API.
pub fn over(api: Router) -> Router {
    api.layer(from_fn(answer))
}

async fn answer(request: Request, next: Next) -> Response {
    match file(request.method(), request.uri().path(), request.headers()) {
        Some(file) => respond(file, request.method(), request.headers()),
        None => next.run(request).await,
    }
}

/// The file to answer with, if it is ours to answer.
fn file(method: &Method, path: &str, headers: &HeaderMap) -> Option<&'static File> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return None;
    }
    let is_api = |of: &&str| {
        path.strip_prefix(*of).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if OF_API.iter().any(is_api) {
        return None;
    }
    // Pages are made by the script in the shell, from the path.
    let is_page = || wants(headers, header::ACCEPT, "text/html").then(files::shell);
    files::find(path).or_else(is_page)
}

fn wants(headers: &HeaderMap, name: HeaderName, what: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|one| {
        let mut parts = one.split(';').map(str::trim);
        let is_it = parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case(what));
        is_it && !parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

fn respond(file: &'static File, method: &Method, headers: &HeaderMap) -> Response {
    let accepts = |coding| wants(headers, header::ACCEPT_ENCODING, coding);
    let (bytes, coding) = match file {
        File { brotli: Some(bytes), .. } if accepts("br") => (*bytes, Some("br")),
        File { gzip: Some(bytes), .. } if accepts("gzip") => (*bytes, Some("gzip")),
        File { plain, .. } => (*plain, None),
    };
    let is_asked = *method == Method::GET;
    let mut response = Response::new(if is_asked { Body::from(bytes) } else { Body::empty() });
    let to = response.headers_mut();
    let mut say = |name, value: &'static str| to.insert(name, HeaderValue::from_static(value));
    say(header::CONTENT_TYPE, file.kind());
    say(header::CACHE_CONTROL, file.keeping());
    say(header::VARY, "accept-encoding");
    say(header::CONTENT_SECURITY_POLICY, POLICY);
    say(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    say(header::REFERRER_POLICY, "no-referrer");
    say(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    say(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    coding.map(|coding| say(header::CONTENT_ENCODING, coding));
    to.insert(header::CONTENT_LENGTH, bytes.len().into());
    response
}

#[cfg(test)]
mod tests;
