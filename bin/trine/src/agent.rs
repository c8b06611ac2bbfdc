//! What is done inside a guest, by its agent.

use std::fs::File;
use std::io::{ErrorKind, IsTerminal, Read, Write, stderr, stdin, stdout};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use vmm_rpc::{
    AgentReply, AgentRequest, Client, Data, FILE_PIECE_MAX, Refusal, Reply, Request, RpcError,
    Stream,
};

use crate::control::Target;

/// How often a program of the guest is looked at: at first, and at last.
const LOOKS: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(250)];
/// A shell's exit status of a program that a signal ended is this and the signal.
const SIGNALLED: i64 = 128;
/// How often a VM that is to end is looked at.
const END_LOOK: Duration = Duration::from_millis(100);
/// What stands before a path in the guest.
const GUEST: &str = "guest:";
/// What fits into one request.
const INPUT_MAX: u64 = 32 << 10;

#[derive(Args)]
pub struct AgentOptions {
    #[command(subcommand)]
    command: AgentCommand,
}

/// What the agent can be asked besides.
#[derive(Subcommand)]
enum AgentCommand {
    /// Say whether the agent answers
    Ping(Target),
    /// Say what agent it is, and what guest
    Info(Target),
    /// List the guest's network interfaces
    Network(Target),
    /// Bring the guest's file systems to rest, for a copy of its disks
    Freeze(Target),
    /// Let them go on
    Thaw(Target),
}

#[derive(Args)]
pub struct ExecOptions {
    #[command(flatten)]
    target: Target,
    /// Give the program what comes on the standard input, 32 KiB at most
    #[arg(short, long)]
    input: bool,
    /// The program, as an absolute path or found by the guest, and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    program: Vec<String>,
}

#[derive(Args)]
pub struct CopyOptions {
    #[command(flatten)]
    target: Target,
    /// A file here, or guest:PATH
    from: String,
    /// guest:PATH, or a file here
    to: String,
}

#[derive(Args)]
pub struct ShutdownOptions {
    #[command(flatten)]
    target: Target,
    /// How many seconds the guest may take
    #[arg(long, value_name = "SECONDS", default_value = "120")]
    timeout: u64,
}

/// A conversation with an agent.
struct Conversation(Client);

impl Conversation {
    fn with(target: &Target) -> anyhow::Result<Self> {
        Ok(Self(Client::connect(target.control())?))
    }

    fn ask(&mut self, request: AgentRequest) -> anyhow::Result<AgentReply> {
        match self.0.ask(&Request::Agent(request))? {
            Reply::Agent(reply) => Ok(reply),
            Reply::Refused { message, .. } => bail!("{message}"),
            other => bail!("the VM answers something else: {other:?}"),
        }
    }
}

/// Text of a guest's, for a terminal.
fn shown(text: &str) -> String {
    text.chars().flat_map(|c| c.escape_debug()).collect()
}

/// Asks what `trine agent` asks, and prints the answer.
pub fn agent(options: AgentOptions) -> anyhow::Result<()> {
    let (target, request) = match options.command {
        AgentCommand::Ping(target) => (target, AgentRequest::Ping),
        AgentCommand::Info(target) => (target, AgentRequest::Info),
        AgentCommand::Network(target) => (target, AgentRequest::Network),
        AgentCommand::Freeze(target) => (target, AgentRequest::Freeze),
        AgentCommand::Thaw(target) => (target, AgentRequest::Thaw),
    };
    match Conversation::with(&target)?.ask(request)? {
        AgentReply::Info(info) => {
            let unknown = || "unknown".to_owned();
            for (name, value) in [
                ("agent", Some(info.version)),
                ("system", info.system),
                ("kernel", info.kernel),
                ("name", info.host_name),
                ("commands", Some(info.commands.join(" "))),
            ] {
                println!("{name:12} {}", value.map_or_else(unknown, |value| shown(&value)));
            }
        }
        AgentReply::Interfaces { interfaces } => {
            for interface in interfaces {
                let mac = interface.mac.unwrap_or_else(|| "-".to_owned());
                let line =
                    format!("{:12} {mac:17} {}", interface.name, interface.addresses.join(" "));
                println!("{}", shown(&line));
            }
        }
        AgentReply::Filesystems { filesystems } => println!("{filesystems} file systems"),
        _ => {}
    }
    Ok(())
}

/// Runs a program in the guest. The exit status is the program's.
pub fn exec(options: ExecOptions) -> anyhow::Result<ExitCode> {
    let mut agent = Conversation::with(&options.target)?;
    let mut arguments = options.program;
    let path = arguments.remove(0);
    let input = options.input.then(read_input).transpose()?.map(Data);
    let started = agent.ask(AgentRequest::Exec { path, arguments, input })?;
    let AgentReply::Started { pid } = started else { bail!("it was not started: {started:?}") };
    let mut pause = LOOKS[0];
    let mut reply = agent.ask(AgentRequest::ExecStatus { pid })?;
    while reply == AgentReply::Running {
        std::thread::sleep(pause);
        pause = (pause * 2).min(LOOKS[1]);
        reply = agent.ask(AgentRequest::ExecStatus { pid })?;
    }
    loop {
        match reply {
            AgentReply::Output { stream, data } => print(stream, &data.0)?,
            AgentReply::Ended(ended) => {
                if ended.is_cut {
                    eprintln!("trine: the guest agent has kept the first 16 MiB of output only");
                }
                let signalled = ended.signal.map(|signal| SIGNALLED + signal);
                let status = ended.exit_code.or(signalled).unwrap_or(0);
                return Ok(ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX)));
            }
            other => bail!("the agent answers something else: {other:?}"),
        }
        reply = match agent.0.next_reply()? {
            Reply::Agent(reply) => reply,
            Reply::Refused { message, .. } => bail!("{message}"),
            other => bail!("the VM answers something else: {other:?}"),
        };
    }
}

fn read_input() -> anyhow::Result<Vec<u8>> {
    let mut input = Vec::new();
    stdin().take(INPUT_MAX + 1).read_to_end(&mut input).context("cannot read the input")?;
    if input.len() as u64 > INPUT_MAX {
        bail!("the input is longer than 32 KiB: copy it into the guest with trine cp");
    }
    Ok(input)
}

fn print(stream: Stream, data: &[u8]) -> anyhow::Result<()> {
    let printed = match stream {
        Stream::Out => stdout().write_all(data).and_then(|()| stdout().flush()),
        Stream::Error => stderr().write_all(data),
    };
    match printed {
        // A reader who has gone misses the rest.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot print the program's output"),
    }
}

/// Copies a file into the guest or out of it.
pub fn copy(options: CopyOptions) -> anyhow::Result<()> {
    let guest_path = |text: &str| text.strip_prefix(GUEST).map(str::to_owned);
    match (guest_path(&options.from), guest_path(&options.to)) {
        (None, Some(to)) => {
            let from = Path::new(&options.from);
            let to = if to.ends_with('/') { to + &file_name(from)? } else { to };
            let file =
                File::open(from).with_context(|| format!("cannot open {}", from.display()))?;
            let mut agent = Conversation::with(&options.target)?;
            copy_in(&mut agent, file, &to)
        }
        (Some(from), None) => {
            let mut to = PathBuf::from(&options.to);
            if to.is_dir() {
                to.push(file_name(Path::new(&from))?);
            }
            let mut agent = Conversation::with(&options.target)?;
            copy_out(&mut agent, &from, &to)
        }
        _ => bail!("one of the two is a file here, and the other one guest:PATH"),
    }
}

fn file_name(path: &Path) -> anyhow::Result<String> {
    let name = path.file_name().with_context(|| format!("{} is no file", path.display()))?;
    Ok(name.to_string_lossy().into_owned())
}

fn open(agent: &mut Conversation, path: &str, write: bool) -> anyhow::Result<i64> {
    match agent.ask(AgentRequest::FileOpen { path: path.to_owned(), write })? {
        AgentReply::Opened { handle } => Ok(handle),
        other => bail!("the agent answers something else: {other:?}"),
    }
}

/// Closes the file whatever became of it.
fn close(agent: &mut Conversation, handle: i64, done: anyhow::Result<()>) -> anyhow::Result<()> {
    let closed = agent.ask(AgentRequest::FileClose { handle });
    done.and_then(|()| closed.map(drop))
}

fn copy_in(agent: &mut Conversation, mut file: File, to: &str) -> anyhow::Result<()> {
    let handle = open(agent, to, true)?;
    let done = write_all(agent, &mut file, handle);
    close(agent, handle, done)
}

fn write_all(agent: &mut Conversation, file: &mut File, handle: i64) -> anyhow::Result<()> {
    let mut piece = vec![0; FILE_PIECE_MAX];
    loop {
        let size = file.read(&mut piece).context("cannot read the file")?;
        let mut rest = &piece[..size];
        if rest.is_empty() {
            return Ok(());
        }
        while !rest.is_empty() {
            let data = Data(rest.to_vec());
            match agent.ask(AgentRequest::FileWrite { handle, data })? {
                AgentReply::Written { count: 0 } => bail!("the guest writes no more of it"),
                AgentReply::Written { count } => rest = rest.get(count as usize..).unwrap_or(&[]),
                other => bail!("the agent answers something else: {other:?}"),
            }
        }
    }
}

fn copy_out(agent: &mut Conversation, from: &str, to: &Path) -> anyhow::Result<()> {
    let handle = open(agent, from, false)?;
    let done = read_all(agent, to, handle);
    close(agent, handle, done)
}

fn read_all(agent: &mut Conversation, to: &Path, handle: i64) -> anyhow::Result<()> {
    let failed = || format!("cannot write {}", to.display());
    let mut file = File::create(to).with_context(failed)?;
    loop {
        match agent.ask(AgentRequest::FileRead { handle })? {
            AgentReply::Read { data, is_end } => {
                file.write_all(&data.0).with_context(failed)?;
                if is_end {
                    return Ok(());
                }
            }
            other => bail!("the agent answers something else: {other:?}"),
        }
    }
}

/// Shuts the guest down by its agent, or without one by the power button, and waits for the VM's end.
pub fn shutdown(options: ShutdownOptions) -> anyhow::Result<()> {
    let until = Instant::now() + Duration::from_secs(options.timeout);
    let mut client = Client::connect(options.target.control())?;
    let shutdown = AgentRequest::Shutdown { reboot: false };
    let by = match client.ask(&Request::Agent(shutdown)) {
        Ok(Reply::Agent(_)) => "its agent",
        Err(RpcError::Closed) => return Ok(()),
        Ok(Reply::Refused { refusal: Refusal::WrongState, message }) => bail!("{message}"),
        Ok(_) => match client.ask(&Request::PowerButton) {
            Err(RpcError::Closed) => return Ok(()),
            Ok(Reply::Done) => "the power button",
            other => bail!("the VM does not let its power button be pressed: {other:?}"),
        },
        Err(error) => return Err(error.into()),
    };
    if stderr().is_terminal() {
        eprintln!("trine: the guest was asked to shut down by {by}");
    }
    while Instant::now() < until {
        match client.ask(&Request::Status) {
            Err(RpcError::Closed) => return Ok(()),
            Err(error) => return Err(error.into()),
            Ok(_) => std::thread::sleep(END_LOOK),
        }
    }
    bail!(
        "the guest was asked to shut down by {by}, but still runs after {} s: end it with trine quit",
        options.timeout
    )
}
