//! The root file system and the boot loaders' parts, from packages.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

use crate::layout::{Layout, SECTOR};
use crate::{BuildError, DebianSpec, tools};

/// What runs where the packages were installed.
const SETUP: &str = include_str!("setup.sh");
/// Lines of a failed program's output that are passed on.
const SAID_LINES: usize = 12;
/// Of each, so many bytes.
const SAID_LINE_LEN: usize = 400;

/// What was made.
pub(crate) struct Tree {
    folder: PathBuf,
    pub boot_img: Vec<u8>,
    pub core_img: Vec<u8>,
    pub efi: Efi,
    pub identity: Identity,
}

/// Programs for UEFI, signed by Debian and, the first, by who signs for firmware.
pub(crate) struct Efi {
    pub shim: Vec<u8>,
    pub mok_manager: Vec<u8>,
    pub grub: Vec<u8>,
}

/// What UUIDs follow from: the list of installed packages.
pub(crate) struct Identity(String);

impl Identity {
    #[cfg(test)]
    pub fn of(packages: &str) -> Self {
        Self(packages.to_owned())
    }

    /// The UUID of the thing of this name: version 8, which is whoever makes it's own
    /// (RFC 9562, 5.8). `setup.sh` has the same rule.
    pub fn uuid(&self, name: &str) -> [u8; 16] {
        let digest = Sha256::new().chain_update(name).chain_update("\n").chain_update(&self.0);
        let digest: [u8; 32] = digest.finalize().into();
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&digest[..16]);
        uuid[6] = uuid[6] & 0x0f | 0x80;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        uuid
    }
}

impl Tree {
    /// The disk with its root file system.
    pub fn disk(&self) -> Result<File, BuildError> {
        let failed = |source| BuildError::Host { doing: "open the root file system", source };
        File::open(self.folder.join("disk")).map_err(failed)
    }
}

/// Installs the packages and makes the root file system at its place in `inner/disk`.
pub(crate) fn make(
    spec: &DebianSpec,
    layout: &Layout,
    outer: &Path,
    inner: &Path,
    tell: &mut dyn FnMut(&str),
) -> Result<Tree, BuildError> {
    let failed = |source| BuildError::Host { doing: "prepare the root file system", source };
    let setup = outer.join("setup.sh");
    fs::write(&setup, SETUP).map_err(failed)?;
    for name in ["disk", "packages", "boot.img", "core.img", "shim", "mok_manager", "grub"] {
        let file = File::create(inner.join(name)).map_err(failed)?;
        // The folder lets in who knows its name; see `build`.
        let mode = rustix::fs::Mode::from_raw_mode(0o666);
        rustix::fs::fchmod(&file, mode).map_err(|e| failed(e.into()))?;
        if name == "disk" {
            file.set_len(layout.size_bytes).map_err(failed)?;
        }
    }
    mmdebstrap(command(spec, layout, &setup, inner), tell)?;
    let read = |name: &'static str| match fs::read(inner.join(name)) {
        Ok(bytes) if bytes.is_empty() => Err(BuildError::Incomplete(name)),
        result => result.map_err(failed),
    };
    Ok(Tree {
        folder: inner.to_owned(),
        boot_img: read("boot.img")?,
        core_img: read("core.img")?,
        efi: Efi { shim: read("shim")?, mok_manager: read("mok_manager")?, grub: read("grub")? },
        identity: Identity(String::from_utf8_lossy(&read("packages")?).into_owned()),
    })
}

fn command(spec: &DebianSpec, layout: &Layout, setup: &Path, inner: &Path) -> Command {
    let mut command = Command::new("mmdebstrap");
    // The rest of the environment stays: proxies are there, and TMPDIR.
    command
        .env("PATH", tools::PATHS)
        .env("LC_ALL", "C.UTF-8")
        .env("TRINE_OUT", inner)
        .env("TRINE_ROOT_OFFSET", (layout.root_start * SECTOR).to_string())
        .env("TRINE_ROOT_KIB", (layout.root_sectors * SECTOR / 1024).to_string())
        .env("TRINE_SOURCES", spec.sources().join("\n"));
    for (variable, option) in [("http_proxy", "http"), ("https_proxy", "https")] {
        // Apt here may know one that the environment does not.
        if std::env::var_os(variable).is_none() {
            command.envs(apt_proxy(option).map(|proxy| (variable, proxy)));
        }
    }
    command.arg(format!("--mode={}", if tools::is_root() { "root" } else { "unshare" }));
    command.args(["--variant=minbase", "--format=null", "--include"]).arg(spec.include());
    command.args(["--aptopt=APT::Install-Recommends \"false\""]);
    if apt_setting("Acquire::Check-Valid-Until").is_some_and(|value| value == "false") {
        command.args(["--aptopt=Acquire::Check-Valid-Until \"false\""]);
    }
    for path in ["doc", "man", "locale", "info"] {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{path}/*"));
    }
    // Licences are not ours to leave out.
    command.arg("--dpkgopt=path-include=/usr/share/doc/*/copyright");
    // Its path is ours, and has nothing a shell knows.
    command.arg(format!("--customize-hook=sh '{}' \"$1\"", setup.display()));
    command.arg(&spec.suite).arg("-").args(spec.sources());
    command
}

/// A setting of this machine's apt.
fn apt_setting(name: &str) -> Option<String> {
    let output = Command::new("apt-config").args(["shell", "VALUE", name]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let value = text.trim().strip_prefix("VALUE='")?.strip_suffix('\'')?;
    Some(value.to_owned())
}

fn apt_proxy(scheme: &str) -> Option<String> {
    let proxy = apt_setting(&format!("Acquire::{scheme}::Proxy"))?;
    (!proxy.is_empty() && proxy != "DIRECT").then_some(proxy)
}

/// Runs it; what it says of its progress is told on.
fn mmdebstrap(mut command: Command, tell: &mut dyn FnMut(&str)) -> Result<(), BuildError> {
    let failed = |source| BuildError::Host { doing: "run mmdebstrap", source };
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let said = child.stderr.take().map(|out| follow(out, tell)).transpose();
    let status = child.wait().map_err(failed)?;
    let said = said.map_err(failed)?.unwrap_or_default();
    if status.success() {
        return Ok(());
    }
    // What went wrong is marked; without a mark, it is at the end.
    let is_error = |line: &&String| line.starts_with("E:") || line.contains("rror");
    let mut lines: Vec<&str> = said.iter().filter(is_error).map(String::as_str).collect();
    if lines.is_empty() {
        lines = said.iter().map(String::as_str).collect();
    }
    Err(BuildError::Packages { status: status.to_string(), said: lines.join("; ") })
}

/// Reads to the end; returns the last lines.
fn follow(out: impl io::Read, tell: &mut dyn FnMut(&str)) -> io::Result<VecDeque<String>> {
    let (mut said, mut line) = (VecDeque::new(), Vec::new());
    let mut reader = BufReader::new(out);
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(said);
        }
        // A progress bar overwrites itself.
        let shown = line.rsplit(|byte| *byte == b'\r').find(|part| !part.trim_ascii().is_empty());
        let shown = String::from_utf8_lossy(shown.unwrap_or_default().trim_ascii());
        let shown: String = shown.chars().take(SAID_LINE_LEN).collect();
        match shown.strip_prefix("I: ") {
            Some(step) if !step.starts_with("success in") => tell(step.trim_end_matches('.')),
            Some(_) => {}
            None if shown.is_empty() => {}
            None => {
                if said.len() == SAID_LINES {
                    said.pop_front();
                }
                said.push_back(shown);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_follow_from_packages_and_names() {
        let identity = Identity::of("a 1\nb 2\n");
        assert_eq!(identity.uuid("root"), Identity::of("a 1\nb 2\n").uuid("root"));
        assert_ne!(identity.uuid("root"), identity.uuid("disk"));
        assert_ne!(identity.uuid("root"), Identity::of("a 2\nb 2\n").uuid("root"));
        assert_eq!((identity.uuid("root")[6] >> 4, identity.uuid("root")[8] >> 6), (8, 2));
    }

    #[test]
    fn steps_are_told_and_the_end_of_the_rest_is_kept() {
        let text = "I: running apt-get update...\nnoise\r50%\r\r100%\n\nI: success in 3 s\n"
            .to_owned()
            + &"line\n".repeat(100)
            + "E: it broke";
        let mut steps = Vec::new();
        let said = follow(text.as_bytes(), &mut |step| steps.push(step.to_owned())).unwrap();
        assert_eq!(steps, ["running apt-get update"]);
        assert_eq!((said.len(), said.back().unwrap().as_str()), (SAID_LINES, "E: it broke"));
    }
}
