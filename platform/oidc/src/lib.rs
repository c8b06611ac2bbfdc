//! Signing in with an OpenID Connect provider: discovery, authorization code with PKCE, ID tokens, and what
//! follows from somebody's groups.
//!
//! *Invariants*: what the provider says counts only from an ID token that its own key has signed, for us, in answer
//! to the attempt that this browser began. Only keys of the provider's sign, never a shared secret. Answers are
//! bounded in size and time. The provider is spoken to over TLS; without it on the loopback only.
//!
//! What this crate may not know: sessions, cookies, where users are kept.
//!
//! Specifications: OpenID Connect Core 1.0 and Discovery 1.0, RFC 6749 (OAuth 2.0), RFC 7636 (PKCE), RFC 9700
//! (best current practice).

mod config;
mod fetch;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use model::{Name, Rights};
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use uuid::Uuid;

pub use config::{Config, Mapping};
use fetch::{Fetcher, encoded};

/// Where the provider sends browsers back to, below the daemon's own address.
pub const CALLBACK: &str = "/v1/session/oidc/callback";

/// Signatures by a key that only the provider has.
const SIGNED_BY: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// Why nobody signs in.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    /// The configuration cannot be.
    #[error("{0}")]
    Config(String),
    /// The provider does not answer, or not so.
    #[error("the identity provider does not answer as it should: {0}")]
    Provider(String),
    /// What it says is not to be believed.
    #[error("the identity provider's answer is not accepted: {0}")]
    Refused(String),
    /// They may nothing here.
    #[error(
        "'{0}' has no role here: an administrator maps one of your groups to a role, or gives you one"
    )]
    NoRole(String),
}

/// An attempt to sign in: begun, and kept until the browser comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Where to send the browser.
    pub url: String,
    /// What it comes back with.
    pub state: String,
    nonce: String,
    verifier: String,
}

/// Who somebody is, as the provider says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Who they are there, whatever they are called.
    pub subject: String,
    /// What they are called.
    pub name: Name,
    /// What follows from their groups.
    pub rights: Rights,
}

/// What a provider says about itself.
#[derive(Debug, Clone, Deserialize)]
struct Metadata {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct TokenAnswer {
    id_token: String,
}

/// A provider.
pub struct Provider {
    config: Config,
    fetcher: Fetcher,
    /// Asked for once it is needed, so that a daemon starts without its provider.
    metadata: Mutex<Option<Metadata>>,
}

/// As many random bits as two random UUIDs have: 244. Of letters that a PKCE verifier may have.
fn random() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

impl Provider {
    /// The one of this configuration.
    ///
    /// # Errors
    /// When that cannot be.
    pub fn new(config: Config) -> Result<Self, OidcError> {
        config.check()?;
        let fetcher = Fetcher::new(config.ca_file.as_deref())?;
        Ok(Self { config, fetcher, metadata: Mutex::default() })
    }

    /// What people call it.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// What it calls itself.
    pub fn issuer(&self) -> &str {
        &self.config.issuer
    }

    async fn metadata(&self) -> Result<Metadata, OidcError> {
        let mut known = self.metadata.lock().await;
        if let Some(metadata) = &*known {
            return Ok(metadata.clone());
        }
        let base = self.config.issuer.trim_end_matches('/');
        let url = format!("{base}/.well-known/openid-configuration");
        let metadata: Metadata = self.fetcher.get(&url).await?;
        // Discovery, 4.3: or somebody else would vouch for its people.
        if metadata.issuer != self.config.issuer {
            let (own, theirs) = (&self.config.issuer, &metadata.issuer);
            return Err(OidcError::Refused(format!("it is '{theirs}', and not '{own}'")));
        }
        *known = Some(metadata.clone());
        Ok(metadata)
    }

    fn redirect(&self) -> String {
        format!("{}{CALLBACK}", self.config.url.trim_end_matches('/'))
    }

    /// Begins.
    ///
    /// # Errors
    /// When the provider does not answer.
    pub async fn begin(&self) -> Result<Attempt, OidcError> {
        let metadata = self.metadata().await?;
        let (state, nonce, verifier) = (random(), random(), random());
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&verifier));
        let scopes = self.config.scopes.join(" ");
        let query = encoded(&[
            ("response_type", "code"),
            ("client_id", &self.config.client_id),
            ("redirect_uri", &self.redirect()),
            ("scope", &format!("openid {scopes}")),
            ("state", &state),
            ("nonce", &nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ]);
        let endpoint = &metadata.authorization_endpoint;
        let mark = if endpoint.contains('?') { '&' } else { '?' };
        Ok(Attempt { url: format!("{endpoint}{mark}{query}"), state, nonce, verifier })
    }

    /// Ends an attempt with the code that the browser came back with.
    ///
    /// # Errors
    /// When the provider does not answer, or what it says is not to be believed, or they may nothing here.
    pub async fn finish(&self, attempt: &Attempt, code: &str) -> Result<Person, OidcError> {
        let metadata = self.metadata().await?;
        let form = encoded(&[
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &self.redirect()),
            ("client_id", &self.config.client_id),
            ("code_verifier", &attempt.verifier),
        ]);
        let secret = self.config.secret()?;
        let client = secret.as_deref().map(|secret| (self.config.client_id.as_str(), secret));
        let answer: TokenAnswer = self.fetcher.post(&metadata.token_endpoint, form, client).await?;
        // Fetched each time: a provider changes its keys whenever it likes, and few sign in a second.
        let keys: JwkSet = self.fetcher.get(&metadata.jwks_uri).await?;
        let claims = self.verified(&answer.id_token, &keys)?;
        if claims.get("nonce").and_then(Value::as_str) != Some(attempt.nonce.as_str()) {
            return Err(OidcError::Refused("it is about another attempt to sign in".to_owned()));
        }
        self.config.person(&claims)
    }

    /// What an ID token says, if it is the provider's, for us, and still good (Core, 3.1.3.7).
    fn verified(&self, token: &str, keys: &JwkSet) -> Result<Map<String, Value>, OidcError> {
        let refused = |why: &dyn std::fmt::Display| OidcError::Refused(why.to_string());
        let header = decode_header(token).map_err(|error| refused(&error))?;
        if !SIGNED_BY.contains(&header.alg) {
            return Err(refused(&format!("it is signed by {:?}", header.alg)));
        }
        let is_for_signatures =
            |of: &Option<PublicKeyUse>| of.as_ref().is_none_or(|of| *of == PublicKeyUse::Signature);
        let mut fitting = keys.keys.iter().filter(|key| {
            let is_named = header.kid.is_none() || key.common.key_id == header.kid;
            is_named && is_for_signatures(&key.common.public_key_use)
        });
        let key = fitting.next().ok_or_else(|| refused(&"none of its keys has signed it"))?;
        let key = DecodingKey::from_jwk(key).map_err(|error| refused(&error))?;
        let mut rules = Validation::new(header.alg);
        rules.set_audience(&[&self.config.client_id]);
        rules.set_issuer(&[&self.config.issuer]);
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let claims = decode::<Map<String, Value>>(token, &key, &rules);
        let claims = claims.map_err(|error| refused(&error))?.claims;
        let party = claims.get("azp").and_then(Value::as_str);
        if party.is_some_and(|party| party != self.config.client_id) {
            return Err(refused(&"it was made for another program"));
        }
        Ok(claims)
    }
}

#[cfg(test)]
mod tests;
