//! A guest's serial port and screen over WebSockets, for browsers.

use std::future::poll_fn;
use std::io;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::http::StatusCode;
use axum::response::Response;
use model::{Role, Vm};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{MissedTickBehavior, interval};

use crate::access::blocking;
use crate::alive::gone;
use crate::console::{TYPED_MAX, console, type_all};
use crate::extract::{Asking, Params, Path};
use crate::objects::ProjectParams;
use crate::{Problem, Shared};

/// Proxies close what is silent for a minute.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// Of a viewer: the longest is a clipboard.
const VIEWER_MESSAGE_MAX: usize = 1 << 20;
const PIECE: usize = 32 << 10;

pub(crate) type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

pub(crate) fn upgrade(upgrade: Upgrade) -> Result<WebSocketUpgrade, Problem> {
    upgrade.map_err(|_| {
        let detail = "this speaks WebSocket, and the request does not ask for it";
        Problem::new(StatusCode::UPGRADE_REQUIRED, "no-websocket", detail)
    })
}

/// A VM's serial port, as a WebSocket
///
/// Messages are what the guest prints, the last 128 KiB first, and what is typed at it. Of a viewer, nothing
/// is typed.
#[utoipa::path(get, path = "/v1/vms/{vm}/terminal", tag = "vms", params(
    ProjectParams, ("vm" = String, Path, description = "Its name or ID"),
), responses(
    (status = 101, description = "A WebSocket"),
))]
pub(crate) async fn terminal(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Path(vm): Path<String>,
    asking: Asking,
    socket: Upgrade,
) -> Result<Response, Problem> {
    let may_type = asking.caller.need(Role::Operator, &of.project).is_ok();
    let console = console(&state, of, vm).await?;
    let socket = upgrade(socket)?.max_message_size(TYPED_MAX).max_frame_size(TYPED_MAX);
    Ok(socket.on_upgrade(move |socket| async move {
        tokio::select! {
            // Whoever leaves in the midst of a word has left.
            _ = talk(socket, console, may_type) => {}
            () = gone(state, asking.caller) => {}
        }
    }))
}

async fn talk(
    mut socket: WebSocket,
    console: host::Console,
    may_type: bool,
) -> Result<(), axum::Error> {
    let mut alive = interval(KEEP_ALIVE);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut at = 0;
    loop {
        tokio::select! {
            piece = poll_fn(|context| console.poll_read(at, context)) => {
                let Some((bytes, end)) = piece else { return Ok(()) };
                at = end;
                socket.send(Message::Binary(bytes.into())).await?;
            }
            typed = socket.recv() => {
                let typed = match typed.transpose()? {
                    Some(Message::Text(text)) => Bytes::from(text),
                    Some(Message::Binary(bytes)) => bytes,
                    Some(Message::Close(_)) | None => return Ok(()),
                    Some(Message::Ping(_) | Message::Pong(_)) => continue,
                };
                if may_type {
                    // A guest that takes nothing loses it, as with a cable.
                    let _ = type_all(&console, &typed).await;
                }
            }
            _ = alive.tick() => socket.send(Message::Ping(Bytes::new())).await?,
        }
    }
}

/// A VM's screen, as a WebSocket
///
/// In its messages is the RFB protocol (RFC 6143), as noVNC speaks it, without a password.
#[utoipa::path(get, path = "/v1/vms/{vm}/screen", tag = "vms", params(
    ProjectParams, ("vm" = String, Path, description = "Its name or ID"),
), responses(
    (status = 101, description = "A WebSocket"),
))]
pub(crate) async fn screen(
    State(state): Shared,
    Params(of): Params<ProjectParams>,
    Path(vm): Path<String>,
    asking: Asking,
    socket: Upgrade,
) -> Result<Response, Problem> {
    let of_state = state.clone();
    let vm = blocking(move || Ok(of_state.registry.get::<Vm>(&of.project, &vm)?.object)).await?;
    let (guests, id) = (state.guests.clone(), vm.meta.id);
    let screen = blocking(move || {
        guests.screen(id).map_err(|_| {
            let detail = format!("VM '{}' shows no screen: is it running?", vm.meta.name);
            Problem::new(StatusCode::CONFLICT, "no-screen", detail)
        })
    });
    let screen = screen.await?;
    let screen = screen.set_nonblocking(true).and_then(|()| UnixStream::from_std(screen));
    let screen = screen.map_err(|error| Problem::internal(&error))?;
    let socket = upgrade(socket)?.max_message_size(VIEWER_MESSAGE_MAX);
    Ok(socket.on_upgrade(move |socket| async move {
        tokio::select! {
            _ = show(socket, screen) => {}
            () = gone(state, asking.caller) => {}
        }
    }))
}

async fn show(mut socket: WebSocket, mut screen: UnixStream) -> io::Result<()> {
    let (mut from, mut to) = screen.split();
    let mut alive = interval(KEEP_ALIVE);
    alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut piece = vec![0; PIECE];
    loop {
        let message = tokio::select! {
            length = from.read(&mut piece) => match length? {
                0 => return Ok(()),
                length => Message::Binary(Bytes::copy_from_slice(&piece[..length])),
            },
            done = socket.recv() => match done.transpose().map_err(io::Error::other)? {
                Some(Message::Binary(bytes)) => {
                    to.write_all(&bytes).await?;
                    continue;
                }
                Some(Message::Close(_)) | None => return Ok(()),
                Some(_) => continue,
            },
            _ = alive.tick() => Message::Ping(Bytes::new()),
        };
        socket.send(message).await.map_err(io::Error::other)?;
    }
}
