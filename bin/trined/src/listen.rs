//! The local socket. Who is at the other end, the kernel says.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use anyhow::Context;
use api::Peer;
use axum::Router;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

/// Connections at a time: each is a task and two buffers.
const CONNECTIONS_MAX: usize = 1024;

/// Answers at `socket` until a signal says to stop.
///
/// # Errors
/// When the socket cannot be made.
pub async fn serve(socket: &Path, router: Router) -> anyhow::Result<()> {
    let listener = bind(socket)?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for signals")?;
    tracing::info!(socket = %socket.display(), "ready");
    // Without a service manager there is nobody to tell.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let room = std::sync::Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        let Ok((stream, _)) = accepted else {
            // For want of descriptors, say: others end meanwhile.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let Ok(permit) = room.clone().acquire_owned().await else { break };
        let router = router.clone();
        tokio::spawn(async move {
            connection(stream, router).await;
            drop(permit);
        });
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    // The next daemon makes it anew; one that is left says that nobody is there.
    let _ = fs::remove_file(socket);
    Ok(())
}

async fn connection(stream: UnixStream, router: Router) {
    let Ok(credentials) = stream.peer_cred() else { return };
    let peer = Peer::Local { uid: credentials.uid() };
    let service =
        hyper_util::service::TowerToHyperService::new(router.layer(axum::Extension(peer)));
    let served = hyper::server::conn::http1::Builder::new()
        .timer(hyper_util::rt::TokioTimer::new())
        .header_read_timeout(std::time::Duration::from_secs(60))
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection broke");
    }
}

fn bind(socket: &Path) -> anyhow::Result<UnixListener> {
    let failed = || format!("cannot make the socket {}", socket.display());
    if let Some(folder) = socket.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o755).create(folder).with_context(failed)?;
    }
    // Whoever has the state, which is locked, is the only daemon: what is there has been left.
    match std::os::unix::net::UnixStream::connect(socket) {
        Ok(_) => anyhow::bail!("{} is in use: another daemon listens there", socket.display()),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
            fs::remove_file(socket).with_context(failed)?;
        }
        Err(_) => {}
    }
    let listener = UnixListener::bind(socket).with_context(failed)?;
    // Who may connect is told by who they are, so everybody may; without a token they are refused.
    fs::set_permissions(socket, fs::Permissions::from_mode(0o666)).with_context(failed)?;
    Ok(listener)
}
