//! Asking the provider.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1::handshake;
use hyper::{Method, Request, Uri, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::OidcError;
use crate::config::is_private;

/// The largest answer that is read: keys and tokens are a few KiB.
const ANSWER_MAX: usize = 1 << 20;
/// Somebody waits in front of a browser.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Asks over TLS.
pub(crate) struct Fetcher {
    tls: TlsConnector,
}

/// A form's fields (application/x-www-form-urlencoded).
pub(crate) fn encoded(fields: &[(&str, &str)]) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let mut text = String::new();
    for (name, value) in fields {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(name);
        text.push('=');
        for byte in value.bytes() {
            match plain(byte) {
                true => text.push(char::from(byte)),
                false => text.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    text
}

fn failed(url: &str, error: &dyn std::fmt::Display) -> OidcError {
    OidcError::Provider(format!("{url}: {error}"))
}

impl Fetcher {
    /// For whom these, or the host's authorities, vouch.
    pub fn new(ca_file: Option<&Path>) -> Result<Self, OidcError> {
        let mut roots = RootCertStore::empty();
        match ca_file {
            Some(path) => {
                let wrong = |error: &dyn std::fmt::Display| {
                    OidcError::Config(format!("ca_file: {}: {error}", path.display()))
                };
                for one in CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))? {
                    let one = one.map_err(|error| wrong(&error))?;
                    roots.add(one).map_err(|error| wrong(&error))?;
                }
            }
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions();
        let config = config.map_err(|error| OidcError::Config(error.to_string()))?;
        let config = config.with_root_certificates(roots).with_no_client_auth();
        Ok(Self { tls: TlsConnector::from(Arc::new(config)) })
    }

    /// Reads JSON.
    pub async fn get<T: DeserializeOwned>(&self, url: &str) -> Result<T, OidcError> {
        self.ask(Method::GET, url, String::new(), None).await
    }

    /// Sends a form, as this client if the provider shares a secret with it, and reads JSON.
    pub async fn post<T: DeserializeOwned>(
        &self,
        url: &str,
        form: String,
        client: Option<(&str, &str)>,
    ) -> Result<T, OidcError> {
        self.ask(Method::POST, url, form, client).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        url: &str,
        form: String,
        client: Option<(&str, &str)>,
    ) -> Result<T, OidcError> {
        // Also what the provider itself names: its keys decide who gets in.
        if !is_private(url) {
            return Err(failed(url, &"it is not spoken to without TLS"));
        }
        let uri: Uri = url.parse().map_err(|error| failed(url, &error))?;
        let host = uri.host().unwrap_or_default().to_owned();
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, uri.authority().map_or(host.as_str(), |of| of.as_str()))
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some((id, secret)) = client {
            // RFC 6749, 2.3.1: both are encoded before they are put together.
            let (id, secret) = (encoded(&[("", id)]), encoded(&[("", secret)]));
            let pair = format!("{}:{}", id.trim_start_matches('='), secret.trim_start_matches('='));
            request =
                request.header(header::AUTHORIZATION, format!("Basic {}", STANDARD.encode(pair)));
        }
        let request = request.body(Full::new(Bytes::from(form)));
        let request = request.map_err(|error| failed(url, &error))?;
        let answered = timeout(TIME_MAX, self.converse(url, &uri, &host, request)).await;
        let body = answered.map_err(|_| failed(url, &"it takes too long"))??;
        serde_json::from_slice(&body).map_err(|error| failed(url, &error))
    }

    async fn converse(
        &self,
        url: &str,
        uri: &Uri,
        host: &str,
        request: Request<Full<Bytes>>,
    ) -> Result<Bytes, OidcError> {
        let is_tls = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let host = host.trim_matches(['[', ']']);
        let stream = TcpStream::connect((host, port)).await.map_err(|error| failed(url, &error))?;
        if !is_tls {
            return answer(url, stream, request).await;
        }
        let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(url, &error))?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| failed(url, &error))?;
        answer(url, stream, request).await
    }
}

async fn answer<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    url: &str,
    stream: S,
    request: Request<Full<Bytes>>,
) -> Result<Bytes, OidcError> {
    let (mut sender, connection) =
        handshake(TokioIo::new(stream)).await.map_err(|error| failed(url, &error))?;
    tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(|error| failed(url, &error))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_MAX).collect().await;
    let body = body.map_err(|error| failed(url, &error))?.to_bytes();
    if !status.is_success() {
        // What it says for people, if it does (RFC 6749, 5.2).
        let said: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let why = said["error_description"].as_str().or(said["error"].as_str());
        return Err(failed(url, &format!("{status} {}", why.unwrap_or_default())));
    }
    Ok(body)
}
