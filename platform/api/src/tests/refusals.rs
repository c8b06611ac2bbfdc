//! Every endpoint of the document is asked by those who may not.

use registry::NewToken;

use super::*;
use crate::access::{Needs, digest, needs};

/// Every method of every path in the document.
fn endpoints() -> Vec<(Method, String)> {
    let document: Value = serde_json::from_str(&crate::document()).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let mut endpoints = Vec::new();
    for (path, item) in paths {
        for method in item.as_object().unwrap().keys() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            endpoints.push((method, path.clone()));
        }
    }
    assert!(endpoints.len() > 60);
    endpoints
}

/// What is asked where something is missing in a path.
fn filled(path: &str) -> String {
    let of = |segment: &str| {
        match segment {
            "{project}" => "default",
            // There, and nobody's who asks here.
            "{user}" => "root",
            "{token}" => "roots",
            "{operation}" => "OPERATION",
            other => return other.trim_matches(['{', '}']).to_owned(),
        }
        .to_owned()
    };
    path.split('/').map(of).collect::<Vec<_>>().join("/")
}

/// What those get who are refused: all of it is in the document's schema.
fn is_problem(answer: &Answer, status: u16, code: &str) -> bool {
    let body = &answer.body;
    let fields = ["type", "status", "title", "code", "detail"];
    answer.status.as_u16() == status
        && answer.headers[header::CONTENT_TYPE] == "application/problem+json"
        && fields.iter().all(|field| body.get(field).is_some())
        && body["code"] == code
        && body["type"] == format!("urn:trine:problem:{code}")
}

/// What each needs is written down here a second time, by hand: an endpoint that is in neither list fails.
fn listed(method: &Method, path: &str) -> &'static str {
    let is_read = *method == Method::GET;
    let noun = path.trim_start_matches("/v1/").split('/').next().unwrap();
    match (method.as_str(), path) {
        (_, "/healthz" | "/readyz" | "/v1/session/methods" | "/v1/session/oidc") => "open",
        (_, "/v1/session/oidc/callback") | ("POST" | "DELETE", "/v1/session") => "open",
        ("GET", "/v1/session" | "/v1/version" | "/v1/openapi.json") => "known",
        ("GET", "/v1/watch" | "/v1/watch/socket" | "/v1/tokens" | "/v1/projects") => "known",
        ("GET", "/v1/images" | "/v1/images/{image}" | "/v1/images/{image}/content") => "known",
        ("GET", "/v1/pools") => "known",
        // With somebody else's, or for more than they have.
        ("POST" | "DELETE", "/v1/tokens" | "/v1/tokens/{token}") => "admin",
        ("GET" | "POST", "/v1/operations/{operation}" | "/v1/operations/{operation}/cancel") => {
            if is_read {
                "viewer"
            } else {
                "operator"
            }
        }
        ("GET", "/v1/vms/{vm}/screen") => "operator",
        ("GET", "/v1/projects/{project}" | "/v1/projects/{project}/members") => "viewer",
        ("PUT" | "DELETE", "/v1/projects/{project}/members/{user}") => "admin",
        ("POST", "/v1/projects") | ("PATCH" | "DELETE", "/v1/projects/{project}") => "admin",
        ("POST" | "PATCH" | "DELETE", _) if noun == "pools" => "admin",
        ("POST" | "DELETE", _) if noun == "images" => "operator",
        ("GET", "/v1/host" | "/v1/host/usage" | "/metrics") => "viewer",
        _ if ["users", "audit"].contains(&noun) => "admin",
        ("GET", "/v1/operations" | "/v1/addresses") => "viewer",
        ("POST", "/v1/disk-uploads") => "operator",
        _ if [
            "vms",
            "disks",
            "snapshots",
            "networks",
            "security-groups",
            "scale-sets",
            "ssh-keys",
        ]
        .contains(&noun) =>
        {
            if is_read {
                "viewer"
            } else {
                "operator"
            }
        }
        _ => panic!("{method} {path}: say here who may, and in `access::needs`"),
    }
}

struct Cast {
    world: World,
    operation: String,
}

async fn cast() -> Cast {
    let world = World::new();
    let registry = &world.registry;
    registry.create_project("other".parse().unwrap(), Default::default(), NOW).unwrap();
    let token = |name: &str, role, project: Option<&str>, user: Option<&str>, expires| {
        let new = NewToken {
            name: name.parse().unwrap(),
            role,
            user: user.map(|user| user.parse().unwrap()),
            project: project.map(|project| project.parse().unwrap()),
            expires,
        };
        registry.create_token(new, digest(name), NOW).unwrap();
    };
    registry.create_user("root".parse().unwrap(), Default::default(), None, NOW).unwrap();
    token("roots", Role::Admin, None, Some("root"), None);
    token("viewer", Role::Viewer, None, None, None);
    token("elsewhere", Role::Admin, Some("other"), None, None);
    token("powerless", Role::Admin, None, Some("root"), None);
    token("expired", Role::Admin, None, None, Some(NOW));
    token("deleted", Role::Admin, None, None, None);
    registry.delete_token(&"deleted".parse().unwrap()).unwrap();
    let made = world.create("web").await;
    let operation = made.body["operation"]["id"].as_str().unwrap().to_owned();
    Cast { world, operation }
}

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

impl Cast {
    async fn ask(&self, method: &Method, path: &str, secret: Option<&str>) -> Answer {
        let mut path = filled(path).replace("OPERATION", &self.operation);
        let body = match path.as_str() {
            "/v1/tokens" => r#"{"name": "more", "role": "admin"}"#,
            p if p.ends_with("/password") => r#"{"password": "correct horse"}"#,
            _ => "",
        };
        if ["/v1/operations", "/v1/addresses"].contains(&path.as_str())
            || needs(method, &path) == Needs::Listing
        {
            path.push_str("?project=default");
        }
        let mut of = request(method.clone(), &path);
        if let Some(secret) = secret {
            of = of.header("authorization", format!("Bearer {secret}"));
        }
        self.world.send(STRANGER, of.body(Body::from(body)).unwrap()).await
    }
}

#[tokio::test]
async fn every_endpoint_refuses_who_is_not_known() {
    let cast = cast().await;
    for (method, path) in endpoints() {
        let is_open = listed(&method, &path) == "open";
        assert_eq!(needs(&method, &path) == Needs::Nothing, is_open, "{method} {path}");
        if is_open {
            continue;
        }
        for secret in [None, Some("wrong"), Some("expired"), Some("deleted")] {
            let refused = cast.ask(&method, &path, secret).await;
            let is_so = is_problem(&refused, 401, "unauthorized");
            assert!(is_so, "{method} {path} {secret:?}: {}", refused.body);
        }
    }
}

#[tokio::test]
async fn every_endpoint_refuses_who_may_less() {
    let cast = cast().await;
    for (method, path) in endpoints() {
        let refused: &[&str] = match listed(&method, &path) {
            "open" | "known" => continue,
            "viewer" => &["elsewhere", "powerless"],
            _ => &["elsewhere", "powerless", "viewer"],
        };
        for secret in refused {
            let refused = cast.ask(&method, &path, Some(secret)).await;
            let is_so = is_problem(&refused, 403, "forbidden");
            // Of themselves, and with the user's password: `tests::identity` has those.
            let own = [
                "GET /v1/users/{user}",
                "PUT /v1/users/{user}/password",
                "POST /v1/tokens",
                "DELETE /v1/tokens/{token}",
            ];
            let is_own =
                *secret == "powerless" && own.contains(&format!("{method} {path}").as_str());
            assert!(
                is_so || is_own,
                "{method} {path} {secret}: {} {}",
                refused.status,
                refused.body
            );
        }
    }
    // What was refused is in the audit, with who it was.
    let audit = cast.world.ask(Method::GET, "/v1/audit?filter=status=403", Value::Null).await;
    assert_eq!(audit.body["items"][0]["who"], "token:elsewhere");
}

#[tokio::test]
async fn who_may_something_in_one_project_sees_nothing_of_others() {
    let cast = cast().await;
    for path in [
        "vms",
        "disks",
        "networks",
        "snapshots",
        "security-groups",
        "scale-sets",
        "ssh-keys",
        "addresses",
        "operations",
    ] {
        let mine = cast.world.as_bearer(Method::GET, &format!("/v1/{path}"), "elsewhere", "").await;
        let items = mine.body["items"].as_array().unwrap();
        assert!(items.iter().all(|item| item["project"] == "other"), "{path}: {}", mine.body);
    }
    let projects = cast.world.as_bearer(Method::GET, "/v1/projects", "elsewhere", "").await;
    assert_eq!(projects.body["items"].as_array().unwrap().len(), 1);
    let vm = r#"{"name": "own"}"#;
    let made = cast.world.as_bearer(Method::POST, "/v1/vms?project=other", "elsewhere", vm).await;
    assert_eq!(made.status, StatusCode::ACCEPTED, "{}", made.body);
    // In what is told of all projects, too.
    let watch = cast.world.watch("/v1/watch?from=1", "elsewhere").await;
    let text = watch.until("\"own\"").await;
    assert!(!text.contains("\"web\""), "{text}");
}
