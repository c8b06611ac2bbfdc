//! The messages.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{AgentReply, AgentRequest, BalloonRequest, BalloonStatus};

/// What the VM's process says first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Program and version, for people.
    pub program: String,
    /// See [`PROTOCOL`](crate::PROTOCOL).
    pub protocol: u32,
}

/// What a VM's process can be asked. The list is the whole of what a client can reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// How it is. Answered with [`Reply::Status`].
    Status,
    /// Stop all vCPUs and the VM's clock.
    Pause,
    /// Go on after a pause.
    Resume,
    /// As the reset button: the VM starts anew.
    Reset,
    /// As the power button: the guest is asked to shut down.
    PowerButton,
    /// End the VM at once, as pulling the plug.
    Quit,
    /// What the screen shows. Answered with [`Reply::Screen`] and a file.
    Screenshot,
    /// Press and release keys, by scan codes, while the VM runs.
    Keys {
        /// In this order.
        keys: Vec<KeyPress>,
    },
    /// Go on in another engine. Answered with [`Reply::Moved`].
    Move {
        /// Which.
        engine: EngineName,
    },
    /// A disk comes. Answered with [`Reply::Plugged`].
    AddDisk {
        /// As on the command line.
        disk: String,
        /// What paths in it begin at.
        directory: PathBuf,
        /// Its files: the VM's process opens none.
        #[serde(skip)]
        files: Files,
    },
    /// A network card comes. Answered with [`Reply::Plugged`].
    AddNet {
        /// As on the command line.
        net: String,
        /// The queues of a tap.
        #[serde(skip)]
        files: Files,
    },
    /// The guest shall let a disk or network card go. It is gone when it is no more among the devices.
    RemoveDevice {
        /// What it is called.
        name: String,
    },
    /// A disk becomes larger.
    GrowDisk {
        /// What it is called.
        name: String,
        /// Its size, then.
        size_bytes: u64,
    },
    /// A qcow2 disk goes on in a new layer: what it has been so far is only read from now on. If it has that
    /// layer already, nothing happens.
    LayDisk {
        /// What it is called.
        name: String,
        /// The new layer and all that is below it, as on the command line.
        over: String,
        /// What paths in it begin at.
        directory: PathBuf,
        /// Its files: the VM's process opens none.
        #[serde(skip)]
        files: Files,
    },
    /// The disks and network cards that can come and go. Answered with [`Reply::Devices`].
    Devices,
    /// CPUs or memory come.
    Grow {
        /// So many CPUs in all.
        cpus: Option<u32>,
        /// So much memory in all.
        memory_bytes: Option<u64>,
    },
    /// Ask the guest's agent. Answered with [`Reply::Agent`].
    Agent(AgentRequest),
    /// What the memory balloon shall do, if anything. Answered with [`Reply::Balloon`].
    Balloon(BalloonRequest),
}

impl Request {
    /// The files that go with it.
    pub(crate) fn files(&self) -> &[OwnedFd] {
        match self {
            Self::AddDisk { files, .. }
            | Self::AddNet { files, .. }
            | Self::LayDisk { files, .. } => &files.0,
            _ => &[],
        }
    }

    /// Takes the files in that came with it; closes them where it has no use for them.
    pub(crate) fn attach(&mut self, came: Vec<OwnedFd>) {
        if let Self::AddDisk { files, .. }
        | Self::AddNet { files, .. }
        | Self::LayDisk { files, .. } = self
        {
            *files = came.into();
        }
    }
}

/// Files that go with a message, not in it.
#[derive(Debug, Clone, Default)]
pub struct Files(Arc<Vec<OwnedFd>>);

impl Files {
    /// Descriptors of one's own for them.
    ///
    /// # Errors
    /// When the host has none left.
    pub fn to_files(&self) -> io::Result<Vec<File>> {
        self.0.iter().map(|fd| Ok(File::from(fd.try_clone()?))).collect()
    }
}

impl From<Vec<OwnedFd>> for Files {
    fn from(files: Vec<OwnedFd>) -> Self {
        Self(Arc::new(files))
    }
}

impl From<Vec<File>> for Files {
    fn from(files: Vec<File>) -> Self {
        files.into_iter().map(OwnedFd::from).collect::<Vec<_>>().into()
    }
}

impl PartialEq for Files {
    /// They are the same descriptors.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.is_empty() && other.0.is_empty()
    }
}

impl Eq for Files {}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// It is done.
    Done,
    /// How the VM is.
    Status(Box<Status>),
    /// What the screen shows. With it comes a file with the pixels, 32 bits each: red, green and
    /// blue from bit 16, 8 and 0.
    Screen {
        /// Pixels of a line.
        width: u32,
        /// Lines.
        height: u32,
    },
    /// What has come is called this.
    Plugged {
        /// Its name.
        name: String,
    },
    /// Disks and network cards.
    Devices(Vec<PluggedDevice>),
    /// The VM goes on in the other engine.
    Moved(Moved),
    /// What the guest's agent says.
    Agent(AgentReply),
    /// How the memory balloon is.
    Balloon(BalloonStatus),
    /// Nothing has changed.
    Refused {
        /// For programs.
        refusal: Refusal,
        /// For people: what is wrong and what to do.
        message: String,
    },
}

/// A reply, and the file that goes with it.
#[derive(Debug)]
pub struct Answer {
    /// The reply.
    pub reply: Reply,
    /// What is too large for it.
    pub file: Option<OwnedFd>,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self { reply, file: None }
    }
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// The message is not a request of this protocol.
    BadRequest,
    /// The VM's run state does not allow it.
    WrongState,
    /// The engine cannot run this VM here.
    Unsupported,
    /// The host or the engine failed; the VM goes on as it was.
    Failed,
    /// The guest, or what runs in it, does not do it.
    Guest,
}

/// An engine, by the name it has everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineName {
    /// Hardware virtualization.
    Hw,
    /// Software virtualization.
    Emu,
    /// Full virtualization.
    Full,
}

impl fmt::Display for EngineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Hw => "hw",
            Self::Emu => "emu",
            Self::Full => "full",
        })
    }
}

impl FromStr for EngineName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "hw" => Ok(Self::Hw),
            "emu" => Ok(Self::Emu),
            "full" => Ok(Self::Full),
            _ => Err(format!("there is no engine '{name}': engines are hw, emu and full")),
        }
    }
}

/// What the VM does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// Its vCPUs execute.
    Running,
    /// Its vCPUs and its clock stand.
    Paused,
}

impl fmt::Display for RunState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Running => "running",
            Self::Paused => "paused",
        })
    }
}

/// How many ways out are shown to people.
const EXITS_SHOWN: usize = 16;

/// Why vCPUs left what the engine does fastest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitCount {
    /// For people.
    pub why: String,
    /// How often, of all vCPUs together.
    pub count: u64,
}

/// How a VM is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Process ID of the VM's process.
    pub pid: u32,
    /// The engine it runs in.
    pub engine: EngineName,
    /// Why this one was chosen.
    pub engine_reason: String,
    /// What keeps the VM's process to its own files.
    #[serde(default)]
    pub cage: CageStatus,
    /// What it does.
    pub state: RunState,
    /// Guest RAM in bytes.
    pub memory_bytes: u64,
    /// Host memory of the process beyond guest memory, in bytes.
    pub overhead_bytes: u64,
    /// Of that, the engine's translated code.
    #[serde(default)]
    pub code_bytes: u64,
    /// Of that, what the engine knows of translated code and of addresses, at most.
    #[serde(default)]
    pub table_bytes: u64,
    /// Why vCPUs left what the engine does fastest, most frequent first.
    #[serde(default)]
    pub exits: Vec<ExitCount>,
    /// Time the VM has run, without pauses, in milliseconds.
    pub machine_time_ms: u64,
    /// Resets since it was started.
    pub resets: u64,
    /// Engine moves since it was started.
    pub moves: u64,
    /// Bytes of console output thrown away because nobody took them.
    pub console_lost_bytes: u64,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// What can come to it while it runs.
    #[serde(default)]
    pub room: Room,
    /// Port accesses that reached the board.
    pub port_accesses: u64,
    /// MMIO accesses that reached the board.
    pub mmio_accesses: u64,
    /// Accesses of both kinds that no device claimed.
    pub unclaimed_accesses: u64,
}

impl Status {
    /// What the VM takes of the host beside the guest's memory, and where its engine lost time: rows for people.
    pub fn costs(&self) -> Vec<(&'static str, String)> {
        let (code, tables) = (self.code_bytes >> 10, self.table_bytes >> 10);
        let mut rows = vec![
            ("overhead", format!("{} KiB beyond guest memory", self.overhead_bytes >> 10)),
            ("engine's", format!("{code} KiB of translated code, {tables} KiB of tables")),
        ];
        let exits = self.exits.iter().take(EXITS_SHOWN);
        rows.extend(exits.map(|ExitCount { why, count }| ("exits", format!("{count:>10} {why}"))));
        rows
    }
}

/// What can come to a VM while it runs; all zero when nothing can.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// So many vCPUs in all.
    pub vcpus: u32,
    /// So much guest RAM in all, in bytes.
    pub memory_bytes: u64,
    /// In steps of so many bytes.
    pub memory_step_bytes: u64,
}

/// What keeps a VM's process to its own files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CageStatus {
    /// What holds, in words for people.
    pub holds: Vec<String>,
    /// What does not, and why.
    pub lacks: Vec<String>,
}

/// A disk or network card in a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluggedDevice {
    /// What it is called.
    pub name: String,
    /// What it is.
    pub kind: DeviceKind,
    /// Its device number on the PCI bus.
    pub slot: u8,
    /// How large a disk is; 0 for a network card.
    pub size_bytes: u64,
}

/// What comes and goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceKind {
    /// A disk.
    Disk,
    /// A network card.
    Net,
}

/// A key that goes down or up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPress {
    /// Its scan code of set 1; with 0x80 for those after 0xe0.
    pub code: u8,
    /// It goes down.
    pub down: bool,
}

/// A finished engine move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// The engine left.
    pub from: EngineName,
    /// The engine entered.
    pub to: EngineName,
    /// How long the guest stood still, in microseconds.
    pub stopped_us: u64,
}
