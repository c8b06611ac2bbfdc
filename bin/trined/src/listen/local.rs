//! The local socket. Who is at the other end, the kernel says.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use anyhow::Context;
use api::Peer;
use axum::Router;
use tokio::net::UnixListener;

use super::{PAUSE, Room, answer};

/// Answers for ever.
pub async fn serve(listener: UnixListener, router: Router) {
    let room = Room::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let Some(permit) = room.take().await else { return };
        let router = router.clone();
        tokio::spawn(async move {
            if let Ok(credentials) = stream.peer_cred() {
                answer(stream, Peer::Local { uid: credentials.uid() }, router).await;
            }
            drop(permit);
        });
    }
}

/// Makes the socket.
pub fn bind(socket: &Path) -> anyhow::Result<UnixListener> {
    let failed = || format!("cannot make the socket {}", socket.display());
    if let Some(folder) = socket.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o755).create(folder).with_context(failed)?;
    }
    // Whoever has the state, which is locked, is the only daemon: what is there has been left.
    match std::os::unix::net::UnixStream::connect(socket) {
        Ok(_) => anyhow::bail!("{} is in use: another daemon listens there", socket.display()),
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            fs::remove_file(socket).with_context(failed)?;
        }
        Err(_) => {}
    }
    let listener = UnixListener::bind(socket).with_context(failed)?;
    // Who may connect is told by who they are, so everybody may; without a token they are refused.
    fs::set_permissions(socket, fs::Permissions::from_mode(0o666)).with_context(failed)?;
    Ok(listener)
}

/// The next daemon makes it anew; one that is left would say that nobody is there.
pub fn unbind(socket: &Path) {
    let _ = fs::remove_file(socket);
}
