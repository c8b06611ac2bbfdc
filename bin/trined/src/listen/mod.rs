//! Where the API is answered: at the local socket always, and at an address of the network if one was given.

mod certificate;
mod local;
mod remote;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use api::Peer;
use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use remote::Remote;

/// Connections at a time and listener: each is a task and two buffers. Those from outside take none of
/// the local ones.
const CONNECTIONS_MAX: usize = 1024;
/// How long a client may take to say what it wants.
const HEADERS_MAX: Duration = Duration::from_secs(60);
/// After a connection could not be taken, for want of descriptors, say: others end meanwhile.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers until a signal says to stop.
///
/// # Errors
/// When a listener cannot be made.
pub async fn serve(socket: &Path, remote: Option<Remote>, router: Router) -> anyhow::Result<()> {
    let listener = local::bind(socket)?;
    let remote = match remote {
        Some(remote) => Some(remote.bind().await?),
        None => None,
    };
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
    tracing::info!(socket = %socket.display(), "ready");
    // Without a service manager there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let outside = async {
        match remote {
            Some(remote) => remote.serve(router.clone()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = local::serve(listener, router.clone()) => {}
        () = outside => {}
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    local::unbind(socket);
    Ok(())
}

/// Room for the connections of a listener.
struct Room(Arc<Semaphore>);

impl Room {
    fn new() -> Self {
        Self(Arc::new(Semaphore::new(CONNECTIONS_MAX)))
    }

    /// Waits for room; `None` is never given, as nobody closes the semaphore.
    async fn take(&self) -> Option<OwnedSemaphorePermit> {
        self.0.clone().acquire_owned().await.ok()
    }
}

/// Answers what comes over a connection until it ends.
async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Peer,
    router: Router,
) {
    let service = TowerToHyperService::new(router.layer(axum::Extension(peer)));
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection broke");
    }
}
