//! Signing in with a small provider of our own.

use std::sync::{Arc, Mutex as Lock};

use axum::extract::{Form, State};
use axum::http::HeaderMap;
use axum::routing::{get, post};
use axum::{Json, Router};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{EncodingKey, Header, encode};
use model::Role;
use serde_json::json;

use super::*;

/// A provider, which answers with these claims, and remembers what it was asked.
struct World {
    issuer: String,
    key: EncodingKey,
    kid: String,
    claims: Lock<Value>,
    asked: Lock<Vec<(Value, Option<String>)>>,
}

fn key() -> EncodingKey {
    EncodingKey::from_ec_der(&rcgen::KeyPair::generate().unwrap().serialize_der())
}

async fn world() -> (Arc<World>, Provider) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    let world = Arc::new(World {
        issuer: issuer.clone(),
        key: key(),
        kid: "one".into(),
        claims: Lock::new(Value::Null),
        asked: Lock::default(),
    });
    let router = Router::new()
        .route("/.well-known/openid-configuration", get(metadata))
        .route("/token", post(token))
        .route("/keys", get(keys))
        .with_state(world.clone());
    tokio::spawn(async move { axum_serve(listener, router).await });
    let config = json!({
        "issuer": issuer, "client_id": "trine", "url": "https://trine.example:8443",
        "roles": [
            { "group": "admins", "role": "admin" },
            { "group": "web", "role": "operator", "project": "web" },
        ],
    });
    (world, Provider::new(serde_json::from_value(config).unwrap()).unwrap())
}

/// axum's own server is a feature that the daemon does without.
async fn axum_serve(listener: tokio::net::TcpListener, router: Router) {
    while let Ok((stream, _)) = listener.accept().await {
        let service = hyper_util::service::TowerToHyperService::new(router.clone());
        tokio::spawn(async move {
            let served = hyper::server::conn::http1::Builder::new();
            let _ = served.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
use hyper_util::rt::TokioIo;

async fn metadata(State(world): State<Arc<World>>) -> Json<Value> {
    let of = &world.issuer;
    Json(json!({
        "issuer": of, "authorization_endpoint": format!("{of}/authorize"),
        "token_endpoint": format!("{of}/token"), "jwks_uri": format!("{of}/keys"),
    }))
}

async fn keys(State(world): State<Arc<World>>) -> Json<Value> {
    let mut key = Jwk::from_encoding_key(&world.key, Algorithm::ES256).unwrap();
    key.common.key_id = Some("one".into());
    Json(json!({ "keys": [key] }))
}

async fn token(
    State(world): State<Arc<World>>,
    headers: HeaderMap,
    Form(form): Form<Value>,
) -> Json<Value> {
    let authorization = headers.get("authorization").map(|of| of.to_str().unwrap().to_owned());
    world.asked.lock().unwrap().push((form, authorization));
    let claims = world.claims.lock().unwrap().clone();
    let header = Header { kid: Some(world.kid.clone()), ..Header::new(Algorithm::ES256) };
    Json(json!({ "id_token": encode(&header, &claims, &world.key).unwrap() }))
}

fn claims(world: &World, attempt: &Attempt) -> Value {
    json!({
        "iss": world.issuer, "aud": "trine", "sub": "7", "nonce": attempt.nonce,
        "exp": jsonwebtoken::get_current_timestamp() + 60, "preferred_username": "Ann.Lee",
        "groups": ["web", "others"],
    })
}

#[tokio::test]
async fn somebody_signs_in_and_may_what_their_groups_may() {
    let (world, provider) = world().await;
    let attempt = provider.begin().await.unwrap();
    let query: Vec<&str> = attempt.url.split(['?', '&']).collect();
    assert!(query.contains(&format!("state={}", attempt.state).as_str()), "{query:?}");
    assert!(query.contains(
        &"redirect_uri=https%3A%2F%2Ftrine.example%3A8443%2Fv1%2Fsession%2Foidc%2Fcallback"
    ));
    *world.claims.lock().unwrap() = claims(&world, &attempt);
    let person = provider.finish(&attempt, "c0de").await.unwrap();
    assert_eq!((person.subject.as_str(), person.name.as_ref()), ("7", "ann-lee"));
    assert_eq!(person.rights, Rights::within("web".parse().unwrap(), Role::Operator));
    // The provider could compare the verifier with what the browser had brought (RFC 7636, 4.6).
    let (form, _) = world.asked.lock().unwrap()[0].clone();
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(form["code_verifier"].as_str().unwrap()));
    assert!(query.contains(&format!("code_challenge={challenge}").as_str()));
    assert_eq!((form["code"].as_str(), form["client_id"].as_str()), (Some("c0de"), Some("trine")));
}

#[tokio::test]
async fn an_id_token_counts_only_if_it_is_for_us_about_this_attempt_and_still_good() {
    let (world, provider) = world().await;
    let attempt = provider.begin().await.unwrap();
    for (claim, wrong) in [
        ("iss", json!("https://evil.example")),
        ("aud", json!("another")),
        ("nonce", json!("another")),
        ("exp", json!(1)),
        ("azp", json!("another")),
        ("sub", Value::Null),
        ("preferred_username", json!("@")),
    ] {
        let mut claims = claims(&world, &attempt);
        claims[claim] = wrong;
        *world.claims.lock().unwrap() = claims;
        let refused = provider.finish(&attempt, "c").await;
        assert!(matches!(refused, Err(OidcError::Refused(_))), "{claim}: {refused:?}");
    }
}

#[tokio::test]
async fn only_a_key_of_the_providers_signs() {
    let (world, provider) = world().await;
    let attempt = provider.begin().await.unwrap();
    let mut jwk = Jwk::from_encoding_key(&world.key, Algorithm::ES256).unwrap();
    jwk.common.key_id = Some("one".into());
    let set = JwkSet { keys: vec![jwk] };
    let claims = claims(&world, &attempt);
    let signed = |header: Header, key: &EncodingKey| encode(&header, &claims, key).unwrap();
    let of = |kid: &str, alg| Header { kid: Some(kid.into()), ..Header::new(alg) };
    assert!(provider.verified(&signed(of("one", Algorithm::ES256), &world.key), &set).is_ok());
    // With the public key as if it were a shared secret, and without any signature.
    let public = serde_json::to_vec(&set).unwrap();
    let shared = signed(of("one", Algorithm::HS256), &EncodingKey::from_secret(&public));
    let good = signed(of("one", Algorithm::ES256), &world.key);
    let none = format!("eyJhbGciOiJub25lIn0.{}.", good.split('.').nth(1).unwrap());
    for wrong in [
        signed(of("one", Algorithm::ES256), &key()),
        signed(of("two", Algorithm::ES256), &world.key),
        shared,
        none,
    ] {
        assert!(matches!(provider.verified(&wrong, &set), Err(OidcError::Refused(_))), "{wrong}");
    }
}
