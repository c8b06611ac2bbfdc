//! Bytes to and from a viewer: a stream, or messages of a WebSocket. Nothing here blocks, but for a
//! WebSocket's handshake, which has a time limit.
#![expect(clippy::result_large_err, reason = "a refused handshake is the library's own type")]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tungstenite::http::{HeaderValue, StatusCode};
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{Bytes, Error, Message, WebSocket, accept_hdr_with_config};

use crate::listen::{Connection, is_loopback};

/// Bytes read at once, and sent in one message.
const CHUNK: usize = 16 * 1024;
/// Longest message of a browser's.
const MESSAGE_MAX: usize = 64 * 1024;
/// Time for a WebSocket's handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// A viewer's connection.
pub(crate) enum Transport {
    Unix(UnixStream),
    Tcp(TcpStream),
    WebSocket(Box<WebSocket<Timed>>),
}

impl Transport {
    /// Takes over a connection. Of browsers, only pages of this host are let in, unless there is a
    /// password: any page in the world could open the screen otherwise.
    pub fn new(connection: Connection, has_password: bool) -> io::Result<Self> {
        match connection {
            Connection::Unix(stream) => {
                stream.set_nonblocking(true)?;
                Ok(Self::Unix(stream))
            }
            Connection::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                Ok(Self::Tcp(stream))
            }
            Connection::WebSocket(stream) => {
                let config = WebSocketConfig::default()
                    .max_message_size(Some(MESSAGE_MAX))
                    .max_frame_size(Some(MESSAGE_MAX));
                let stream = Timed { stream, until: Some(Instant::now() + HANDSHAKE) };
                let answer = |request: &Request, response| welcome(request, response, has_password);
                let mut socket = accept_hdr_with_config(stream, answer, Some(config))
                    .map_err(|error| io::Error::other(error.to_string()))?;
                let timed = socket.get_mut();
                timed.until = None;
                timed.stream.set_nonblocking(true)?;
                Ok(Self::WebSocket(Box::new(socket)))
            }
        }
    }

    /// Appends what has come. False when the viewer has gone.
    pub fn receive(&mut self, into: &mut Vec<u8>) -> bool {
        match self {
            Self::Unix(stream) => read(stream, into),
            Self::Tcp(stream) => read(stream, into),
            Self::WebSocket(socket) => loop {
                match socket.read() {
                    Ok(Message::Binary(bytes)) => {
                        into.extend(bytes);
                        if into.len() >= CHUNK {
                            return true;
                        }
                    }
                    Ok(Message::Close(_)) => return false,
                    Ok(_) => {}
                    Err(error) => return is_later(&error),
                }
            },
        }
    }

    /// Sends what can be sent.
    pub fn send(&mut self, output: &mut Vec<u8>) -> Sent {
        match self {
            Self::Unix(stream) => write(stream, output),
            Self::Tcp(stream) => write(stream, output),
            Self::WebSocket(socket) => loop {
                match socket.flush() {
                    Ok(()) if output.is_empty() => return Sent::All,
                    Ok(()) => {}
                    Err(error) => return if is_later(&error) { Sent::Some } else { Sent::Gone },
                }
                let part: Vec<u8> = output.drain(..output.len().min(CHUNK)).collect();
                match socket.write(Message::Binary(Bytes::from(part))) {
                    Ok(()) => {}
                    // It keeps what it could not send.
                    Err(error) if is_later(&error) => return Sent::Some,
                    Err(_) => return Sent::Gone,
                }
            },
        }
    }
}

/// What became of what was to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It is on its way.
    All,
    /// The rest has to wait until the viewer reads.
    Some,
    /// The viewer has gone.
    Gone,
}

impl AsFd for Transport {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
            Self::WebSocket(socket) => socket.get_ref().stream.as_fd(),
        }
    }
}

fn is_later(error: &Error) -> bool {
    matches!(error, Error::Io(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted))
}

fn read(stream: &mut impl Read, into: &mut Vec<u8>) -> bool {
    let mut chunk = [0; CHUNK];
    match stream.read(&mut chunk) {
        Ok(0) => false,
        Ok(size) => {
            into.extend(&chunk[..size]);
            true
        }
        Err(error) => matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted),
    }
}

fn write(stream: &mut impl Write, output: &mut Vec<u8>) -> Sent {
    let mut done = 0;
    let sent = loop {
        if done == output.len() {
            break Sent::All;
        }
        match stream.write(&output[done..]) {
            Ok(0) => break Sent::Gone,
            Ok(size) => done += size,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break Sent::Some,
            Err(_) => break Sent::Gone,
        }
    };
    output.drain(..done);
    sent
}

/// Answers a browser's handshake.
fn welcome(
    request: &Request,
    mut response: Response,
    has_password: bool,
) -> Result<Response, ErrorResponse> {
    let headers = request.headers();
    let of_this_host =
        headers.get("origin").is_none_or(|origin| origin.to_str().is_ok_and(is_page_of_this_host));
    if !has_password && !of_this_host {
        let mut refusal = ErrorResponse::new(Some("only pages of this host may connect".into()));
        *refusal.status_mut() = StatusCode::FORBIDDEN;
        return Err(refusal);
    }
    let protocols = headers.get("sec-websocket-protocol").and_then(|value| value.to_str().ok());
    if protocols.is_some_and(|list| list.split(',').any(|name| name.trim() == "binary")) {
        response.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("binary"));
    }
    Ok(response)
}

/// "http://127.0.0.1:8080" and the like.
fn is_page_of_this_host(origin: &str) -> bool {
    let Some((_, place)) = origin.split_once("://") else { return false };
    let host = match place.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => place.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(is_loopback)
}

/// A stream whose reads and writes end at a time.
#[derive(Debug)]
pub(crate) struct Timed {
    stream: TcpStream,
    until: Option<Instant>,
}

impl Timed {
    fn limit(&self) -> io::Result<()> {
        let Some(until) = self.until else { return Ok(()) };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.set_write_timeout(Some(left))
    }
}

impl Read for Timed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.limit()?;
        self.stream.read(into)
    }
}

impl Write for Timed {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.limit()?;
        self.stream.write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_other_hosts_are_told_by_their_origin() {
        for page in ["http://localhost", "https://127.0.0.1:8080", "http://[::1]:6080"] {
            assert!(is_page_of_this_host(page), "{page}");
        }
        for page in ["http://example.org", "http://localhost.example.org", "null", "file://", ""] {
            assert!(!is_page_of_this_host(page), "{page}");
        }
    }
}
