//! A daemon of our own, which ends with us. Its VMs would go on.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use guests::{free_port, host};
use serde_json::Value;

/// Where it listens, if nobody else does.
const PORT: u16 = 8443;
const START_LIMIT: Duration = Duration::from_secs(30);
/// The token that is told.
const TOKEN: &str = "up";

/// A daemon that runs.
pub struct Platform {
    trine: PathBuf,
    socket: PathBuf,
    log: PathBuf,
    daemon: Child,
}

impl Platform {
    /// Starts it, and waits until it answers. Images are those of the home.
    pub fn start(home: &Path) -> anyhow::Result<Self> {
        let (socket, log) = (home.join("trine.sock"), home.join("trined.log"));
        let free = TcpListener::bind(("127.0.0.1", PORT)).is_ok();
        let port = if free { PORT } else { free_port()? };
        let daemon = Command::new(host::release_program("trined")?)
            .arg("--home")
            .arg(home)
            .arg("--socket")
            .arg(&socket)
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .stdin(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context("cannot start trined")?;
        let mut platform = Self { trine: host::release_program("trine")?, socket, log, daemon };
        let begin = Instant::now();
        while platform.address().is_err() || platform.ask(&["ls"]).is_err() {
            if platform.daemon.try_wait()?.is_some() || begin.elapsed() > START_LIMIT {
                bail!("trined does not start: {}", platform.log()?.trim_end());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(platform)
    }

    /// The command line, for this daemon.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.trine);
        command.args(words).env("TRINE_SOCKET", &self.socket);
        command
    }

    /// The command line.
    pub fn program(&self) -> &Path {
        &self.trine
    }

    /// The daemon's local socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// What it answers.
    pub fn ask(&self, words: &[&str]) -> anyhow::Result<String> {
        host::output(&mut self.command(words))
    }

    /// A token for everything, told this once: one of a former time is good no longer.
    pub fn token(&self) -> anyhow::Result<String> {
        let _ = self.ask(&["token", "rm", TOKEN]);
        let secret = self.ask(&["token", "create", TOKEN, "--role", "admin", "--expires", "1d"])?;
        Ok(secret.trim().to_owned())
    }

    /// Where it listens, and its certificate's fingerprint.
    pub fn address(&self) -> anyhow::Result<(String, String)> {
        let log = self.log()?;
        let field = |name: &str| {
            let line = log.lines().find(|line| line.contains("fingerprint="))?;
            line.split_whitespace().find_map(|word| word.strip_prefix(name)).map(str::to_owned)
        };
        let address = field("address=").context("trined does not listen")?;
        Ok((format!("https://{address}"), field("fingerprint=").unwrap_or_default()))
    }

    /// The port of the loopback that leads to a VM's SSH server.
    pub fn ssh_port(&self, name: &str) -> anyhow::Result<u16> {
        let vm = self.show(name)?;
        let port = vm["spec"]["network"]["user"][0]["host_port"].as_u64();
        Ok(port.context("the VM has no port for ssh: --fresh makes a new one")?.try_into()?)
    }

    /// Whether a VM is on.
    pub fn is_running(&self, name: &str) -> anyhow::Result<bool> {
        Ok(self.show(name)?["status"]["phase"] == "running")
    }

    /// Why it is not.
    pub fn ended(&self, name: &str) -> anyhow::Result<String> {
        let vm = self.show(name)?;
        Ok(format!("{name} does not run: {}", vm["status"]))
    }

    fn show(&self, name: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.ask(&["vm", "show", name, "-o", "json"])?)?)
    }

    fn log(&self) -> anyhow::Result<String> {
        fs::read_to_string(&self.log).context("trined has no log")
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        // It stands this at any moment: what it knows is on disk.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
