//! What can be asked of a guest's agent.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes. In a message they are base64: JSON has no bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data(pub Vec<u8>);

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64_STANDARD.decode(text).map(Self).map_err(D::Error::custom)
    }
}

/// Most bytes of a file in one [`AgentRequest::FileWrite`].
pub const FILE_PIECE_MAX: usize = 32 << 10;

/// What a guest's agent can be asked: one command each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum AgentRequest {
    /// Whether it is there.
    Ping,
    /// Who it is. Answered with [`AgentReply::Info`].
    Info,
    /// Start a program. Answered with [`AgentReply::Started`].
    Exec {
        /// The program.
        path: String,
        /// Its arguments, without its name.
        arguments: Vec<String>,
        /// Its standard input.
        input: Option<Data>,
    },
    /// How a started program is. Answered with [`AgentReply::Running`], or with its output and then
    /// [`AgentReply::Ended`], once.
    ExecStatus {
        /// As it was started.
        pid: i64,
    },
    /// Open a file. Answered with [`AgentReply::Opened`].
    FileOpen {
        /// Where.
        path: String,
        /// It is made anew, and written; otherwise it is read.
        write: bool,
    },
    /// Read on. Answered with [`AgentReply::Read`].
    FileRead {
        /// As it was opened.
        handle: i64,
    },
    /// Write on. Answered with [`AgentReply::Written`].
    FileWrite {
        /// As it was opened.
        handle: i64,
        /// What: at most [`FILE_PIECE_MAX`].
        data: Data,
    },
    /// Close a file.
    FileClose {
        /// As it was opened.
        handle: i64,
    },
    /// Bring file systems to rest. Answered with [`AgentReply::Filesystems`].
    Freeze,
    /// Let them go on. Answered with [`AgentReply::Filesystems`].
    Thaw,
    /// Shut the guest down. That it has begun to is all the reply says.
    Shutdown {
        /// And start it again.
        reboot: bool,
    },
    /// Network interfaces. Answered with [`AgentReply::Interfaces`].
    Network,
}

/// What a guest's agent answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AgentReply {
    /// It is done.
    Done,
    /// Who it is.
    Info(AgentInfo),
    /// The program has begun.
    Started {
        /// Its process ID.
        pid: i64,
    },
    /// It goes on.
    Running,
    /// Some of what it has printed. Another reply follows.
    Output {
        /// Where.
        stream: Stream,
        /// What.
        data: Data,
    },
    /// It has ended.
    Ended(Ended),
    /// The file is open.
    Opened {
        /// By which to call it.
        handle: i64,
    },
    /// Some of the file.
    Read {
        /// What.
        data: Data,
        /// There is no more.
        is_end: bool,
    },
    /// So much of the data was written.
    Written {
        /// Bytes.
        count: u64,
    },
    /// So many file systems were frozen or thawed.
    Filesystems {
        /// How many.
        filesystems: u32,
    },
    /// The guest's network interfaces.
    Interfaces {
        /// They.
        interfaces: Vec<Interface>,
    },
}

/// One of a program's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Error,
}

/// How a program of the guest has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Its exit status.
    pub exit_code: Option<i64>,
    /// The signal that ended it.
    pub signal: Option<i64>,
    /// It printed more than the agent keeps.
    pub is_cut: bool,
}

/// An agent, and its guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentInfo {
    /// The agent's version.
    pub version: String,
    /// The guest's operating system.
    pub system: Option<String>,
    /// Its kernel.
    pub kernel: Option<String>,
    /// Its name.
    pub host_name: Option<String>,
    /// What the agent can do, in its own words.
    pub commands: Vec<String>,
}

/// A network interface of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: Option<String>,
    /// Its addresses, each with a prefix's length.
    pub addresses: Vec<String>,
}
