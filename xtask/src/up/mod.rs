//! `cargo xtask up`: from a fresh machine to a platform with a Debian that one can log in to.

mod platform;

use std::io::{IsTerminal, stdin};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;

use guests::{Debian, IMAGE, USER, free_port, host};
use platform::Platform;

use crate::ui;

/// How to boot.
#[derive(Args)]
pub struct Options {
    /// Engine: auto, hw, emu or full. Each has a guest of its own
    #[arg(long, default_value = "auto")]
    engine: String,
    /// Number of CPUs of a new guest
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Memory of a new guest, for example 1G
    #[arg(long, default_value = "1G")]
    memory: String,
    /// Firmware of a new guest: bios or uefi
    #[arg(long, default_value = "bios")]
    firmware: String,
    /// Throw away the guest of the last time
    #[arg(long)]
    fresh: bool,
    /// Boot a guest, log in to it by ssh, power it off and throw it away: for machines without a
    /// terminal
    #[arg(long)]
    once: bool,
}

/// How long a guest may take to its SSH server: the interpreter is a hundred times slower than
/// hardware.
const SSH_LIMIT: Duration = Duration::from_secs(1800);
const SSH_AGAIN: Duration = Duration::from_secs(2);
/// From the request to a guest that is off.
const OFF_LIMIT: Duration = Duration::from_secs(120);

/// Runs it.
pub fn run(options: &Options) -> anyhow::Result<()> {
    host::need_packages(&["gcc", "libc6-dev"])?;
    step("ui", || Ok(ui::is_built_or_told()))?;
    step("build", host::build_platform)?;
    let debian = step("image", || guests::debian(&host::release_program("trine")?))?;
    let platform = step("platform", || Platform::start(&debian.home))?;
    if options.once {
        return once(options, &platform, &debian);
    }
    let name = match options.engine.as_str() {
        "auto" => "debian".to_owned(),
        engine => format!("debian-{engine}"),
    };
    let is_there = platform.ask(&["ls", "-o", "name"])?.lines().any(|line| line == name);
    if is_there && options.fresh {
        platform.ask(&["rm", "--force", &name])?;
    }
    step("start", || match is_there && !options.fresh {
        true => platform.ask(&["start", &name]),
        false => launch(options, &platform, &debian, &name),
    })?;
    let port = platform.ssh_port(&name)?;
    eprintln!("xtask: {name} boots: what it prints follows");
    eprintln!("xtask: Ctrl-C leaves it running, and the next cargo xtask up finds it again");
    let mut console = platform.command(&["console", &name]).stdin(Stdio::piped()).spawn()?;
    let begin = Instant::now();
    let booted = reach(&platform, &name, &mut debian.ssh(port), &["true"]);
    let _ = console.kill();
    console.wait()?;
    // A login prompt may be what it printed last.
    eprintln!();
    if booted.is_err() {
        let _ = platform.ask(&["stop", "--force", &name]);
    }
    booted?;
    took("ssh", begin);
    tell(&platform, &name, &debian.ssh(port))?;
    if stdin().is_terminal() {
        eprintln!("xtask: a shell in the guest follows; the guest is shut down when you leave it.");
        // Whatever the last command in there had to say is not ours.
        debian.ssh(port).status()?;
    } else {
        eprintln!("xtask: this goes on until the guest is shut down.");
        wait_off(&platform, &name, Duration::MAX)?;
    }
    step("stop", || platform.ask(&["stop", &name]))?;
    eprintln!("xtask: the disk of {name} is kept, the platform has ended");
    Ok(())
}

/// Makes a guest and starts it.
fn launch(
    options: &Options,
    platform: &Platform,
    debian: &Debian,
    name: &str,
) -> anyhow::Result<String> {
    let (cpus, key) = (options.cpus.to_string(), debian.public_key());
    let publish = format!("{}:22", free_port()?);
    let key = key.to_str().context("a path is not UTF-8")?;
    let machine = ["--cpus", &cpus, "--memory", &options.memory, "--firmware", &options.firmware];
    let guest = ["--engine", &options.engine, "--image", IMAGE, "--user", USER, "--ssh-key", key];
    let words = [&["launch", name], &machine[..], &guest, &["--publish", &publish]].concat();
    platform.ask(&words)
}

/// What can be done with it from elsewhere.
fn tell(platform: &Platform, name: &str, ssh: &Command) -> anyhow::Result<()> {
    let ((url, fingerprint), token) = (platform.address()?, platform.token()?);
    let (socket, trine) = (platform.socket().display(), platform.program().display());
    eprintln!(
        "xtask: the platform is at {url}: open that in a browser, and sign in with the token"
    );
    eprintln!("xtask:   certificate  {fingerprint}");
    eprintln!("xtask:   token        {token}");
    eprintln!("xtask: {name} is up. In another terminal, this looks around or logs in:\n");
    eprintln!("    export TRINE_SOCKET={socket}");
    eprintln!("    {trine} ls");
    eprintln!("    {}\n", host::show(ssh));
    Ok(())
}

/// Boots a guest that is thrown away.
fn once(options: &Options, platform: &Platform, debian: &Debian) -> anyhow::Result<()> {
    let name = "once";
    // Of a run that was killed.
    let _ = platform.ask(&["rm", "--force", name]);
    let reached = step("start", || launch(options, platform, debian, name)).and_then(|_| {
        let mut ssh = debian.ssh(platform.ssh_port(name)?);
        let words = ["uname -r; sudo systemctl poweroff"];
        let said = step("ssh", || reach(platform, name, &mut ssh, &words))?;
        wait_off(platform, name, OFF_LIMIT)?;
        Ok(said)
    });
    let removed = platform.ask(&["rm", "--force", name]);
    println!("guest is up: Linux {}", reached?.trim());
    removed.map(drop)
}

/// Runs a command in the guest as soon as its SSH server is there.
fn reach(
    platform: &Platform,
    name: &str,
    ssh: &mut Command,
    words: &[&str],
) -> anyhow::Result<String> {
    let begin = Instant::now();
    ssh.args(["-o", "ConnectTimeout=20"]).args(words);
    loop {
        match host::output(ssh) {
            Ok(said) => return Ok(said),
            Err(error) if begin.elapsed() > SSH_LIMIT => return Err(error),
            Err(_) if !platform.is_running(name)? => bail!("{}", platform.ended(name)?),
            Err(_) => thread::sleep(SSH_AGAIN),
        }
    }
}

fn wait_off(platform: &Platform, name: &str, limit: Duration) -> anyhow::Result<()> {
    let begin = Instant::now();
    while platform.is_running(name)? {
        if begin.elapsed() > limit {
            bail!("{name} did not power itself off within {} s", limit.as_secs());
        }
        thread::sleep(SSH_AGAIN);
    }
    Ok(())
}

/// Runs a step, and says how long it took.
fn step<T>(name: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let begin = Instant::now();
    let result = work()?;
    took(name, begin);
    Ok(result)
}

fn took(name: &str, begin: Instant) {
    eprintln!("xtask: {name:8} {:6.1} s", begin.elapsed().as_secs_f64());
}
