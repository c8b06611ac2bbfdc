//! An address of the network: TLS, and nobody without a token.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use api::Peer;
use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{PAUSE, Room, answer, certificate};

/// How long a client may take to agree on keys.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Where to listen, and as whom.
pub struct Remote {
    /// The address.
    pub address: SocketAddr,
    /// Certificate chain and key, in PEM.
    pub given: Option<(PathBuf, PathBuf)>,
    /// Where a certificate of our own is kept if none is given.
    pub folder: PathBuf,
}

/// An address that is listened at.
pub struct Bound {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Remote {
    /// Begins to listen.
    ///
    /// # Errors
    /// When the certificate or the address cannot be used.
    pub async fn bind(self) -> anyhow::Result<Bound> {
        let identity = match &self.given {
            Some((chain, key)) => certificate::read(chain, key)?,
            None => certificate::own(&self.folder)?,
        };
        let fingerprint = identity.fingerprint();
        let config = identity.into_config()?;
        let listener = TcpListener::bind(self.address)
            .await
            .with_context(|| format!("cannot listen at {}", self.address))?;
        let address = listener.local_addr().unwrap_or(self.address);
        tracing::info!(%address, %fingerprint, "listening");
        tracing::info!("open {} in a browser", url(address));
        Ok(Bound { listener, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }
}

/// Where browsers find it.
fn url(address: SocketAddr) -> String {
    if !address.ip().is_unspecified() {
        return format!("https://{address}/");
    }
    let name = rustix::system::uname();
    let name = name.nodename().to_str().ok().filter(|name| !name.is_empty());
    format!("https://{}:{}/", name.unwrap_or("localhost"), address.port())
}

impl Bound {
    /// Answers for ever.
    pub async fn serve(self, router: Router) {
        let room = Room::new();
        loop {
            let Ok((stream, address)) = self.listener.accept().await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let Some(permit) = room.take().await else { return };
            let (acceptor, router) = (self.acceptor.clone(), router.clone());
            tokio::spawn(async move {
                connection(acceptor, stream, address, router).await;
                drop(permit);
            });
        }
    }
}

async fn connection(acceptor: TlsAcceptor, stream: TcpStream, from: SocketAddr, router: Router) {
    // Answers are small, and somebody waits for each.
    let _ = stream.set_nodelay(true);
    match tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => answer(stream, Peer::Remote(from), router).await,
        Ok(Err(error)) => tracing::debug!(%from, %error, "no agreement on keys"),
        Err(_) => tracing::debug!(%from, "a client does not agree on keys in time"),
    }
}
