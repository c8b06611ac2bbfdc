//! The command line.

use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

use cage::Level;
use clap::error::ErrorKind;
use clap::{Parser, ValueEnum};
use errchain::first_paragraph;
use rfb::Place;
use vmm::{
    BootKind, CdromSpec, ConsoleSpec, CpuModel, DiskSpec, EngineChoice, FirmwareSource, ModuleSpec,
    NetSpec, NetworkSpec, OnReset, SeedSpec, ViewerSpec, VmSpec, VsockSpec,
};

use crate::ending::{self, Ending};

/// Run one VM in this process until its guest ends it.
#[derive(Parser, Debug)]
#[command(version, after_help = ending::TABLE)]
pub struct Options {
    /// Who executes the guest's CPUs: auto, hw, full or emu
    #[arg(long, value_name = "ENGINE", default_value = "auto")]
    engine: EngineChoice,
    /// Number of CPUs, 1 to 32; with ",max=N", so many can come later
    #[arg(long, value_name = "N[,max=N]", default_value = "1", allow_hyphen_values = true)]
    cpus: UpTo<Cpus>,
    /// What they are: portable, less features of it, as in portable,-xsave
    #[arg(long, value_name = "PROFILE", default_value = "portable")]
    cpu: CpuModel,
    /// Guest memory, with its unit: 512M, 4G; with ",max=SIZE", so much can come later
    #[arg(long, value_name = "SIZE[,max=SIZE]", default_value = "512M")]
    memory: UpTo<Size>,
    /// What the VM starts from: bios, uefi or an image [default: the kernel, or without one bios]
    #[arg(long, value_name = "FIRMWARE")]
    firmware: Option<Firmware>,
    /// Keep UEFI's variables in this file, which is made if it is not there
    #[arg(long, value_name = "FILE")]
    uefi_vars: Option<PathBuf>,
    /// What firmware tries to boot from, in this order: disk, cdrom, net
    #[arg(long = "boot", value_name = "KIND[,KIND]…")]
    boot_order: Option<BootOrder>,
    /// Where firmware's debug output (port 0x402) goes: file=PATH or none
    #[arg(long, value_name = "TO", default_value = "none")]
    debugcon: Console,
    /// Kernel: a Linux bzImage or vmlinux, or a PVH or Multiboot ELF
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// Initial RAM disk of a Linux kernel
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Module of a Multiboot kernel: a file, and what to tell about it
    #[arg(long = "module", value_name = "FILE[ ARGS]")]
    modules: Vec<Module>,
    /// Command line of the kernel
    #[arg(long, value_name = "STRING", default_value = "", allow_hyphen_values = true)]
    cmdline: String,
    /// Disk: an image or a block device, then options as ",format=qcow2", ",ro", ",cache=none"
    #[arg(long = "disk", value_name = "PATH[,OPTION]…")]
    disks: Vec<DiskSpec>,
    /// CD-ROM drive: an ISO image, or none for an empty one
    #[arg(long = "cdrom", value_name = "ISO")]
    cdroms: Vec<CdromSpec>,
    /// The disk of an image, before the others; what the guest writes to it is thrown away
    #[arg(long, value_name = "NAME")]
    image: Option<String>,
    /// What cloud-init in the guest is told at its first boot: user=NAME, ssh-key=FILE,
    /// hostname=NAME, password-file=FILE, user-data=FILE, separated by commas
    #[arg(long, value_name = "KEY=VALUE,…", value_parser = parsed::<SeedSpec>)]
    cloud_init: Option<SeedSpec>,
    /// Throw away what the guest writes to any disk
    #[arg(long)]
    snapshot: bool,
    /// Network card: user[,hostfwd=tcp:127.0.0.1:2222-:22], tap=NAME, bridge=NAME or none, then
    /// `[,mac=02:…] [,model=e1000] [,rate=100M] [,spoof]`
    #[arg(long = "net", value_name = "NETWORK")]
    nets: Vec<Net>,
    /// Where the serial port goes: stdio, file=PATH or none
    #[arg(long, value_name = "TO", default_value = "stdio")]
    serial: Console,
    /// Where the virtio console goes: stdio, file=PATH, or none for no such device
    #[arg(long, value_name = "TO", default_value = "none")]
    console: Console,
    /// The display adapter: vga, or none for no such device
    #[arg(long, value_name = "WHAT", value_enum)]
    display: Option<Screen>,
    /// Let VNC viewers see and use the display: unix=PATH, HOST:PORT, or ws=\[HOST:\]PORT for browsers,
    /// then `[,password-file=FILE]`; alone, at a UNIX socket that is told
    #[arg(long = "vnc", value_name = "WHERE", num_args = 0..=1, default_missing_value = "unix")]
    viewers: Vec<Viewers>,
    /// Sockets (AF_VSOCK) between the guest, which has this address, and the host, where they are UNIX
    /// sockets
    #[arg(long, value_name = "cid=N,socket=PATH")]
    vsock: Option<Vsock>,
    /// Memory balloon, by which the guest gives memory back: on or off; on for a VM with disks
    #[arg(long, value_name = "on|off", value_enum)]
    balloon: Option<Switch>,
    /// Add a port for the QEMU guest agent, which trine exec, cp, agent and shutdown then ask
    #[arg(long)]
    agent: bool,
    /// Let the guest end the run by a write to port 0xf4
    #[arg(long)]
    debug_exit: bool,
    /// Add the test device of bare-metal CPU tests
    #[arg(long)]
    testdev: bool,
    /// What a reset of the guest, or a CPU's triple fault, does [default: end, with firmware restart]
    #[arg(long, value_name = "WHAT", value_enum)]
    on_reset: Option<Reset>,
    /// Let the guest's time follow from its instructions: repeatable runs (emu only)
    #[arg(long)]
    deterministic: bool,
    /// Say at the end what the run took: memory beyond the guest's, and why translated code was left
    #[arg(long)]
    pub summary: bool,
    /// Make a socket that answers trine status, pause, move and so on
    #[arg(long, value_name = "PATH")]
    pub control: Option<PathBuf>,
    /// Leave the session of who starts this, and write how it ends into this file
    #[arg(long, value_name = "FILE", hide = true)]
    pub record: Option<PathBuf>,
    /// Become this user when everything is open
    #[arg(long, value_name = "UID", hide = true, requires = "cage_root")]
    cage_user: Option<u32>,
    /// The empty folder that is then the root folder
    #[arg(long, value_name = "DIR", hide = true, requires = "cage_user")]
    cage_root: Option<PathBuf>,
    /// No network card comes
    #[arg(long, hide = true)]
    cage_no_network: bool,
    /// The control group to join
    #[arg(long, value_name = "DIR", hide = true)]
    cgroup: Option<PathBuf>,
    /// What who starts this could not set up
    #[arg(long, value_name = "TEXT", hide = true)]
    cage_lacks: Vec<String>,
    /// End when this parent process does
    #[arg(long, value_name = "PID", hide = true)]
    pub tied_to: Option<i32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Screen {
    /// There is none
    None,
    /// A VGA with a linear frame buffer, a keyboard and a pointer
    Vga,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Reset {
    /// It ends the run
    End,
    /// The VM starts anew
    Restart,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Switch {
    /// It is there
    On,
    /// It is not
    Off,
}

/// How much of something there is, and how much there can be, if more can come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct UpTo<T> {
    now: T,
    most: Option<T>,
}

impl<T: FromStr<Err = String> + PartialOrd> FromStr for UpTo<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((now, most)) = text.split_once(',') else {
            return Ok(Self { now: text.parse()?, most: None });
        };
        let most = most.strip_prefix("max=").ok_or("give it as in 1,max=4 or 512M,max=2G")?;
        let (now, most): (T, T) = (now.parse()?, most.parse()?);
        if most < now {
            return Err("max= is less than there is from the beginning".to_owned());
        }
        Ok(Self { now, most: Some(most) })
    }
}

/// How many CPUs. Whether a VM can have so many is not known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
struct Cpus(u32);

impl FromStr for Cpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_| "a VM has 1 to 32 CPUs".to_owned())
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Firmware(FirmwareSource);

impl FromStr for Firmware {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self(match text {
            "bios" => FirmwareSource::Bios,
            "uefi" => FirmwareSource::Uefi,
            "" => return Err("give bios, uefi or the path of an image".to_owned()),
            path => FirmwareSource::File(path.into()),
        }))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct BootOrder(Vec<BootKind>);

impl FromStr for BootOrder {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        vmm::boot_order(text).map(Self)
    }
}

/// Bytes, given with a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
struct Size(u64);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let shift = match unit.strip_suffix("iB").unwrap_or(unit) {
            "K" | "k" => 10,
            "M" => 20,
            "G" => 30,
            "T" => 40,
            "" if !number.is_empty() => return Err(format!("no unit: say {number}M or {number}G")),
            _ => return Err("not a size: give a number and K, M, G or T".to_owned()),
        };
        let number: u64 = number.parse().map_err(|_| "not a number that makes sense".to_owned())?;
        let bytes = number.checked_mul(1 << shift).ok_or("too large for any machine")?;
        if bytes == 0 {
            return Err("a VM needs memory: try 512M".to_owned());
        }
        Ok(Self(bytes))
    }
}

fn parsed<T: FromStr<Err: Display>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

/// A network card, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Net(Option<NetSpec>);

impl FromStr for Net {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "none" { Ok(Self(None)) } else { text.parse().map(|net| Self(Some(net))) }
    }
}

/// Where viewers come in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Viewers(ViewerSpec);

impl FromStr for Viewers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let place = match parts.next().unwrap_or_default() {
            "unix" => Place::Unix(own_socket()),
            other => match other.split_once('=') {
                Some(("unix", path)) if !path.is_empty() => Place::Unix(path.into()),
                Some(("ws", port)) => Place::WebSocket(match port.parse::<u16>() {
                    Ok(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
                    Err(_) => address(port)?,
                }),
                _ => Place::Tcp(address(other)?),
            },
        };
        let mut password_file = None;
        for part in parts {
            match part.split_once('=') {
                Some(("password-file", path)) => password_file = Some(path.into()),
                _ => return Err(format!("'{part}' is not password-file=FILE")),
            }
        }
        Ok(Self(ViewerSpec { place, password_file }))
    }
}

fn address(text: &str) -> Result<SocketAddr, String> {
    let mut found = text.to_socket_addrs().map_err(|_| {
        format!("'{text}' is no place to listen at: give unix=PATH, HOST:PORT or ws=PORT")
    })?;
    found.next().ok_or_else(|| format!("there is no host of the name in '{text}'"))
}

/// A socket's path that no other process has, where only the user comes.
fn own_socket() -> PathBuf {
    let dir = std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    dir.join(format!("trine-{}.vnc", std::process::id()))
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Vsock(VsockSpec);

impl FromStr for Vsock {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let form = "give cid=N,socket=PATH";
        let (cid, socket) = text.split_once(',').ok_or(form)?;
        let cid = cid.strip_prefix("cid=").ok_or(form)?.parse::<u32>();
        let cid = cid.ok().filter(|cid| (3..u32::MAX).contains(cid));
        let cid = cid.ok_or("a guest's CID is a number from 3 on")?.into();
        match socket.strip_prefix("socket=") {
            Some(path) if !path.is_empty() => Ok(Self(VsockSpec { cid, socket: path.into() })),
            _ => Err(form),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Module(ModuleSpec);

impl FromStr for Module {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, args) = text.split_once(' ').unwrap_or((text, ""));
        if path.is_empty() {
            return Err("no file is named".to_owned());
        }
        Ok(Self(ModuleSpec { path: path.into(), args: args.to_owned() }))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Console(ConsoleSpec);

impl FromStr for Console {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let spec = match text.split_once('=') {
            None if text == "stdio" => ConsoleSpec::Stdio,
            None if text == "none" => ConsoleSpec::None,
            Some(("file", path)) if !path.is_empty() => ConsoleSpec::File(path.into()),
            _ => return Err("give stdio, file=PATH or none".to_owned()),
        };
        Ok(Self(spec))
    }
}

impl Options {
    /// The process's own. Help and version are printed here, and end the process's work.
    pub fn from_command_line() -> Result<Self, Ending> {
        Self::try_parse().map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                // To a reader who has gone, there is nothing to say.
                let _ = error.print();
                Ending::Told
            }
            _ => Ending::usage(first_paragraph(&error.to_string())),
        })
    }

    /// The sockets it makes in the file system. The daemon removes those of its VMs.
    pub fn sockets(&self) -> Vec<PathBuf> {
        if self.record.is_some() {
            return Vec::new();
        }
        let viewers = self.viewers.iter().filter_map(|viewers| match &viewers.0.place {
            Place::Unix(path) => Some(path.clone()),
            Place::Tcp(_) | Place::WebSocket(_) => None,
        });
        let guests = self.vsock.iter().map(|vsock| vsock.0.socket.clone());
        self.control.iter().cloned().chain(viewers).chain(guests).collect()
    }

    /// It makes IP sockets, now or when a network card comes.
    pub fn may_have_network(&self) -> bool {
        let is_user =
            |net: &Net| matches!(&net.0, Some(net) if matches!(net.to, NetworkSpec::User(_)));
        let may_come = self.control.is_some() && !self.cage_no_network;
        may_come || self.nets.iter().any(is_user)
    }

    /// The user to become, and its root folder.
    pub fn cage_user(&self) -> Option<(u32, PathBuf)> {
        self.cage_user.zip(self.cage_root.clone())
    }

    /// Sets up what of the cage comes before there are threads.
    pub fn begin_cage(&self) -> Level {
        let mut level = Level { lacks: self.cage_lacks.clone(), ..Level::default() };
        if let Some(group) = &self.cgroup {
            level.note(cage::join(group));
        }
        if self.cage_user.is_some() {
            level.note(cage::leave_namespaces(!self.cage_no_network));
        }
        level
    }

    /// It connects to UNIX sockets for programs of the guest.
    pub fn has_guest_sockets(&self) -> bool {
        self.vsock.is_some()
    }

    /// Viewers need something to see.
    fn has_display(&self) -> Result<bool, Ending> {
        if self.display == Some(Screen::None) && !self.viewers.is_empty() {
            let message = "--vnc shows the display: leave --display none out";
            return Err(Ending::usage(message.to_owned()));
        }
        Ok(self.display == Some(Screen::Vga) || !self.viewers.is_empty())
    }

    /// What VM is asked for.
    pub fn spec(&self) -> Result<VmSpec, Ending> {
        let consoles = [&self.serial, &self.console, &self.debugcon];
        if consoles.iter().filter(|console| console.0 == ConsoleSpec::Stdio).count() > 1 {
            let message = "only one of --serial, --console and --debugcon can be stdio: \
                           say --serial none, say";
            return Err(Ending::usage(message.to_owned()));
        }
        let image = self.image.as_deref().map(DiskSpec::of_image).transpose()?;
        Ok(VmSpec {
            engine: self.engine,
            cpus: self.cpus.now.0,
            cpus_max: self.cpus.most.map(|cpus| cpus.0),
            cpu: self.cpu,
            memory_bytes: self.memory.now.0,
            memory_bytes_max: self.memory.most.map(|memory| memory.0),
            // Nobody else can ask for it.
            hotplug: self.control.is_some(),
            firmware: self.firmware.as_ref().map(|firmware| firmware.0.clone()),
            uefi_vars: self.uefi_vars.clone(),
            boot_order: self.boot_order.as_ref().map(|order| order.0.clone()).unwrap_or_default(),
            debugcon: self.debugcon.0.clone(),
            kernel: self.kernel.clone(),
            initrd: self.initrd.clone(),
            modules: self.modules.iter().map(|module| module.0.clone()).collect(),
            cmdline: self.cmdline.clone(),
            disks: image.into_iter().chain(self.disks.iter().cloned()).collect(),
            cdroms: self.cdroms.clone(),
            snapshot: self.snapshot,
            seed: self.cloud_init.clone(),
            nets: self.nets.iter().filter_map(|net| net.0.clone()).collect(),
            serial: self.serial.0.clone(),
            console: self.console.0.clone(),
            display: self.has_display()?,
            viewers: self.viewers.iter().map(|viewers| viewers.0.clone()).collect(),
            vsock: self.vsock.as_ref().map(|vsock| vsock.0.clone()),
            balloon: self.balloon.map_or(!self.disks.is_empty(), |switch| switch == Switch::On),
            agent: self.agent,
            debug_exit: self.debug_exit,
            testdev: self.testdev,
            deterministic: self.deterministic,
            on_reset: self.on_reset.map(|what| match what {
                Reset::End => OnReset::End,
                Reset::Restart => OnReset::Restart,
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use vmm::NetModel;

    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!("512M".parse(), Ok(Size(512 << 20)));
        assert_eq!("4GiB".parse(), Ok(Size(4 << 30)));
        for bad in ["", "M", "512", "0M", "-1M", "1.5G", "99999999999999T", "12Q", "1 G"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }

    #[test]
    fn there_can_be_more_than_there_is_and_not_less() {
        let up_to = |now, most| UpTo { now: Cpus(now), most };
        assert_eq!("2".parse(), Ok(up_to(2, None)));
        assert_eq!("2,max=4".parse(), Ok(up_to(2, Some(Cpus(4)))));
        for bad in ["2,", "2,4", "2,max=", "2,max=1", ",max=2"] {
            assert!(bad.parse::<UpTo<Cpus>>().is_err(), "{bad}");
        }
        let memory = UpTo { now: Size(512 << 20), most: Some(Size(2 << 30)) };
        assert_eq!("512M,max=2G".parse(), Ok(memory));
    }

    #[test]
    fn networks_are_user_a_tap_a_bridge_or_none() {
        let net = |text: &str| text.parse::<Net>().unwrap().0;
        assert_eq!(net("none"), None);
        let user = net("user,hostfwd=tcp::2222-:22,hostfwd=udp::53-:53,rate=8M").unwrap();
        assert!(matches!(&user.to, NetworkSpec::User(forwards) if forwards.len() == 2));
        assert_eq!(user.rate.map(|rate| rate.bytes_per_s), Some(1_000_000));
        let tap = net("tap=tap0,mac=02:00:00:00:00:01,spoof").unwrap();
        assert_eq!((tap.to, tap.spoof), (NetworkSpec::Tap("tap0".into()), true));
        let bridge = net("bridge=br0").unwrap();
        assert_eq!((bridge.mac, bridge.model), (None, NetModel::Virtio));
        assert_eq!(net("user,model=e1000").unwrap().model, NetModel::E1000);
        assert!("user,model=ne2000".parse::<Net>().is_err());
        for bad in ["", "tap", "none,mac=02:00:00:00:00:01", "tap=t,hostfwd=tcp::1-:1", "user,fast"]
        {
            assert!(bad.parse::<Net>().is_err(), "{bad}");
        }
    }

    #[test]
    fn sockets_have_an_address_and_a_path() {
        let spec = VsockSpec { cid: 3, socket: "/tmp/a,b".into() };
        assert_eq!("cid=3,socket=/tmp/a,b".parse(), Ok(Vsock(spec)));
        for bad in ["", "cid=3", "cid=2,socket=s", "cid=4294967295,socket=s", "cid=3,socket="] {
            assert!(bad.parse::<Vsock>().is_err(), "{bad}");
        }
    }

    #[test]
    fn consoles_are_stdio_a_file_or_none() {
        assert_eq!("file=/tmp/a=b".parse(), Ok(Console(ConsoleSpec::File("/tmp/a=b".into()))));
        assert_eq!("stdio".parse(), Ok(Console(ConsoleSpec::Stdio)));
        for bad in ["", "file=", "file", "pty", "stdio=1"] {
            assert!(bad.parse::<Console>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_command_line_is_said_in_one_line() {
        for bad in [
            &["trinevm", "--boot", "floppy"][..],
            &["trinevm", "--kernel", "k", "--memory", "lots"],
            &["trinevm", "--kernel", "k", "--wings", "2"],
            &["trinevm", "--kernel", "k", "--engine", "warp"],
            &["trinevm", "--kernel", "k", "--cpus", "-1"],
        ] {
            let error = Options::try_parse_from(bad).unwrap_err();
            let line = first_paragraph(&error.to_string());
            assert!(!line.contains('\n') && line.len() > 30 && line.len() < 200, "{line}");
        }
    }
}
