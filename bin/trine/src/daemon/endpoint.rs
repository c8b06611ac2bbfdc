//! The way to a daemon: its local socket, or TLS to another host.

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, bail};
use hyper::Uri;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::body::Body;
use super::contexts::Context;

/// What sends requests.
pub type Sender = SendRequest<Body>;

/// Where a daemon is.
#[derive(Debug, Clone)]
pub enum Endpoint {
    /// At a socket of this host.
    Local(PathBuf),
    /// Somewhere else.
    Remote(Context),
}

impl Endpoint {
    /// What to say as `Host`.
    pub fn host(&self) -> &str {
        match self {
            Self::Local(_) => "localhost",
            Self::Remote(context) => context.server.trim_start_matches("https://"),
        }
    }

    /// What to prove oneself with.
    pub fn token(&self) -> Option<&str> {
        match self {
            Self::Local(_) => None,
            Self::Remote(context) => Some(&context.token),
        }
    }

    /// Begins a conversation.
    pub async fn connect(&self) -> anyhow::Result<Sender> {
        match self {
            Self::Local(socket) => {
                let stream = UnixStream::connect(socket).await.with_context(|| {
                    format!(
                        "no daemon answers at {}: start trined, or name its socket with --socket",
                        socket.display()
                    )
                })?;
                speak(stream).await
            }
            Self::Remote(context) => {
                let config = match &context.fingerprint {
                    Some(fingerprint) => pinned(&Arc::new(Pinned::new(Some(fingerprint)))),
                    None => vouched()?,
                };
                speak(tls(&context.server, config).await?).await
            }
        }
    }
}

async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
) -> anyhow::Result<Sender> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn tls(
    server: &str,
    config: ClientConfig,
) -> anyhow::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let uri: Uri = server.parse().ok().with_context(|| format!("'{server}' is no URL"))?;
    let (Some("https"), Some(host)) = (uri.scheme_str(), uri.host()) else {
        bail!("'{server}' is not a server: give https://HOST:PORT");
    };
    let host = host.trim_matches(['[', ']']);
    let port = uri.port_u16().unwrap_or(443);
    let name = ServerName::try_from(host.to_owned())
        .with_context(|| format!("'{host}' is not the name of a host"))?;
    let stream = TcpStream::connect((host, port))
        .await
        .with_context(|| format!("nobody answers at {host}, port {port}"))?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    stream.with_context(|| format!("{server} is not trusted"))
}

/// Authorities that this host trusts must vouch for the server.
fn vouched() -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn pinned(verifier: &Arc<Pinned>) -> ClientConfig {
    let config = ClientConfig::builder();
    let config = config.dangerous().with_custom_certificate_verifier(verifier.clone());
    config.with_no_client_auth()
}

/// SHA-256 of the certificate that a server shows. Nothing is said to the server.
///
/// # Errors
/// When there is nobody who shows one.
pub async fn fingerprint(server: &str) -> anyhow::Result<String> {
    let verifier = Arc::new(Pinned::new(None));
    let refused = tls(server, pinned(&verifier)).await.err();
    let shown = verifier.shown.lock().ok().and_then(|mut shown| shown.take());
    match (shown, refused) {
        (Some(shown), _) => Ok(shown),
        (None, Some(error)) => Err(error),
        (None, None) => bail!("{server} shows no certificate"),
    }
}

/// Knows a server by its certificate's fingerprint, as ssh knows hosts. Names and dates do not count: the
/// user has said that it is this one.
#[derive(Debug)]
struct Pinned {
    provider: CryptoProvider,
    expected: Option<String>,
    shown: Mutex<Option<String>>,
}

impl Pinned {
    fn new(expected: Option<&String>) -> Self {
        let expected = expected.map(|expected| expected.replace(':', "").to_ascii_lowercase());
        Self { provider: aws_lc_rs::default_provider(), expected, shown: Mutex::default() }
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = Sha256::digest(end_entity).iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        if self.expected.as_ref() == Some(&shown) {
            return Ok(ServerCertVerified::assertion());
        }
        let error = format!("its certificate is another one, with the fingerprint {shown}");
        if let Ok(mut kept) = self.shown.lock() {
            *kept = Some(shown);
        }
        Err(rustls::Error::General(error))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
