//! A guest that runs the basket of small programs, and the same files for the host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::cpio::{Archive, Mode};
use crate::{UP, host, packages};

/// CPython and what it is linked with.
const PACKAGES: &[&str] =
    &["libc6", "libexpat1", "libpython3.11-minimal", "python3.11-minimal", "zlib1g"];
/// What of them is needed.
const LIBRARIES: &[&str] = &["libc.so.6", "libm.so.6", "libz.so.1", "libexpat.so.1"];
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";
const PYTHON: &str = "usr/bin/python3.11";
const PYTHON_LIBRARY: &str = "usr/lib/python3.11";

/// The guest's arguments to the basket come from the kernel's command line: `BASKET="--check"`.
const INIT: &str = "#!/bin/busybox sh\n\
    /bin/busybox mount -t proc proc /proc\n\
    /bin/busybox mount -t devtmpfs dev /dev\n\
    /bin/busybox mount -t tmpfs tmp /tmp\n\
    echo {UP}\n\
    /bin/basket --root / --scratch /tmp $BASKET\n\
    exec /bin/busybox poweroff -f\n";

/// The basket, for guests and for the host.
pub struct Basket {
    /// An initial RAM disk that runs it and powers off.
    pub initrd: PathBuf,
    program: PathBuf,
    root: PathBuf,
}

impl Basket {
    /// The basket on this machine, with the programs that guests have.
    pub fn native(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).args(["--scratch", "/dev/shm"]);
        command
    }
}

/// Builds the basket's program, gets CPython and busybox from Debian's packages, and puts them
/// into a RAM disk.
pub fn basket() -> anyhow::Result<Basket> {
    let _lock = host::builder_lock()?;
    host::need_packages(&["busybox-static"])?;
    let program = host::static_program("basket")?;
    let dir = host::cache("basket")?;
    let root = dir.join("root");
    if !root.exists() {
        let unpacked = dir.join("packages");
        packages::unpack(PACKAGES, &unpacked)?;
        let partial = dir.join("root.partial");
        let _ = fs::remove_dir_all(&partial);
        select(&unpacked, &partial)?;
        fs::rename(&partial, &root)?;
        fs::remove_dir_all(&unpacked)?;
    }
    let initrd = host::cache("initrds")?.join("basket.cpio");
    let mut archive = Archive::new(Vec::new());
    for dir in ["dev", "proc", "tmp"] {
        archive.add(dir, Mode::DIRECTORY, &[])?;
    }
    add_tree(&mut archive, &root, Path::new(""))?;
    archive.add("bin/basket", Mode::PROGRAM, &fs::read(&program)?)?;
    archive.add("init", Mode::PROGRAM, INIT.replace("{UP}", UP).as_bytes())?;
    // Another test may have the file open.
    let partial = initrd.with_extension("partial");
    fs::write(&partial, archive.finish()?)?;
    fs::rename(&partial, &initrd)?;
    Ok(Basket { initrd, program, root })
}

/// Copies what the basket needs of the packages, with links followed.
fn select(packages: &Path, root: &Path) -> anyhow::Result<()> {
    let copy = |from: &Path, to: &str| -> anyhow::Result<()> {
        let to = root.join(to);
        fs::create_dir_all(to.parent().context("a file without a folder")?)?;
        fs::copy(from, to).with_context(|| format!("no {}", from.display()))?;
        Ok(())
    };
    copy(Path::new("/bin/busybox"), "bin/busybox")?;
    copy(&packages.join(PYTHON), PYTHON)?;
    let libraries = packages.join("lib/x86_64-linux-gnu");
    for name in LIBRARIES {
        copy(&libraries.join(name), &format!("lib/x86_64-linux-gnu/{name}"))?;
    }
    // What lib64 has is an absolute link.
    copy(&libraries.join("ld-linux-x86-64.so.2"), LOADER)?;
    // Modules of one file, and the codecs, are all that the basket's rows import.
    for folder in [PYTHON_LIBRARY.to_owned(), format!("{PYTHON_LIBRARY}/encodings")] {
        for entry in fs::read_dir(packages.join(&folder))? {
            let entry = entry?;
            if entry.path().is_file() {
                let name = entry.file_name();
                copy(&entry.path(), &format!("{folder}/{}", name.to_string_lossy()))?;
            }
        }
    }
    // A folder that CPython looks for to find its library.
    Ok(fs::create_dir_all(root.join(PYTHON_LIBRARY).join("lib-dynload"))?)
}

fn add_tree(archive: &mut Archive<Vec<u8>>, root: &Path, dir: &Path) -> anyhow::Result<()> {
    let mut entries = fs::read_dir(root.join(dir))?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = dir.join(entry.file_name());
        let name = path.to_string_lossy();
        if entry.path().is_dir() {
            archive.add(&name, Mode::DIRECTORY, &[])?;
            add_tree(archive, root, &path)?;
        } else {
            archive.add(&name, Mode::PROGRAM, &fs::read(entry.path())?)?;
        }
    }
    Ok(())
}
