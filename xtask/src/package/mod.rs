//! `cargo xtask package`: a Debian package of the platform.
//!
//! What is in it besides the programs is in `dist/`, and made by the programs themselves: manual pages of `--help`,
//! completion by asking `trine`.

mod trial;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use clap::Args;
use guests::host;

use crate::ui;

pub use trial::run as try_out;

/// What to make.
#[derive(Args)]
pub struct Options {
    /// Install it, upgrade it while a VM runs, and purge it, in a Debian that has nothing else
    #[arg(long = "try")]
    tries: bool,
    /// Only try it, with the programs that tests use
    #[arg(long, conflicts_with = "tries")]
    trial: bool,
}

/// The programs, and where they come from.
pub struct Programs {
    folder: PathBuf,
}

/// How a package is packed.
#[derive(Clone, Copy)]
pub enum Compression {
    /// Small.
    Xz,
    /// At once.
    None,
}

/// Programs of a package.
const PROGRAMS: [&str; 3] = ["trine", "trined", "trinevm"];
const DOCUMENTS: [&str; 4] = ["README.md", "CHANGELOG.md", "ARCHITECTURE.md", "SPECIFICATION.md"];

impl Programs {
    /// Those built for release.
    pub fn released() -> anyhow::Result<Self> {
        let trine = host::release_program("trine")?;
        Ok(Self { folder: trine.parent().context("a program is in a folder")?.to_owned() })
    }

    /// Those in this folder.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }
}

/// Runs it.
pub fn run(options: &Options) -> anyhow::Result<()> {
    if options.trial {
        return try_out(&Programs::at(host::build_for_tests()?));
    }
    host::need_packages(&["gcc", "libc6-dev", "binutils"])?;
    ui::run().context("a package has the web UI in it")?;
    host::build_platform()?;
    let programs = Programs::released()?;
    let package = make(&programs, env!("CARGO_PKG_VERSION"), Compression::Xz)?;
    println!("{}", package.display());
    if options.tries { try_out(&programs) } else { Ok(()) }
}

/// Makes a package of these programs.
pub fn make(
    programs: &Programs,
    version: &str,
    compression: Compression,
) -> anyhow::Result<PathBuf> {
    let folder = host::cache("package")?;
    let root = folder.join(format!("trine_{version}"));
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    fill(programs, &root)?;
    control(&root, version)?;
    let package = folder.join(format!("trine_{version}_amd64.deb"));
    let mut build = Command::new("dpkg-deb");
    let packed = match compression {
        Compression::Xz => "-Zxz",
        Compression::None => "-Znone",
    };
    build.args(["--root-owner-group", packed, "--build"]).arg(&root).arg(&package);
    host::output(&mut build)?;
    fs::remove_dir_all(&root)?;
    Ok(package)
}

fn fill(programs: &Programs, root: &Path) -> anyhow::Result<()> {
    let dist = host::root().join("dist");
    for name in PROGRAMS {
        let to = place(root, "usr/bin", name)?;
        let mut strip = Command::new("strip");
        host::output(strip.arg("-o").arg(&to).arg(programs.folder.join(name)))?;
        set_mode(&to, 0o755)?;
    }
    copy(&dist.join("trined.service"), &place(root, "usr/lib/systemd/system", "trined.service")?)?;
    copy(&dist.join("debian/trined.default"), &place(root, "etc/default", "trined")?)?;
    copy(&dist.join("debian/copyright"), &place(root, "usr/share/doc/trine", "copyright")?)?;
    for name in DOCUMENTS {
        copy(&host::root().join(name), &place(root, "usr/share/doc/trine", name)?)?;
    }
    documents(&host::root().join("docs"), &root.join("usr/share/doc/trine/docs"))?;
    // The shell asks the program what it can complete, so a new version brings its own.
    let bash = place(root, "usr/share/bash-completion/completions", "trine")?;
    write(&bash, "source <(trine completion bash)\n")?;
    let zsh = place(root, "usr/share/zsh/vendor-completions", "_trine")?;
    write(&zsh, "#compdef trine\nsource <(trine completion zsh)\n")?;
    let fish = place(root, "usr/share/fish/vendor_completions.d", "trine.fish")?;
    write(&fish, "trine completion fish | source\n")?;
    let pages = root.join("usr/share/man/man1");
    host::output(Command::new(programs.folder.join("trine")).arg("manual").arg(&pages))?;
    for page in fs::read_dir(&pages)? {
        host::output(Command::new("gzip").args(["-9", "-n"]).arg(page?.path()))?;
    }
    Ok(())
}

/// The folder of documents, but for decisions, which are about the code.
fn documents(from: &Path, to: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if entry.file_type()?.is_file() {
            fs::create_dir_all(to)?;
            copy(&entry.path(), &to.join(name))?;
        } else if name != "adr" {
            documents(&entry.path(), &to.join(name))?;
        }
    }
    Ok(())
}

/// What `dpkg` is told.
fn control(root: &Path, version: &str) -> anyhow::Result<()> {
    let dist = host::root().join("dist/debian");
    let size = host::output(Command::new("du").args(["-sk", "--apparent-size"]).arg(root))?;
    let size = size.split_whitespace().next().context("du says no size")?;
    let text = fs::read_to_string(dist.join("control"))?;
    let text = text.replace("@VERSION@", version).replace("@SIZE@", size);
    write(&place(root, "DEBIAN", "control")?, &text)?;
    write(&place(root, "DEBIAN", "conffiles")?, "/etc/default/trined\n")?;
    for script in ["postinst", "prerm", "postrm"] {
        let to = place(root, "DEBIAN", script)?;
        copy(&dist.join(script), &to)?;
        set_mode(&to, 0o755)?;
    }
    Ok(())
}

/// Where a file goes, in a folder that is made.
fn place(root: &Path, folder: &str, name: &str) -> anyhow::Result<PathBuf> {
    let folder = root.join(folder);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder.join(name))
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    set_mode(to, 0o644)
}

fn write(to: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(to, text).with_context(|| format!("cannot write {}", to.display()))?;
    set_mode(to, 0o644)
}

fn set_mode(path: &Path, mode: u32) -> anyhow::Result<()> {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}
