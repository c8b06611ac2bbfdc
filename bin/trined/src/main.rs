//! `trined`: the daemon of one host.
//!
//! It keeps the state, runs the reconciler on a thread of its own, and answers API v1 at a local socket, and at an
//! address of the network if it is given one. VMs are processes that are nobody's children: they go on when this
//! one is killed, stopped or replaced, and it finds them when it starts.

mod leave;
mod listen;
mod steward;

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use api::{Api, Metrics, Parts};
use clap::Parser;
use host::LocalHost;
use listen::Remote;
use model::VmId;
use reconcile::simulated::SimulatedHosts;
use reconcile::{Host, Reconciler};
use registry::{Registry, RootDisk};
use scaling::{Around, Scaler};
use store::Embedded;
use tracing_subscriber::EnvFilter;

/// The daemon of one host: runs VMs that others ask for.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Where state, images and VMs' disks are [default: $TRINE_HOME, or the user's data folder]
    #[arg(long, value_name = "FOLDER", env = "TRINE_HOME")]
    home: Option<PathBuf>,
    /// The local socket [default: /run/trine/trine.sock for root, else $XDG_RUNTIME_DIR/trine.sock]
    #[arg(long, value_name = "PATH", env = "TRINE_SOCKET")]
    socket: Option<PathBuf>,
    /// Listen at this address of the network, too, with TLS; callers need a token
    #[arg(long, value_name = "ADDRESS:PORT", env = "TRINE_LISTEN")]
    listen: Option<SocketAddr>,
    /// The certificate to show there, and its chain, in PEM [default: one of the daemon's own]
    #[arg(long, value_name = "FILE", env = "TRINE_TLS_CERTIFICATE", requires_all = ["tls_key", "listen"])]
    tls_certificate: Option<PathBuf>,
    /// Its private key, in PEM
    #[arg(long, value_name = "FILE", env = "TRINE_TLS_KEY", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
    /// Run no VMs, but simulate so many hosts that do: to try out how the platform is with many
    #[arg(long, value_name = "HOSTS", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    simulate: Option<u32>,
    /// A file that says with which OpenID Connect provider people can sign in, and what its groups may
    #[arg(long, value_name = "FILE", env = "TRINE_OIDC", requires = "listen")]
    oidc: Option<PathBuf>,
    /// How log lines look
    #[arg(long, value_enum, default_value = "text")]
    log: Log,
    /// Shut all VMs down, take networks away, and end: before this program is removed. VMs and disks are kept
    #[arg(long)]
    leave: bool,
    /// How long guests may then take to shut down
    #[arg(long, value_name = "SECONDS", env = "TRINE_PATIENCE", default_value_t = 90)]
    patience: u64,
    /// Print the API's OpenAPI document, and do nothing else
    #[arg(long)]
    openapi: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Log {
    /// For people
    Text,
    /// For programs: an object a line
    Json,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.openapi {
        print!("{}", api::document());
        return ExitCode::SUCCESS;
    }
    let filter = EnvFilter::try_from_env("TRINE_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match options.log {
        Log::Text => log.init(),
        Log::Json => log.json().init(),
    }
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::from(4)
        }
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    let home = home(options)?;
    let socket = socket(options)?;
    let images = images::Store::open(&home.join("images"))?;
    let store = Embedded::open(&home.join("state"))?;
    let registry = Registry::new(Arc::new(store));
    registry.found(jiff::Timestamp::now())?;
    let program = beside_us("trinevm")?;
    let host = LocalHost::open(&home, program, images.clone())
        .with_context(|| format!("cannot use {}", home.display()))?;
    if options.leave {
        return leave::leave(&host, Duration::from_secs(options.patience));
    }
    let metrics = Arc::new(Metrics::new());
    let own_uid = rustix::process::getuid().as_raw();
    let consoles = host.consoles().clone();
    let guests = host.guests();
    let around = Surroundings { images: images.clone(), guests: guests.clone() };
    let provider = options.oidc.as_deref().map(oidc::Config::read).transpose()?;
    let provider = provider.map(oidc::Provider::new).transpose()?;
    let api = Api::new(Parts {
        registry: registry.clone(),
        consoles,
        guests,
        images,
        metrics: metrics.clone(),
        own_uid,
        provider,
    });
    let host: Arc<dyn Host> = match options.simulate {
        Some(hosts) => Arc::new(simulated(hosts)),
        None => Arc::new(host),
    };
    let reconciler = Reconciler::new(registry.clone(), host);
    let scaler = Scaler::new(registry.clone(), Arc::new(around));
    // The first look, before anyone can ask: what runs is found again.
    let steward = steward::begin(reconciler, scaler, registry, metrics)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start")?;
    let remote = options.listen.map(|address| Remote {
        address,
        given: options.tls_certificate.clone().zip(options.tls_key.clone()),
        folder: home.join("tls"),
    });
    let served = runtime.block_on(listen::serve(&socket, remote, web::over(api.router())));
    // A watch that is being told, or a console, ends here.
    runtime.shutdown_timeout(Duration::from_secs(1));
    steward.stop();
    tracing::info!("stopped; VMs go on");
    served
}

/// What scale sets need of this host.
struct Surroundings {
    images: images::Store,
    guests: host::Guests,
}

impl Around for Surroundings {
    fn root_disk(&self, image: &str, size_bytes: Option<u64>) -> Result<RootDisk, String> {
        api::of_image(&self.images, image, size_bytes).map_err(|problem| problem.detail)
    }

    fn cpu_ms(&self, vm: VmId) -> Option<u64> {
        self.guests.usage(vm).map(|usage| usage.cpu_ms)
    }
}

/// Hosts that take as long for a start as real ones.
fn simulated(hosts: u32) -> SimulatedHosts {
    tracing::warn!(hosts, "hosts are simulated: VMs only seem to run");
    let offers = SimulatedHosts::offers_of(hosts);
    SimulatedHosts::new(1, offers).paced(Duration::from_millis(50))
}

fn home(options: &Options) -> anyhow::Result<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let home = options.home.clone().filter(|home| !home.as_os_str().is_empty());
    let home = home
        .or_else(|| variable("XDG_DATA_HOME").map(|data| data.join("trine")))
        .or_else(|| variable("HOME").map(|home| home.join(".local/share/trine")))
        .context("no place for the state: give --home")?;
    std::path::absolute(&home).with_context(|| format!("cannot use {}", home.display()))
}

fn socket(options: &Options) -> anyhow::Result<PathBuf> {
    if let Some(socket) = &options.socket {
        return Ok(socket.clone());
    }
    if rustix::process::getuid().is_root() {
        return Ok(Path::new("/run/trine/trine.sock").to_owned());
    }
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    Ok(runtime.context("no place for the socket: give --socket")?.join("trine.sock"))
}

fn beside_us(program: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()
        .context("cannot find this program's own file")?
        .with_file_name(program);
    if !path.is_file() {
        anyhow::bail!("{} is missing: build or install it beside trined", path.display());
    }
    Ok(path)
}
