//! What each request is in the agent's words.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use vmm_rpc::{AgentInfo, AgentReply, AgentRequest, Data, Ended, Interface, Stream};

use crate::agent::{Limits, cut};
use crate::{Agent, AgentError, Channel, OUTPUT_MAX};

/// What an agent does at once. A guest may be interpreted, and busy.
const COMMAND: Limits = Limits::seconds(30);
/// What waits for disks and for hooks.
const FREEZE: Limits = Limits::seconds(120);
/// How long an agent that will not shut down may take to say so.
const SHUTDOWN: Limits = Limits::seconds(1);
const OUTPUT: Limits = Limits { bytes: OUTPUT_MAX, ..COMMAND };

/// Bytes of a file, or of output, in one message of the control socket.
const PIECE: usize = 32 << 10;
/// What fits into such a message, whatever the guest says of itself.
const LIST_MAX: usize = 256;
const ADDRESSES_MAX: usize = 16;
const INTERFACES_MAX: usize = 32;
const NAME_MAX: usize = 64;

#[derive(Deserialize)]
struct Info {
    version: String,
    supported_commands: Vec<Command>,
}

#[derive(Deserialize)]
struct Command {
    name: String,
    enabled: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct OsInfo {
    pretty_name: Option<String>,
    kernel_release: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct HostName {
    host_name: String,
}

#[derive(Deserialize)]
struct Started {
    pid: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ExecStatus {
    exited: bool,
    #[serde(alias = "exitcode")]
    exit_code: Option<i64>,
    signal: Option<i64>,
    #[serde(default)]
    out_data: String,
    #[serde(default)]
    err_data: String,
    #[serde(default)]
    out_truncated: bool,
    #[serde(default)]
    err_truncated: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Read {
    buf_b64: String,
    eof: bool,
}

#[derive(Deserialize)]
struct Written {
    count: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct GuestInterface {
    name: String,
    hardware_address: Option<String>,
    #[serde(default)]
    ip_addresses: Vec<GuestAddress>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct GuestAddress {
    ip_address: String,
    prefix: u8,
}

impl<C: Channel> Agent<C> {
    /// Does what is asked. A program's output goes to `output` before the reply.
    ///
    /// # Errors
    /// When the agent does not, or is not there.
    pub fn serve(
        &mut self,
        request: &AgentRequest,
        output: &mut dyn FnMut(AgentReply),
    ) -> Result<AgentReply, AgentError> {
        match request {
            AgentRequest::Ping => self.done("guest-ping", json!({}), COMMAND),
            AgentRequest::Info => self.info(),
            AgentRequest::Exec { path, arguments, input } => {
                let mut asked = json!({ "path": path, "arg": arguments, "capture-output": true });
                if let Some(Data(input)) = input {
                    asked["input-data"] = BASE64_STANDARD.encode(input).into();
                }
                let Started { pid } = self.ask("guest-exec", asked, COMMAND)?;
                Ok(AgentReply::Started { pid })
            }
            AgentRequest::ExecStatus { pid } => self.exec_status(*pid, output),
            AgentRequest::FileOpen { path, write } => {
                let mode = if *write { "w" } else { "r" };
                let asked = json!({ "path": path, "mode": mode });
                let handle: i64 = self.ask("guest-file-open", asked, COMMAND)?;
                Ok(AgentReply::Opened { handle })
            }
            AgentRequest::FileRead { handle } => self.file_read(*handle),
            AgentRequest::FileWrite { handle, data: Data(data) } => {
                let asked = json!({ "handle": handle, "buf-b64": BASE64_STANDARD.encode(data) });
                let Written { count } = self.ask("guest-file-write", asked, COMMAND)?;
                Ok(AgentReply::Written { count: count.min(data.len() as u64) })
            }
            AgentRequest::FileClose { handle } => {
                self.done("guest-file-close", json!({ "handle": handle }), COMMAND)
            }
            AgentRequest::Freeze => self.count("guest-fsfreeze-freeze"),
            AgentRequest::Thaw => self.count("guest-fsfreeze-thaw"),
            AgentRequest::Shutdown { reboot } => {
                let mode = if *reboot { "reboot" } else { "powerdown" };
                self.tell("guest-shutdown", json!({ "mode": mode }), SHUTDOWN)?;
                Ok(AgentReply::Done)
            }
            AgentRequest::Network => self.network(),
        }
    }

    fn done(
        &mut self,
        command: &str,
        arguments: Value,
        limits: Limits,
    ) -> Result<AgentReply, AgentError> {
        self.ask::<IgnoredAny>(command, arguments, limits).map(|_| AgentReply::Done)
    }

    fn count(&mut self, command: &str) -> Result<AgentReply, AgentError> {
        let filesystems = self.ask(command, json!({}), FREEZE)?;
        Ok(AgentReply::Filesystems { filesystems })
    }

    fn info(&mut self) -> Result<AgentReply, AgentError> {
        let Info { version, supported_commands } = self.ask("guest-info", json!({}), COMMAND)?;
        let has = |name: &str| supported_commands.iter().any(|c| c.enabled && c.name == name);
        let (mut system, mut kernel, mut host_name) = (None, None, None);
        if has("guest-get-osinfo") {
            let os: OsInfo = self.ask("guest-get-osinfo", json!({}), COMMAND)?;
            (system, kernel) = (os.pretty_name, os.kernel_release);
        }
        if has("guest-get-host-name") {
            let named: HostName = self.ask("guest-get-host-name", json!({}), COMMAND)?;
            host_name = Some(named.host_name);
        }
        let enabled = supported_commands.iter().filter(|command| command.enabled);
        let short = |text: Option<String>| text.map(|text| cut(&text, NAME_MAX));
        Ok(AgentReply::Info(AgentInfo {
            version: cut(&version, NAME_MAX),
            system: short(system),
            kernel: short(kernel),
            host_name: short(host_name),
            commands: enabled.take(LIST_MAX).map(|c| cut(&c.name, NAME_MAX)).collect(),
        }))
    }

    fn exec_status(
        &mut self,
        pid: i64,
        output: &mut dyn FnMut(AgentReply),
    ) -> Result<AgentReply, AgentError> {
        let status: ExecStatus = self.ask("guest-exec-status", json!({ "pid": pid }), OUTPUT)?;
        if !status.exited {
            return Ok(AgentReply::Running);
        }
        for (stream, text) in [(Stream::Out, status.out_data), (Stream::Error, status.err_data)] {
            for piece in decoded(&text)?.chunks(PIECE) {
                output(AgentReply::Output { stream, data: Data(piece.to_vec()) });
            }
        }
        Ok(AgentReply::Ended(Ended {
            exit_code: status.exit_code,
            signal: status.signal,
            is_cut: status.out_truncated || status.err_truncated,
        }))
    }

    fn file_read(&mut self, handle: i64) -> Result<AgentReply, AgentError> {
        let asked = json!({ "handle": handle, "count": PIECE });
        let Read { buf_b64, eof } = self.ask("guest-file-read", asked, COMMAND)?;
        let data = decoded(&buf_b64)?;
        if data.len() > PIECE {
            return Err(AgentError::Nonsense("more of a file than was asked for".to_owned()));
        }
        Ok(AgentReply::Read { data: Data(data), is_end: eof })
    }

    fn network(&mut self) -> Result<AgentReply, AgentError> {
        let found: Vec<GuestInterface> =
            self.ask("guest-network-get-interfaces", json!({}), COMMAND)?;
        let address = |address: GuestAddress| {
            format!("{}/{}", cut(&address.ip_address, NAME_MAX), address.prefix)
        };
        let interface = |found: GuestInterface| Interface {
            name: cut(&found.name, NAME_MAX),
            mac: found.hardware_address.map(|mac| cut(&mac, NAME_MAX)),
            addresses: found.ip_addresses.into_iter().take(ADDRESSES_MAX).map(address).collect(),
        };
        let interfaces = found.into_iter().take(INTERFACES_MAX).map(interface).collect();
        Ok(AgentReply::Interfaces { interfaces })
    }
}

fn decoded(text: &str) -> Result<Vec<u8>, AgentError> {
    BASE64_STANDARD.decode(text).map_err(|e| AgentError::Nonsense(e.to_string()))
}
