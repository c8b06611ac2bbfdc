//! Debian's own kernels, from its packages.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use anyhow::Context;

use crate::{host, packages};

/// An unpacked kernel package.
pub struct Kernel {
    /// The bzImage.
    pub image: PathBuf,
    /// Its modules: the folder named after its version.
    pub modules: PathBuf,
}

/// How Debian packs what is in a bzImage: first bytes, and who unpacks it.
const PACKINGS: [(&[u8], &str); 3] =
    [(b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\x02\x21\x4c\x18", "lz4")];

impl Kernel {
    /// What is in the bzImage: the kernel as an ELF file, unpacked once.
    pub fn vmlinux(&self) -> anyhow::Result<PathBuf> {
        let _lock = host::builder_lock()?;
        let version = self.modules.file_name().unwrap_or_default().to_string_lossy();
        let path = host::cache("kernels")?.join(format!("vmlinux-{version}"));
        if !path.exists() {
            let image = fs::read(&self.image)?;
            let unpacked = unpack(&image).context("the kernel is packed in an unknown way")?;
            let partial = path.with_extension("partial");
            fs::write(&partial, unpacked)?;
            fs::rename(&partial, &path)?;
        }
        Ok(path)
    }
}

/// The payload of a bzImage (Linux `Documentation/arch/x86/boot.rst`: setup_sects, payload_offset,
/// payload_length), without the length that Linux appends.
fn unpack(image: &[u8]) -> Option<Vec<u8>> {
    let word =
        |at: usize| Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?) as usize);
    let start = (usize::from(*image.get(0x1f1)?) + 1) * 512 + word(0x248)?;
    let payload = image.get(start..start + word(0x24c)? - 4)?.to_vec();
    let (_, program) = PACKINGS.iter().find(|(magic, _)| payload.starts_with(magic))?;
    let mut command = Command::new(program);
    command.arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().ok()?;
    let mut input = child.stdin.take()?;
    let writer = thread::spawn(move || input.write_all(&payload));
    let unpacked = child.wait_with_output().ok()?.stdout;
    writer.join().ok()?.ok()?;
    unpacked.starts_with(b"\x7fELF").then_some(unpacked)
}

/// The kernel of the package `linux-image-FLAVOUR-amd64` (or `linux-image-amd64` for an empty
/// flavour), as the package lists of this machine have it.
pub fn kernel(flavour: &str) -> anyhow::Result<Kernel> {
    let _lock = host::builder_lock()?;
    let meta = match flavour {
        "" => "linux-image-amd64".to_owned(),
        flavour => format!("linux-image-{flavour}-amd64"),
    };
    let dir = host::cache("kernels")?;
    let unpacked = dir.join(&meta);
    if let Ok(kernel) = find(&unpacked) {
        return Ok(kernel);
    }
    let package = real_package(&meta)?;
    eprintln!("xtask: downloading {package}");
    packages::unpack(&[&package], &unpacked)?;
    find(&unpacked)
}

/// What a meta package stands for today.
fn real_package(meta: &str) -> anyhow::Result<String> {
    let ask = || -> anyhow::Result<String> {
        let shown = host::output(Command::new("apt-cache").args(["depends", meta]))?;
        let name = shown
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .find(|name| name.starts_with("linux-image-"));
        name.map(str::to_owned).with_context(|| format!("{meta} names no kernel"))
    };
    ask().or_else(|_| {
        host::output(Command::new("apt-get").args(["update", "-qq"]))?;
        ask()
    })
}

fn find(unpacked: &Path) -> anyhow::Result<Kernel> {
    let starts = |dir: &Path, prefix: &str| -> anyhow::Result<PathBuf> {
        let mut entries = fs::read_dir(dir).with_context(|| format!("no {}", dir.display()))?;
        entries
            .find_map(|e| e.ok().filter(|e| e.file_name().to_string_lossy().starts_with(prefix)))
            .map(|e| e.path())
            .with_context(|| format!("no {prefix}* in {}", dir.display()))
    };
    let image = starts(&unpacked.join("boot"), "vmlinuz-")?;
    let modules = ["lib/modules", "usr/lib/modules"]
        .iter()
        .find_map(|dir| starts(&unpacked.join(dir), "").ok())
        .context("the kernel package has no modules")?;
    Ok(Kernel { image, modules })
}
