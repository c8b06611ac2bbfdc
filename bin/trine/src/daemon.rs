//! Asking the daemon: API v1 over its local socket.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::runtime::Runtime;

/// Largest answer that is read whole.
const ANSWER_MAX: usize = 64 << 20;

/// Which daemon.
#[derive(Args, Clone)]
pub struct Where {
    /// The daemon's socket [default: that of the user's own daemon, then of the host's]
    #[arg(long, value_name = "PATH", env = "TRINE_SOCKET", global = true)]
    socket: Option<PathBuf>,
    /// The project
    #[arg(
        long,
        value_name = "NAME",
        env = "TRINE_PROJECT",
        default_value = "default",
        global = true
    )]
    pub project: String,
}

impl Where {
    fn socket(&self) -> PathBuf {
        let own =
            std::env::var_os("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("trine.sock"));
        let host = || PathBuf::from("/run/trine/trine.sock");
        self.socket.clone().or(own.filter(|path| path.exists())).unwrap_or_else(host)
    }
}

/// A conversation with the daemon.
pub struct Client {
    runtime: Runtime,
    connection: SendRequest<Full<Bytes>>,
    socket: PathBuf,
    pub project: String,
}

async fn connect(socket: &Path) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = UnixStream::connect(socket).await.with_context(|| {
        format!(
            "no daemon answers at {}: start trined, or name its socket with --socket",
            socket.display()
        )
    })?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

impl Client {
    pub fn connect(to: &Where) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let socket = to.socket();
        let connection = runtime.block_on(connect(&socket))?;
        Ok(Self { runtime, connection, socket, project: to.project.clone() })
    }

    /// Asks, and gives what streams back.
    async fn send(
        connection: &mut SendRequest<Full<Bytes>>,
        method: Method,
        path: &str,
        kind: &str,
        body: Bytes,
    ) -> anyhow::Result<Response<Incoming>> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, kind)
            .body(Full::new(body))?;
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
        let Self { runtime, connection, .. } = self;
        runtime.block_on(async {
            let kind = "application/json";
            let answer = Self::send(connection, method, path, kind, body.into()).await?;
            let body = http_body_util::Limited::new(answer.into_body(), ANSWER_MAX);
            let body = body.collect().await.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
            serde_json::from_slice(&body)
                .context("the daemon answers what this program does not know")
        })
    }

    /// Both directions of a VM's serial port, until one of them ends: `typed` is read, `printed` is called.
    pub fn converse(
        &mut self,
        path: &str,
        mut typed: tokio::sync::mpsc::Receiver<Vec<u8>>,
        mut printed: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let Self { runtime, connection, socket, project } = self;
        runtime.block_on(async {
            let mut listening = connect(socket).await?;
            let kind = "application/octet-stream";
            let query = format!("{path}?project={project}");
            let follow = format!("{query}&follow=true");
            let answer =
                Self::send(&mut listening, Method::GET, &follow, kind, Bytes::new()).await?;
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
                            Self::send(connection, Method::POST, &query, kind, keys.into()).await?;
                        answer.into_body().collect().await?;
                    }
                }
            }
        })
    }
}
