//! Signing in, and being signed out.

use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use super::*;

impl World {
    pub(super) async fn as_bearer(
        &self,
        method: Method,
        path: &str,
        secret: &str,
        body: &str,
    ) -> Answer {
        let of = request(method, path).header("authorization", format!("Bearer {secret}"));
        self.send(STRANGER, of.body(Body::from(body.to_owned())).unwrap()).await
    }

    /// What is told, as it comes.
    pub(super) async fn watch(&self, path: &str, secret: &str) -> Told {
        let of = request(Method::GET, path).header("authorization", format!("Bearer {secret}"));
        let mut of = of.body(Body::empty()).unwrap();
        of.extensions_mut().insert(STRANGER);
        let response = self.router.clone().oneshot(of).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let parts = response.into_body().into_data_stream();
        Told(parts.map(|part| String::from_utf8(part.unwrap().to_vec()).unwrap()).boxed())
    }

    async fn user(&self, name: &str, rights: Value) {
        let body = json!({ "name": name, "password": "correct horse", "rights": rights });
        let made = self.ask(Method::POST, "/v1/users", body).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.body);
    }

    async fn sign_in(&self, name: &str, password: &str) -> Answer {
        let body = json!({ "user": name, "password": password });
        let body = Body::from(body.to_string());
        self.send(STRANGER, request(Method::POST, "/v1/session").body(body).unwrap()).await
    }

    async fn signed_in(&self, name: &str) -> String {
        secret(&self.sign_in(name, "correct horse").await)
    }
}

pub(super) struct Told(BoxStream<'static, String>);

impl Told {
    pub(super) async fn until(mut self, what: &str) -> String {
        let mut text = String::new();
        while !text.contains(what) {
            text.push_str(&self.0.next().await.unwrap());
        }
        text
    }

    /// It ends, and soon.
    async fn ends(mut self) {
        let end = async { while self.0.next().await.is_some() {} };
        tokio::time::timeout(std::time::Duration::from_secs(5), end).await.unwrap();
    }
}

fn secret(answer: &Answer) -> String {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
    let cookie = answer.headers[header::SET_COOKIE].to_str().unwrap();
    assert!(cookie.ends_with("; Path=/; Secure; HttpOnly; SameSite=Strict"), "{cookie}");
    let pair = cookie.split(';').next().unwrap();
    pair.strip_prefix("__Host-trine=").unwrap().to_owned()
}

#[tokio::test]
async fn somebody_signs_in_does_what_they_may_and_signs_out() {
    let world = World::new();
    world.user("ann", json!({ "projects": { "default": "operator" } })).await;
    let answer = world.sign_in("ann", "correct horse").await;
    assert_eq!(
        (&answer.body["who"], &answer.body["role"]),
        (&json!("user:ann"), &json!("operator"))
    );
    let secret = secret(&answer);
    let vm = world.as_bearer(Method::POST, "/v1/vms", &secret, r#"{"name": "a"}"#).await;
    assert_eq!(vm.body["operation"]["requestor"]["who"], "user:ann", "{}", vm.body);
    let images = world.as_bearer(Method::DELETE, "/v1/images/x", &secret, "").await;
    assert_eq!(images.body["code"], "forbidden");
    let out = world.as_bearer(Method::DELETE, "/v1/session", &secret, "").await;
    assert_eq!(out.status, StatusCode::NO_CONTENT);
    let gone = world.as_bearer(Method::GET, "/v1/vms", &secret, "").await;
    assert_eq!(gone.status, StatusCode::UNAUTHORIZED);
    let audit = world.ask(Method::GET, "/v1/audit?filter=what~session", Value::Null).await;
    assert_eq!(audit.body["items"][0]["who"], "user:ann", "{}", audit.body);
}

#[tokio::test]
async fn nobody_learns_who_is_a_user_by_signing_in() {
    let world = World::new();
    world.user("ann", json!({})).await;
    world.user("off", json!({})).await;
    world.ask(Method::PATCH, "/v1/users/off", json!({ "disabled": true })).await;
    let mut answers = Vec::new();
    for (name, password) in
        [("ann", "wrong"), ("nobody", "wrong"), ("off", "correct horse"), ("#!", "")]
    {
        let answer = world.sign_in(name, password).await;
        answers.push((answer.status.as_u16(), answer.body));
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!((answers[0].0, &answers[0].1["code"]), (401, &json!("wrong-password")));
    // Nor by being stopped.
    for name in ["ann", "nobody"] {
        for _ in 0..5 {
            world.sign_in(name, "wrong").await;
        }
        let stopped = world.sign_in(name, "correct horse").await;
        assert_eq!(stopped.body["code"], "too-many-attempts", "{name}");
        assert!(stopped.headers.contains_key("retry-after"));
    }
    // Another site's page cannot sign somebody in.
    let form = Request::builder().method(Method::POST).uri("/v1/session");
    let form = form.header("content-type", "text/plain").body(Body::from("{}")).unwrap();
    assert_eq!(world.send(STRANGER, form).await.body["code"], "no-json");
}

#[tokio::test]
async fn what_is_open_ends_with_its_token_its_session_and_its_rights() {
    let world = World::new();
    world.user("ann", json!({ "everywhere": "viewer" })).await;
    let new = json!({ "name": "ci", "role": "viewer" });
    let token = world.ask(Method::POST, "/v1/tokens", new).await;
    let token = token.body["secret"].as_str().unwrap();
    let watch = world.watch("/v1/watch", token).await;
    let usage = world.watch("/v1/host/usage", token).await;
    world.ask(Method::DELETE, "/v1/tokens/ci", Value::Null).await;
    watch.ends().await;
    usage.ends().await;

    let secret = world.signed_in("ann").await;
    let watch = world.watch("/v1/watch", &secret).await;
    world
        .ask(Method::PATCH, "/v1/users/ann", json!({ "rights": { "everywhere": "operator" } }))
        .await;
    watch.ends().await;
    let watch = world.watch("/v1/watch", &secret).await;
    let new = json!({ "password": "battery staple", "old_password": "correct horse" });
    let path = "/v1/users/ann/password";
    let changed = world.as_bearer(Method::PUT, path, &secret, &new.to_string()).await;
    assert_eq!(changed.status, StatusCode::NO_CONTENT, "{}", changed.body);
    watch.ends().await;
    let secret = super::identity::secret(&world.sign_in("ann", "battery staple").await);
    let watch = world.watch("/v1/watch", &secret).await;
    world.ask(Method::DELETE, "/v1/users/ann", Value::Null).await;
    watch.ends().await;
}

#[tokio::test]
async fn nobody_gives_away_more_than_they_have() {
    let world = World::new();
    world.user("ann", json!({ "projects": { "default": "operator" } })).await;
    world.user("boss", json!({ "projects": { "default": "admin" } })).await;
    let (ann, boss) = (world.signed_in("ann").await, world.signed_in("boss").await);
    let make = async |secret: &str, new: Value| {
        let made = world.as_bearer(Method::POST, "/v1/tokens", secret, &new.to_string()).await;
        (made.status.as_u16(), made.body)
    };
    // Her own may what she may, whatever it says.
    let (status, own) = make(&ann, json!({ "name": "own", "role": "admin" })).await;
    assert_eq!((status, &own["user"]), (201, &json!("ann")), "{own}");
    let own = own["secret"].as_str().unwrap();
    let more = world.as_bearer(Method::DELETE, "/v1/projects/default", own, "").await;
    assert_eq!(more.body["code"], "forbidden");
    let (_, viewer) = make(&ann, json!({ "name": "sees", "role": "viewer" })).await;
    let viewer = viewer["secret"].as_str().unwrap();
    assert_eq!(make(viewer, json!({ "name": "x", "role": "operator" })).await.0, 403);
    assert_eq!(make(&ann, json!({ "name": "x", "role": "viewer", "user": "boss" })).await.0, 403);
    assert_eq!(
        make(&ann, json!({ "name": "x", "role": "viewer", "project": "default" })).await.0,
        403
    );
    let of = json!({ "name": "its", "role": "operator", "project": "default" });
    assert_eq!(make(&boss, of).await.0, 201);
    // A project's administrator says who may what in it, and nowhere else.
    let role = r#"{"role": "viewer"}"#;
    let path = "/v1/projects/default/members/ann";
    let set = world.as_bearer(Method::PUT, path, &boss, role).await;
    assert_eq!(set.body, json!({ "user": "ann", "role": "viewer" }));
    let vm = world.as_bearer(Method::POST, "/v1/vms", &ann, r#"{"name": "a"}"#).await;
    assert_eq!(vm.body["code"], "forbidden");
    let users = world.as_bearer(Method::GET, "/v1/users", &boss, "").await;
    assert_eq!(users.body["code"], "forbidden");
    let own = world.as_bearer(Method::GET, "/v1/users/ann", &ann, "").await;
    assert!(own.body["name"] == "ann" && !own.body.to_string().contains("argon2"), "{}", own.body);
    let tokens = world.as_bearer(Method::GET, "/v1/tokens", &ann, "").await;
    assert_eq!(tokens.body["items"].as_array().unwrap().len(), 2, "{}", tokens.body);
}

#[tokio::test]
async fn a_quota_is_told_with_what_is_taken_and_what_is_too_much_is_refused() {
    let world = World::new();
    let quota = json!({ "quota": { "vms": 1, "cpus": 4 } });
    let set = world.ask(Method::PATCH, "/v1/projects/default", quota).await;
    assert_eq!(set.body["quota"], json!({ "vms": 1, "cpus": 4 }), "{}", set.body);
    world.create("a").await;
    let refused = world.create("b").await;
    assert_eq!(
        (refused.status.as_u16(), &refused.body["code"]),
        (409, &json!("project-quota-exceeded"))
    );
    let more = json!({ "spec": { "cpus": 5 } });
    let more = world.ask(Method::PATCH, "/v1/vms/a", more).await;
    assert_eq!(more.body["code"], "project-quota-exceeded");
    let lifted = json!({ "quota": { "vms": null } });
    let lifted = world.ask(Method::PATCH, "/v1/projects/default", lifted).await;
    assert_eq!(lifted.body["quota"], json!({ "cpus": 4 }));
    assert_eq!(lifted.body["status"]["used"]["vms"], 1);
    let wrong = json!({ "quota": { "vms": "many" } });
    let wrong = world.ask(Method::PATCH, "/v1/projects/default", wrong).await;
    assert_eq!(wrong.body["code"], "invalid-body");
}

#[tokio::test]
async fn a_vm_is_made_with_keys_by_name() {
    let world = World::new();
    let text =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIH/IJQX23i6VB4XCm2ne2jwT0j03j8JsWvE5Y9jkPjQj me";
    let key = json!({ "name": "mine", "spec": { "public_key": text } });
    let key = world.ask(Method::POST, "/v1/ssh-keys", key).await;
    assert_eq!(key.body["status"]["kind"], "ssh-ed25519", "{}", key.body);
    let told = json!({ "user": "me", "keys": ["mine"] });
    let vm = json!({ "name": "a", "spec": { "cloud_init": told } });
    let vm = world.ask(Method::POST, "/v1/vms", vm).await;
    assert_eq!(vm.body["vm"]["spec"]["cloud_init"]["ssh_keys"], json!([text]), "{}", vm.body);
    let gone = world.ask(Method::DELETE, "/v1/ssh-keys/mine", Value::Null).await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    let missing = json!({ "name": "b", "spec": { "cloud_init": { "keys": ["mine"] } } });
    let missing = world.ask(Method::POST, "/v1/vms", missing).await;
    assert_eq!(missing.body["code"], "not-found", "{}", missing.body);
}
