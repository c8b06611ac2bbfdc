//! Requests without a socket.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, StatusCode, header};
use jiff::Timestamp;
use registry::Registry;
use serde_json::{Value, json};
use store::Embedded;
use tower::ServiceExt;

use model::Role;

use crate::{Api, Metrics, Parts, Peer};

mod identity;
mod refusals;

const OWN: Peer = Peer::Local { uid: 0 };
const STRANGER: Peer = Peer::Local { uid: 4242 };

struct World {
    router: Router,
    registry: Registry,
    _folder: tempfile::TempDir,
}

struct Answer {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    body: Value,
}

impl World {
    fn new() -> Self {
        Self::with(None)
    }

    fn with(provider: Option<oidc::Provider>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::new(Arc::new(Embedded::open(folder.path()).unwrap()));
        registry.found(Timestamp::UNIX_EPOCH).unwrap();
        let consoles = Arc::new(host::Consoles::new().unwrap());
        let images = ::images::Store::open(&folder.path().join("images")).unwrap();
        let guests = host::Guests::of(folder.path());
        let metrics = Arc::new(Metrics::new());
        let registry_of = registry.clone();
        let api = Api::new(Parts {
            registry: registry_of,
            consoles,
            guests,
            images,
            metrics,
            own_uid: 1,
            provider,
        });
        Self { router: api.router(), registry, _folder: folder }
    }

    async fn send(&self, peer: Peer, request: Request<Body>) -> Answer {
        let mut request = request;
        request.extensions_mut().insert(peer);
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> Answer {
        self.send(OWN, request(method, path).body(Body::from(body.to_string())).unwrap()).await
    }

    async fn create(&self, name: &str) -> Answer {
        self.ask(Method::POST, "/v1/vms", json!({ "name": name })).await
    }
}

fn request(method: Method, path: &str) -> axum::http::request::Builder {
    Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json")
}

#[test]
fn the_committed_document_is_that_of_the_handlers() {
    let committed = include_str!("../../../docs/openapi.json");
    assert_eq!(committed, crate::document(), "run: cargo xtask openapi");
}

#[test]
fn operations_have_names_of_their_own() {
    let document: Value = serde_json::from_str(&crate::document()).unwrap();
    let items = document["paths"].as_object().unwrap().values();
    let operations = items.flat_map(|item| item.as_object().unwrap().values());
    let ids: Vec<_> = operations.map(|one| one["operationId"].as_str().unwrap()).collect();
    let unique: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(ids.len(), unique.len(), "{ids:?}");
}

#[tokio::test]
async fn a_vm_is_made_read_changed_and_deleted() {
    let world = World::new();
    let created = world.create("web").await;
    assert_eq!(created.status, StatusCode::ACCEPTED, "{}", created.body);
    let operation = created.body["operation"]["id"].as_str().unwrap();
    assert_eq!(created.headers[header::LOCATION], format!("/v1/operations/{operation}"));
    assert_eq!(world.create("web").await.body["code"], "name-taken");

    let read = world.ask(Method::GET, "/v1/vms/web", Value::Null).await;
    let tag = read.headers[header::ETAG].clone();
    assert_eq!(read.body["status"]["phase"], "pending");
    let patch = |tag: &axum::http::HeaderValue| {
        let body = Body::from(r#"{"spec": {"cpus": 4, "labels": {"a": "b"}}}"#);
        request(Method::PATCH, "/v1/vms/web").header(header::IF_MATCH, tag).body(body).unwrap()
    };
    let patched = world.send(OWN, patch(&tag)).await;
    assert_eq!((patched.status, &patched.body["spec"]["cpus"]), (StatusCode::OK, &json!(4)));
    let stale = world.send(OWN, patch(&tag)).await;
    assert_eq!((stale.status.as_u16(), &stale.body["code"]), (412, &json!("changed")));

    let running = world.ask(Method::DELETE, "/v1/vms/web", Value::Null).await;
    assert_eq!((running.status.as_u16(), &running.body["code"]), (409, &json!("vm-running")));
    let deleted = world.ask(Method::DELETE, "/v1/vms/web?force=true", Value::Null).await;
    assert_eq!((deleted.status.as_u16(), &deleted.body["verb"]), (202, &json!("delete")));
}

#[tokio::test]
async fn a_request_that_comes_again_with_its_key_is_answered_as_before() {
    let world = World::new();
    let with_key = |name: &str| {
        let body = Body::from(json!({ "name": name }).to_string());
        request(Method::POST, "/v1/vms").header("idempotency-key", "k1").body(body).unwrap()
    };
    let first = world.send(OWN, with_key("web")).await;
    let again = world.send(OWN, with_key("web")).await;
    assert_eq!((first.status, &first.body), (again.status, &again.body));
    assert_eq!(again.headers["idempotency-replayed"], "true");
    let other = world.send(OWN, with_key("db")).await;
    assert_eq!(other.body["code"], "idempotency-key-reused");
    let all = world.ask(Method::GET, "/v1/vms", Value::Null).await;
    assert_eq!(all.body["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn pages_are_of_one_revision() {
    let world = World::new();
    for name in ["c", "a", "b"] {
        world.create(name).await;
    }
    let first = world.ask(Method::GET, "/v1/vms?limit=2&sort=name", Value::Null).await;
    let names = |answer: &Answer| -> Vec<String> {
        let items = answer.body["items"].as_array().unwrap();
        items.iter().map(|vm| vm["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&first), ["a", "b"]);
    world.create("aa").await;
    let page = first.body["next_page"].as_str().unwrap();
    let second = format!("/v1/vms?limit=2&sort=name&page={page}");
    let second = world.ask(Method::GET, &second, Value::Null).await;
    assert_eq!((names(&second), &second.body["next_page"]), (vec!["c".to_owned()], &Value::Null));
    let filtered = world.ask(Method::GET, "/v1/vms?filter=name~a&sort=-name", Value::Null).await;
    assert_eq!(names(&filtered), ["aa", "a"]);
    let bad = world.ask(Method::GET, "/v1/vms?filter=name", Value::Null).await;
    assert_eq!(bad.body["code"], "bad-request");
}

#[tokio::test]
async fn what_is_wrong_is_a_problem_with_a_code() {
    let world = World::new();
    for (method, path, body, status, code) in [
        (Method::GET, "/v1/nothing", Value::Null, 404, "no-such-path"),
        (Method::PUT, "/v1/vms", Value::Null, 405, "no-such-method"),
        (Method::GET, "/v1/vms/none", Value::Null, 404, "not-found"),
        (Method::POST, "/v1/vms", json!({"name": "A"}), 422, "invalid-body"),
        (Method::POST, "/v1/vms", json!({"name": "a", "spec": {"cpus": 0}}), 422, "invalid-spec"),
        (Method::POST, "/v1/vms", json!({"name": "a", "spek": {}}), 422, "invalid-body"),
        (Method::GET, "/v1/vms?limit=0", Value::Null, 400, "bad-request"),
        (Method::GET, "/v1/vms?page=x", Value::Null, 400, "bad-request"),
        (Method::GET, "/v1/operations/x", Value::Null, 400, "bad-request"),
    ] {
        let answer = world.ask(method.clone(), path, body).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path}: {}", answer.body);
        assert_eq!(answer.body["code"], code, "{method} {path}");
        assert_eq!(answer.headers[header::CONTENT_TYPE], "application/problem+json");
        assert!(answer.headers.contains_key("x-request-id"));
    }
}

#[tokio::test]
async fn a_token_lets_in_whoever_has_its_secret_and_files_of_the_host_are_for_administrators() {
    let world = World::new();
    let body = json!({ "name": "ci", "role": "operator" });
    let made = world.ask(Method::POST, "/v1/tokens", body).await;
    let secret = format!("Bearer {}", made.body["secret"].as_str().unwrap());
    let ask = |method: Method, path: &str, body: Value| {
        let body = Body::from(body.to_string());
        request(method, path).header("authorization", &secret).body(body).unwrap()
    };
    let vm = world.send(STRANGER, ask(Method::POST, "/v1/vms", json!({ "name": "a" }))).await;
    assert_eq!(vm.body["operation"]["requestor"]["who"], "token:ci");
    let kernel = json!({ "boot_from": { "kernel": { "kernel": "/etc/shadow" } } });
    let files = ask(Method::POST, "/v1/vms", json!({ "name": "b", "spec": kernel }));
    assert_eq!(world.send(STRANGER, files).await.body["code"], "host-files");
    // A merge patch (RFC 7396) takes the other kind of start away by name.
    let kernel =
        json!({ "boot_from": { "firmware": null, "kernel": { "kernel": "/etc/shadow" } } });
    let patch = ask(Method::PATCH, "/v1/vms/a", json!({ "spec": kernel }));
    assert_eq!(world.send(STRANGER, patch).await.body["code"], "host-files");
    let listed = world.ask(Method::GET, "/v1/tokens", Value::Null).await;
    assert!(!listed.body.to_string().contains(made.body["secret"].as_str().unwrap()));
    world.ask(Method::DELETE, "/v1/tokens/ci", Value::Null).await;
    let gone = world.send(STRANGER, ask(Method::GET, "/v1/vms", Value::Null)).await;
    assert_eq!(gone.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_watch_from_a_list_on_tells_what_comes_after_it() {
    use futures_util::StreamExt;
    let world = World::new();
    let list = world.ask(Method::GET, "/v1/vms", Value::Null).await;
    let from = list.body["revision"].as_u64().unwrap() + 1;
    world.create("web").await;
    let path = format!("/v1/watch?from={from}");
    let mut watch = request(Method::GET, &path).body(Body::empty()).unwrap();
    watch.extensions_mut().insert(OWN);
    let response = world.router.clone().oneshot(watch).await.unwrap();
    let mut stream = response.into_body().into_data_stream();
    let mut text = String::new();
    while !text.contains("\"verb\"") {
        text.push_str(std::str::from_utf8(&stream.next().await.unwrap().unwrap()).unwrap());
    }
    let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let events: Vec<Value> = events.map(|data| serde_json::from_str(data).unwrap()).collect();
    // One event for the VM, however many parts of it came.
    let vms: Vec<_> = events.iter().filter(|event| event["kind"] == "vm").collect();
    assert_eq!((vms.len(), &vms[0]["object"]["name"]), (1, &json!("web")), "{text}");
}

#[tokio::test]
async fn a_network_and_its_addresses_are_made_read_and_deleted() {
    let world = World::new();
    let body = json!({ "name": "lan", "spec": { "ipv4": "10.99.88.0/24" } });
    let made = world.ask(Method::POST, "/v1/networks", body.clone()).await;
    assert_eq!(
        (made.status, &made.body["status"]["phase"]),
        (StatusCode::CREATED, &json!("pending"))
    );
    assert!(made.body["spec"]["ipv6"].as_str().unwrap().ends_with("::/64"), "{}", made.body);
    assert_eq!(world.ask(Method::POST, "/v1/networks", body).await.body["code"], "subnet-taken");
    let spec = json!({ "networks": [{ "network": "lan", "address": "10.99.88.7" }] });
    let vm = json!({ "name": "web", "spec": spec });
    let vm = world.ask(Method::POST, "/v1/vms", vm).await;
    assert_eq!(vm.body["vm"]["status"]["networks"][0]["ipv4"], "10.99.88.7", "{}", vm.body);
    let addresses = world.ask(Method::GET, "/v1/addresses?filter=vm_name=web", Value::Null).await;
    assert_eq!(addresses.body["items"][0]["network"], "lan", "{}", addresses.body);
    let used = world.ask(Method::DELETE, "/v1/networks/lan", Value::Null).await;
    assert_eq!((used.status.as_u16(), &used.body["code"]), (409, &json!("in-use")));

    let free = json!({ "name": "free" });
    world.ask(Method::POST, "/v1/networks", free).await;
    let read = world.ask(Method::GET, "/v1/networks/free", Value::Null).await;
    let tag = read.headers[header::ETAG].clone();
    let patch = |body: &'static str| {
        let request = request(Method::PATCH, "/v1/networks/free").header(header::IF_MATCH, &tag);
        request.body(Body::from(body)).unwrap()
    };
    let fixed = world.send(OWN, patch(r#"{"spec": {"ipv4": "10.9.8.0/24"}}"#)).await;
    assert_eq!(fixed.body["code"], "fixed-field", "{}", fixed.body);
    let patched = world.send(OWN, patch(r#"{"spec": {"nat": false}}"#)).await;
    assert_eq!(patched.body["spec"]["nat"], false, "{}", patched.body);
    assert_eq!(world.send(OWN, patch(r#"{"spec": {"nat": true}}"#)).await.body["code"], "changed");
    let gone = world.ask(Method::DELETE, "/v1/networks/free", Value::Null).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    let list = world.ask(Method::GET, "/v1/networks?filter=name~a", Value::Null).await;
    assert_eq!(list.body["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_security_group_says_what_is_let_through() {
    let world = World::new();
    let first = world.ask(Method::GET, "/v1/security-groups/default", Value::Null).await;
    let rules = json!([
        { "direction": "out", "protocol": "any", "peer": "anybody" },
        { "direction": "in", "protocol": "any", "peer": { "group": "default" } },
    ]);
    assert_eq!(first.body["spec"]["rules"], rules);
    let rule = |ports: &str, peer: &str| json!({ "direction": "in", "protocol": "tcp", "ports": ports, "peer": { "cidr": peer } });
    let group = |rule: Value| json!({ "name": "web", "spec": { "rules": [rule] } });
    for bad in [rule("0", "10.0.0.0/8"), rule("9-8", "10.0.0.0/8"), rule("80", "10.0.0.0/33")] {
        let refused = world.ask(Method::POST, "/v1/security-groups", group(bad)).await;
        assert_eq!(refused.body["code"], "invalid-body", "{}", refused.body);
    }
    let made = world.ask(Method::POST, "/v1/security-groups", group(rule("80-81", "10.0.0.0/8")));
    assert_eq!(made.await.body["spec"]["rules"][0]["ports"], "80-81");
    let none = json!({ "spec": { "rules": [] } });
    let patched = world.ask(Method::PATCH, "/v1/security-groups/web", none).await;
    assert_eq!(patched.body["spec"]["rules"], json!([]), "{}", patched.body);
    let gone = world.ask(Method::DELETE, "/v1/security-groups/web", Value::Null).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    let first = world.ask(Method::DELETE, "/v1/security-groups/default", Value::Null).await;
    assert_eq!(first.body["code"], "in-use");
}

#[tokio::test]
async fn metrics_count_requests_by_route_and_not_by_what_clients_make_up() {
    let world = World::new();
    world.ask(Method::GET, "/v1/vms/made-up", Value::Null).await;
    let request = request(Method::GET, "/metrics").header("accept", "application/openmetrics-text");
    let mut request = request.body(Body::empty()).unwrap();
    request.extensions_mut().insert(OWN);
    let response = world.router.clone().oneshot(request).await.unwrap();
    let text = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let text = String::from_utf8(text.to_vec()).unwrap();
    assert!(text.contains(r#"path="/v1/vms/{vm}",status="404""#), "{text}");
    assert!(!text.contains("made-up") && text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn a_browser_signs_in_with_a_token_and_is_let_in_by_its_cookie_until_that_is_gone() {
    let world = World::new();
    let body = json!({ "name": "ann", "role": "operator" });
    let made = world.ask(Method::POST, "/v1/tokens", body).await;
    let secret = made.body["secret"].as_str().unwrap();
    let sign_in = |secret: &str| {
        let request = request(Method::POST, "/v1/session");
        request.header("authorization", format!("Bearer {secret}")).body(Body::empty()).unwrap()
    };
    assert_eq!(world.send(STRANGER, sign_in("guess")).await.status, StatusCode::UNAUTHORIZED);
    let signed_in = world.send(STRANGER, sign_in(secret)).await;
    let rights = json!({ "everywhere": "operator" });
    let expected =
        json!({ "who": "token:ann", "role": "operator", "rights": rights, "expires": null });
    assert_eq!(signed_in.body, expected);
    assert_eq!(signed_in.headers["cache-control"], "no-store");
    let set = signed_in.headers["set-cookie"].to_str().unwrap();
    let (cookie, attributes) = set.split_once("; ").unwrap();
    assert_eq!(attributes, "Path=/; Secure; HttpOnly; SameSite=Strict");

    let with = |method: Method, path: &str, origin: &str, body: Value| {
        let request = request(method, path).header("cookie", cookie).header("host", "h:1");
        let body = Body::from(body.to_string());
        request.header("origin", origin).body(body).unwrap()
    };
    let (own, other) = ("https://h:1", "https://other.example");
    let asked = world.send(STRANGER, with(Method::GET, "/v1/session", own, Value::Null)).await;
    assert_eq!(asked.body["who"], "token:ann");
    let vm = json!({ "name": "a" });
    let forged = world.send(STRANGER, with(Method::POST, "/v1/vms", other, vm.clone())).await;
    assert_eq!(forged.status, StatusCode::UNAUTHORIZED);
    let made = world.send(STRANGER, with(Method::POST, "/v1/vms", own, vm)).await;
    assert_eq!(made.body["operation"]["requestor"]["who"], "token:ann");
    let out = world.send(STRANGER, with(Method::DELETE, "/v1/session", own, Value::Null)).await;
    assert!(out.headers["set-cookie"].to_str().unwrap().ends_with("; Max-Age=0"));

    world.ask(Method::DELETE, "/v1/tokens/ann", Value::Null).await;
    let gone = world.send(STRANGER, with(Method::GET, "/v1/session", own, Value::Null)).await;
    assert_eq!(gone.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_image_that_is_sent_is_there_and_not_deleted_while_a_disk_is_made_of_it() {
    let world = World::new();
    let bytes = vec![7; 4096];
    let path = "/v1/images?name=old";
    let send = || request(Method::POST, path).body(Body::from(bytes.clone())).unwrap();
    let sent = world.send(OWN, send()).await;
    assert_eq!((sent.status, &sent.body["size_bytes"]), (StatusCode::CREATED, &json!(4096)));
    assert_eq!(world.send(OWN, send()).await.body["code"], "name-taken");
    let mut read = request(Method::GET, "/v1/images/old/content").body(Body::empty()).unwrap();
    read.extensions_mut().insert(OWN);
    let response = world.router.clone().oneshot(read).await.unwrap();
    assert_eq!(to_bytes(response.into_body(), 1 << 20).await.unwrap(), bytes);

    let small = json!({ "name": "d", "image": "old", "size_bytes": 512 });
    assert_eq!(world.ask(Method::POST, "/v1/disks", small).await.body["code"], "invalid-spec");
    let none = json!({ "name": "d", "image": "none" });
    assert_eq!(world.ask(Method::POST, "/v1/disks", none).await.body["code"], "not-found");
    let made = world.ask(Method::POST, "/v1/disks", json!({ "name": "d", "image": "old" })).await;
    assert_eq!(made.status, StatusCode::ACCEPTED, "{}", made.body);
    assert_eq!(made.body["disk"]["spec"]["size_bytes"], 4096);
    let kept = world.ask(Method::DELETE, "/v1/images/old", Value::Null).await;
    assert_eq!((kept.status, &kept.body["code"]), (StatusCode::CONFLICT, &json!("image-in-use")));
}

#[tokio::test]
async fn a_body_that_is_cut_off_leaves_no_image() {
    let world = World::new();
    let parts = [Ok(vec![1; 512]), Err(std::io::Error::other("gone"))];
    let body = Body::from_stream(futures_util::stream::iter(parts));
    let send = request(Method::POST, "/v1/images?name=half").body(body).unwrap();
    assert!(!world.send(OWN, send).await.status.is_success());
    let listed = world.ask(Method::GET, "/v1/images", Value::Null).await;
    assert_eq!(listed.body["items"], json!([]));
}

#[tokio::test]
async fn what_cannot_be_done_to_a_disk_says_why() {
    let world = World::new();
    let disk = |name: &str| json!({ "name": name, "size_bytes": 1 << 20 });
    world.ask(Method::POST, "/v1/disks", disk("data")).await;
    world.create("web").await;
    let attach = json!({ "vm": "web" });
    let attached = world.ask(Method::POST, "/v1/disks/data/attach", attach.clone()).await;
    assert_eq!(attached.body["target"]["kind"], "disk", "{}", attached.body);
    let vm = world.ask(Method::GET, "/v1/vms/web", Value::Null).await;
    assert_eq!(vm.body["spec"]["disks"], json!(["data"]));
    world.create("db").await;
    let quota = json!({ "quota_bytes": 1 << 20 });
    world.ask(Method::PATCH, "/v1/pools/default", quota).await;
    for (method, path, body, status, code) in [
        (Method::POST, "/v1/disks/data/attach", json!({ "vm": "db" }), 409, "disk-attached"),
        (Method::DELETE, "/v1/disks/data", Value::Null, 409, "disk-attached"),
        (Method::POST, "/v1/disks/data/resize", json!({ "size_bytes": 512 }), 422, "disk-shrinks"),
        (Method::POST, "/v1/disks/data/resize", json!({ "size_bytes": 1000 }), 422, "disk-shrinks"),
        (Method::POST, "/v1/disks", disk("more"), 409, "quota-exceeded"),
        (Method::POST, "/v1/disks", json!({ "name": "more" }), 422, "invalid-spec"),
        (Method::POST, "/v1/disks", disk("net0"), 422, "invalid-spec"),
        (Method::PATCH, "/v1/disks/data", json!({ "spec": { "pool": "x" } }), 422, "fixed-field"),
        (Method::PATCH, "/v1/vms/web", json!({ "spec": { "disks": [] } }), 422, "fixed-field"),
        (Method::POST, "/v1/snapshots", json!({ "name": "s", "vm": "db" }), 422, "invalid-spec"),
        (Method::DELETE, "/v1/pools/default", Value::Null, 409, "pool-in-use"),
    ] {
        let answer = world.ask(method.clone(), path, body).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path}: {}", answer.body);
        assert_eq!(answer.body["code"], code, "{method} {path}");
    }
    let taken = json!({ "name": "s", "vm": "web" });
    let taken = world.ask(Method::POST, "/v1/snapshots", taken).await;
    assert_eq!(taken.body["snapshot"]["spec"]["disks"], json!(["data"]), "{}", taken.body);
    let revert = world.ask(Method::POST, "/v1/snapshots/s/revert", Value::Null).await;
    assert_eq!(revert.body["code"], "snapshot-not-taken");
    let detached = world.ask(Method::POST, "/v1/disks/data/detach", Value::Null).await;
    assert_eq!(detached.status, StatusCode::ACCEPTED);
    let again = world.ask(Method::POST, "/v1/disks/data/detach", Value::Null).await;
    assert_eq!(again.body["code"], "disk-not-attached");
}
