//! `cargo xtask contract`: the API by its own document. Schemathesis asks a real daemon whatever the document lets it
//! make up, and a client that is generated from the document takes a VM through its life.
//!
//! Both are Python's, in an environment of their own with pinned versions. The daemon is nobody's: what is made up
//! may make bridges and folders, which it then cannot.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Args;
use guests::{free_port, host};

const SCHEMATHESIS: &str = "schemathesis==4.32.5";
const GENERATOR: &str = "openapi-python-client==0.29.1";
/// Who the daemon is where we are root.
const NOBODY: u32 = 65534;
const START_LIMIT: Duration = Duration::from_secs(60);
/// They do not end, or are no HTTP.
const STREAMS: &str =
    "^/v1/(watch|watch/socket|host/usage|vms/\\{vm\\}/(usage|terminal|screen|console))$";
/// No failure of the daemon, and no answer that is not in the document.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
    response_headers_conformance,response_schema_conformance,unsupported_method,ignored_auth";

/// How much.
#[derive(Args)]
pub struct Options {
    /// Requests that are made up for each endpoint and kind of test
    #[arg(long, default_value = "30")]
    examples: u32,
    /// Of which made-up requests
    #[arg(long, default_value = "1")]
    seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { examples: 30, seed: 1 }
    }
}

/// A daemon of our own, which ends with us.
struct Daemon {
    child: Child,
    home: PathBuf,
    port: u16,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.home);
    }
}

impl Daemon {
    fn start(programs: &Path) -> anyhow::Result<Self> {
        let home = std::env::temp_dir().join(format!("trine-contract-{}", std::process::id()));
        fs::create_dir_all(&home)?;
        fs::set_permissions(&home, fs::Permissions::from_mode(0o755))?;
        let port = free_port()?;
        let mut daemon = Command::new(programs.join("trined"));
        daemon.args(["--listen", &format!("127.0.0.1:{port}")]);
        daemon.arg("--home").arg(&home).arg("--socket").arg(home.join("trine.sock"));
        if fs::metadata("/proc/self")?.uid() == 0 {
            chown(&home, Some(NOBODY), Some(NOBODY))?;
            daemon.uid(NOBODY).gid(NOBODY);
        }
        let log = File::create(home.join("log"))?;
        let child =
            daemon.stdin(Stdio::null()).stderr(log).spawn().context("cannot start trined")?;
        let daemon = Self { child, home, port };
        let begin = Instant::now();
        while daemon.trine(programs, &["ls"]).is_err() {
            if begin.elapsed() > START_LIMIT {
                let log = fs::read_to_string(daemon.home.join("log")).unwrap_or_default();
                bail!("trined does not start: {log}");
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(daemon)
    }

    fn trine(&self, programs: &Path, words: &[&str]) -> anyhow::Result<String> {
        let mut trine = Command::new(programs.join("trine"));
        host::output(trine.args(words).env("TRINE_SOCKET", self.home.join("trine.sock")))
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }
}

/// Runs it.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let environment = environment()?;
    test(&environment, options)
}

/// The programs of Python's, installed once.
fn environment() -> anyhow::Result<PathBuf> {
    let folder = host::cache("contract")?;
    let done = folder.join(format!("{SCHEMATHESIS} {GENERATOR}"));
    if !done.exists() {
        host::need_packages(&["python3-venv"])?;
        host::run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        let mut pip = Command::new(folder.join("bin/pip"));
        host::run(pip.args(["install", "--quiet", SCHEMATHESIS, GENERATOR]))?;
        File::create(done)?;
    }
    Ok(folder.join("bin"))
}

fn test(environment: &Path, options: &Options) -> anyhow::Result<()> {
    let programs = host::build_for_tests()?;
    let daemon = Daemon::start(&programs)?;
    let create = ["token", "create", "contract", "--role", "admin"];
    let token = daemon.trine(&programs, &create)?.trim().to_owned();
    client(environment, &daemon, &token)?;
    // What is made up may start VMs: a few show as much as many.
    daemon.trine(
        &programs,
        &["project", "quota", "default", "--vms", "4", "--cpus", "8", "--memory", "4G"],
    )?;
    let mut schemathesis = Command::new(environment.join("schemathesis"));
    schemathesis.arg("run").arg(host::root().join("docs/openapi.json"));
    schemathesis.args(["--url", &daemon.url(), "--no-color", "--continue-on-failure"]);
    schemathesis.arg("--tls-verify").arg(daemon.home.join("tls/certificate.pem"));
    schemathesis.arg("--header").arg(format!("Authorization: Bearer {token}"));
    schemathesis.args(["--checks", CHECKS, "--exclude-path-regex", STREAMS]);
    schemathesis.args(["--max-examples", &options.examples.to_string()]);
    schemathesis.args(["--seed", &options.seed.to_string(), "--generation-database", "none"]);
    schemathesis.args(["--suppress-health-check", "all", "--request-timeout", "70"]);
    // What it keeps goes with the daemon.
    host::run(schemathesis.current_dir(&daemon.home))
}

/// Generates the client, and takes a VM through its life with it.
fn client(environment: &Path, daemon: &Daemon, token: &str) -> anyhow::Result<()> {
    let package = daemon.home.join("client");
    let mut generate = Command::new(environment.join("openapi-python-client"));
    generate.args(["generate", "--meta", "none", "--path"]);
    generate.arg(host::root().join("docs/openapi.json"));
    host::run(generate.arg("--output-path").arg(package.join("trine_client")))?;
    let mut life = Command::new(environment.join("python"));
    life.arg(host::root().join("xtask/life.py")).arg(daemon.url());
    life.arg(daemon.home.join("tls/certificate.pem"));
    host::run(life.env("PYTHONPATH", &package).env("TRINE_TOKEN", token))
}
