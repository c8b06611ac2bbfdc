use super::*;

use axum::http::StatusCode;
use axum::routing::get;
use tower::ServiceExt;

const BROWSER: &str = "text/html,application/xhtml+xml,*/*;q=0.8";

async fn ask(method: Method, path: &str, accept: &str, coding: &str) -> Response {
    let api = Router::new().route("/v1/vms", get(|| async { "api" }));
    let request = Request::builder().method(method).uri(path);
    let request = request.header("accept", accept).header("accept-encoding", coding);
    over(api).oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

#[tokio::test]
async fn pages_are_the_shell_and_the_api_is_the_apis() {
    for page in ["/", "/vms", "/vms/default/web/console", "/made-up"] {
        let response = ask(Method::GET, page, BROWSER, "").await;
        assert_eq!(response.status(), StatusCode::OK, "{page}");
        assert_eq!(response.headers()["content-type"], "text/html; charset=utf-8");
        assert_eq!(response.headers()["cache-control"], "no-cache");
        let policy = response.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("script-src 'self';") && policy.contains("frame-ancestors 'none'"));
    }
    for (method, path, accept, status) in [
        (Method::GET, "/v1/vms", BROWSER, 200),
        (Method::GET, "/v1/nothing", BROWSER, 404),
        (Method::GET, "/metrics", BROWSER, 404),
        (Method::GET, "/assets/none.js", "*/*", 404),
        (Method::GET, "/vms", "application/json", 404),
        (Method::POST, "/vms", BROWSER, 404),
    ] {
        let response = ask(method.clone(), path, accept, "").await;
        assert_eq!(response.status().as_u16(), status, "{method} {path}");
        assert!(!response.headers().contains_key("content-security-policy"), "{method} {path}");
    }
}

#[tokio::test]
async fn what_has_its_digest_in_its_name_is_kept_for_ever_and_comes_packed() {
    // Without the UI there is nothing to see: `cargo xtask test` builds it before.
    for file in files::all().iter().filter(|file| file.path.starts_with("/assets/")) {
        for (coding, packed) in [("gzip, br", file.brotli), ("gzip", file.gzip), ("br;q=0", None)] {
            let response = ask(Method::GET, file.path, "*/*", coding).await;
            let headers = response.headers();
            assert!(headers["cache-control"].to_str().unwrap().ends_with("immutable"));
            assert_eq!(headers.contains_key("content-encoding"), packed.is_some(), "{coding}");
            let length = packed.unwrap_or(file.plain).len().to_string();
            assert_eq!(headers["content-length"], length.as_str());
        }
    }
}

#[test]
fn the_shell_is_small() {
    // What a browser needs before it shows anything: the page and what that names.
    const LEN_MAX: usize = 120 * 1000;
    let Some(shell) = files::find(files::SHELL) else { return };
    let page = String::from_utf8_lossy(shell.plain);
    let named = files::all().iter().filter(|file| page.contains(file.path));
    let sizes: Vec<_> =
        named.map(|file| (file.path, file.gzip.unwrap_or(file.plain).len())).collect();
    assert!(sizes.len() >= 2, "{sizes:?}");
    assert!(sizes.iter().map(|(_, len)| len).sum::<usize>() < LEN_MAX, "{sizes:?}");
}
