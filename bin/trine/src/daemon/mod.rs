//! Asking the daemon: API v1, over its local socket or TLS.

mod body;
mod contexts;
mod endpoint;

use std::io::{self, Read, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use hyper::http::request::Builder;
use hyper::{Method, Request, Response, header};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use body::Body;
pub use contexts::{Context as Elsewhere, Contexts};
use endpoint::{Endpoint, Sender};

use crate::progress::Display;

/// Largest answer that is read whole.
const ANSWER_MAX: usize = 64 << 20;
/// What is read of a file at once.
const CHUNK: usize = 256 << 10;

/// Which daemon.
#[derive(Args, Clone)]
pub struct Where {
    /// The daemon's socket [default: the current context, that of the user's own daemon, then of the host's]
    #[arg(long, value_name = "PATH", env = "TRINE_SOCKET", global = true)]
    socket: Option<PathBuf>,
    /// A daemon elsewhere (trine context ls)
    #[arg(long, value_name = "NAME", env = "TRINE_CONTEXT", global = true)]
    context: Option<String>,
    /// The project [default: the context's, or 'default']
    #[arg(long, value_name = "NAME", env = "TRINE_PROJECT", global = true)]
    project: Option<String>,
}

impl Where {
    /// What the environment says, without options.
    pub fn of_environment() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            socket: variable("TRINE_SOCKET").map(PathBuf::from),
            context: variable("TRINE_CONTEXT"),
            project: variable("TRINE_PROJECT"),
        }
    }

    fn endpoint(&self) -> anyhow::Result<Endpoint> {
        if let Some(socket) = &self.socket {
            return Ok(Endpoint::Local(socket.clone()));
        }
        let contexts = Contexts::load()?;
        if let Some(name) = self.context.as_ref().or(contexts.current.as_ref()) {
            return Ok(Endpoint::Remote(contexts.get(name)?.clone()));
        }
        let own =
            std::env::var_os("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("trine.sock"));
        let host = || PathBuf::from("/run/trine/trine.sock");
        Ok(Endpoint::Local(own.filter(|path| path.exists()).unwrap_or_else(host)))
    }
}

/// A conversation with the daemon.
pub struct Client {
    runtime: Runtime,
    connection: Sender,
    endpoint: Endpoint,
    pub project: String,
}

fn runtime() -> anyhow::Result<Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

/// SHA-256 of the certificate that a server shows.
///
/// # Errors
/// When there is nobody who shows one.
pub fn fingerprint(server: &str) -> anyhow::Result<String> {
    runtime()?.block_on(endpoint::fingerprint(server))
}

impl Client {
    pub fn connect(to: &Where) -> anyhow::Result<Self> {
        let endpoint = to.endpoint()?;
        let of = match &endpoint {
            Endpoint::Local(_) => None,
            Endpoint::Remote(context) => context.project.clone(),
        };
        let project = to.project.clone().or(of).unwrap_or_else(|| "default".to_owned());
        Self::at(endpoint, project)
    }

    /// A conversation with a daemon that is not kept yet.
    pub fn elsewhere(context: &Elsewhere) -> anyhow::Result<Self> {
        Self::at(Endpoint::Remote(context.clone()), "default".to_owned())
    }

    fn at(endpoint: Endpoint, project: String) -> anyhow::Result<Self> {
        let runtime = runtime()?;
        let connection = runtime.block_on(endpoint.connect())?;
        Ok(Self { runtime, connection, endpoint, project })
    }

    /// Asks, and gives what streams back.
    async fn send(
        connection: &mut Sender,
        endpoint: &Endpoint,
        method: Method,
        path: &str,
        kind: &str,
        body: Body,
    ) -> anyhow::Result<Response<Incoming>> {
        let request = Request::builder().method(method).uri(path);
        let request = request.header(header::CONTENT_TYPE, kind);
        Self::send_as(connection, endpoint, request, body).await
    }

    async fn send_as(
        connection: &mut Sender,
        endpoint: &Endpoint,
        request: Builder,
        body: Body,
    ) -> anyhow::Result<Response<Incoming>> {
        let mut request = request.header(header::HOST, endpoint.host());
        if let Some(token) = endpoint.token().filter(|token| !token.is_empty()) {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(body)?;
        connection.ready().await.context("the daemon has gone")?;
        let response =
            connection.send_request(request).await.context("the daemon does not answer")?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
        match (problem["detail"].as_str(), problem["code"].as_str()) {
            (Some(detail), Some(code)) => bail!("{detail} ({code})"),
            _ => bail!("the daemon answers {status}"),
        }
    }

    /// Asks for JSON.
    pub fn ask<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<T> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let Self { runtime, connection, endpoint, .. } = self;
        runtime.block_on(async {
            let kind = "application/json";
            let answer =
                Self::send(connection, endpoint, method, path, kind, Body::Whole(body.into()))
                    .await?;
            let body = http_body_util::Limited::new(answer.into_body(), ANSWER_MAX);
            let body = body.collect().await.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
            // What is deleted answers nothing.
            let body = if body.is_empty() { "null".into() } else { body };
            serde_json::from_slice(&body)
                .context("the daemon answers what this program does not know")
        })
    }

    /// Signs in, and gives the session's secret, which is as good as a token.
    pub fn sign_in(&mut self, user: &str, password: &str) -> anyhow::Result<String> {
        let body = json!({ "user": user, "password": password }).to_string();
        let Self { runtime, connection, endpoint, .. } = self;
        runtime.block_on(async {
            let (kind, body) = ("application/json", Body::Whole(body.into()));
            let answer =
                Self::send(connection, endpoint, Method::POST, "/v1/session", kind, body).await?;
            let cookie = answer.headers().get(header::SET_COOKIE);
            let cookie = cookie.and_then(|cookie| cookie.to_str().ok());
            let secret = cookie.and_then(|cookie| cookie.split(['=', ';']).nth(1));
            Ok(secret.context("the daemon opens no session")?.to_owned())
        })
    }

    /// Changes an object's spec, unless somebody else has meanwhile.
    pub fn edit_spec(
        &mut self,
        path: &str,
        edit: impl FnOnce(&mut Value) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let Self { runtime, connection, endpoint, .. } = self;
        runtime.block_on(async {
            let kind = "application/json";
            let read = Self::send(
                connection,
                endpoint,
                Method::GET,
                path,
                kind,
                Body::Whole(Bytes::new()),
            );
            let (head, body) = read.await?.into_parts();
            let tag = head.headers.get(header::ETAG).context("the object has no ETag")?;
            let mut object: Value = serde_json::from_slice(&body.collect().await?.to_bytes())?;
            edit(&mut object["spec"])?;
            let body = json!({ "spec": object["spec"] }).to_string();
            let request = Request::builder().method(Method::PATCH).uri(path);
            let request = request.header(header::CONTENT_TYPE, kind).header(header::IF_MATCH, tag);
            Self::send_as(connection, endpoint, request, Body::Whole(body.into())).await?;
            Ok(())
        })
    }

    /// Sends what `from` has, of this size if that is known, shows how far that is, and gives the answer.
    pub fn upload(
        &mut self,
        path: &str,
        mut from: Box<dyn Read + Send>,
        size: Option<u64>,
    ) -> anyhow::Result<Value> {
        let (send, parts) = tokio::sync::mpsc::channel(4);
        let display = Display::new("sending");
        let reader = std::thread::spawn(move || {
            let mut done = 0;
            loop {
                let mut part = vec![0; CHUNK];
                let count = match from.read(&mut part) {
                    Ok(0) => break,
                    Ok(count) => count,
                    Err(error) => {
                        // What is cut off so, the daemon throws away.
                        let _ = send.blocking_send(Err(error));
                        break;
                    }
                };
                part.truncate(count);
                if send.blocking_send(Ok(part.into())).is_err() {
                    break;
                }
                done += count as u64;
                display.bytes(done, size);
            }
            display.step("waiting until it is stored");
            display
        });
        let Self { runtime, connection, endpoint, .. } = self;
        let answer = runtime.block_on(async {
            let (kind, body) = ("application/octet-stream", Body::Parts(parts));
            let answer = Self::send(connection, endpoint, Method::POST, path, kind, body).await?;
            let body = answer.into_body().collect().await?.to_bytes();
            serde_json::from_slice(&body)
                .context("the daemon answers what this program does not know")
        });
        // It ends when its parts are taken by nobody any more.
        let _display = reader.join();
        answer
    }

    /// Writes what the daemon has at `path`, and shows how far that is.
    pub fn download(&mut self, path: &str, to: &mut dyn Write) -> anyhow::Result<()> {
        let Self { runtime, connection, endpoint, .. } = self;
        runtime.block_on(async {
            let (kind, body) = ("application/octet-stream", Body::Whole(Bytes::new()));
            let answer = Self::send(connection, endpoint, Method::GET, path, kind, body).await?;
            let size = hyper::body::Body::size_hint(answer.body()).exact();
            let (mut stream, mut done) = (answer.into_body(), 0);
            let display = Display::new("receiving");
            while let Some(frame) = stream.frame().await {
                if let Some(bytes) = frame.context("the daemon has gone")?.data_ref() {
                    to.write_all(bytes).context("cannot write what comes")?;
                    done += bytes.len() as u64;
                    display.bytes(done, size);
                }
            }
            if size.is_some_and(|size| size != done) {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof))
                    .context("it was cut off");
            }
            Ok(())
        })
    }

    /// Both directions of a VM's serial port, until one of them ends: `typed` is read, `printed` is called.
    pub fn converse(
        &mut self,
        path: &str,
        mut typed: tokio::sync::mpsc::Receiver<Vec<u8>>,
        mut printed: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let Self { runtime, connection, endpoint, project } = self;
        runtime.block_on(async {
            let mut listening = endpoint.connect().await?;
            let kind = "application/octet-stream";
            let query = format!("{path}?project={project}");
            let follow = format!("{query}&follow=true");
            let answer =
                Self::send(&mut listening, endpoint, Method::GET, &follow, kind, Body::Whole(Bytes::new())).await?;
            let mut stream = answer.into_body();
            loop {
                tokio::select! {
                    frame = stream.frame() => match frame {
                        None => return Ok(()),
                        Some(frame) => {
                            if let Some(bytes) = frame.context("the daemon has gone")?.data_ref() {
                                printed(bytes)?;
                            }
                        }
                    },
                    keys = typed.recv() => {
                        let Some(keys) = keys else { return Ok(()) };
                        let answer =
                            Self::send(connection, endpoint, Method::POST, &query, kind, Body::Whole(keys.into())).await?;
                        answer.into_body().collect().await?;
                    }
                }
            }
        })
    }
}
