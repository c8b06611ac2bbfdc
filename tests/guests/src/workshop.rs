//! A Debian with a compiler, CPython, Node.js, OpenSSL and stress-ng, and work for them whose results are the
//! same on every machine that is right.
//!
//! The work is in the folder `workshop`, one program for each kind; `run` runs those it is told.

use std::fs;
use std::ops::Not;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::{Init, Kernel, host, initrd, packages, scratch_copy};

const SUITE: &str = "bookworm";
const INCLUDE: &str = "busybox-static,gcc,libc6-dev,make,python3,libpython3.11-testsuite,nodejs,openssl,\
                       stress-ng";
/// What a finished tree was made of is in this file of it.
const MADE_OF: &str = "stress/made-of";
const SIZE: &str = "2G";
/// The C program that is built: its source is a package of Debian, too.
const SOURCES: &str = "deb-src http://deb.debian.org/debian bookworm main";
const KERNEL_SOURCE: &str = "linux-source-6.1";
/// Makes what runs in the guest, named after its work.
const PROGRAMS: &[(&str, &str)] = &[
    ("init", include_str!("workshop/init.sh")),
    ("run", include_str!("workshop/run.sh")),
    ("compile", include_str!("workshop/compile.sh")),
    ("python", include_str!("workshop/python.sh")),
    ("node", include_str!("workshop/node.js")),
    ("openssl", include_str!("workshop/openssl.sh")),
    ("selftests", include_str!("workshop/selftests.sh")),
    ("strain", include_str!("workshop/strain.sh")),
    ("modules", include_str!("workshop/modules.sh")),
];
/// What the guest loads and unloads: code of the kernel that comes and goes, with tests of its own
/// (crypto), measurements (RAID) and threads (device mapper).
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "ext4",
    "loop",
    "dm_mod",
    "raid6_pq",
    "sha512_generic",
    "camellia_generic",
    "serpent_generic",
    "lz4",
];
/// Builds the kernel's tests of x86 that are for 64 bits and need no other file; leaves out what
/// does not build.
const BUILD_SELFTESTS: &str = "cd /stress/selftests/x86 && for c in *.c; do \
     gcc -O2 -static -pthread -no-pie -I.. -o ../${c%.c} $c 2>/dev/null || :; done; \
     cd .. && rm -r x86 *.h";

/// What a line of results begins with.
pub const RESULT: &str = "STRESS";
/// The line after the last result.
pub const RESULTS_END: &str = "STRESS-END";
/// The kinds of work whose results are those this machine has.
pub const WORK: &[&str] = &["compile", "python", "node", "openssl", "selftests"];
/// The kinds of work that tell by themselves whether their results are right: lines that end with
/// [`PASSED`].
pub const STRAIN: &[&str] = &["strain", "modules"];
/// How a result of those ends that is right.
pub const PASSED: &str = " passed";

/// The Debian, as an image for guests and as a folder for this machine.
pub struct Workshop {
    image: PathBuf,
    root: PathBuf,
}

/// Builds it, or finds it built. That needs root's rights.
pub fn workshop() -> anyhow::Result<Workshop> {
    let _lock = host::builder_lock()?;
    let dir = host::cache("workshop")?;
    let (image, root) = (dir.join("workshop.ext4"), dir.join("root"));
    let is_new = fs::read_to_string(root.join(MADE_OF)).is_ok_and(|of| of == INCLUDE).not();
    if is_new {
        host::need_packages(&["mmdebstrap", "e2fsprogs", "xz-utils"])?;
        eprintln!(
            "xtask: making a Debian {SUITE} with compiler, CPython, Node.js, OpenSSL and stress-ng"
        );
        let partial = dir.join("root.partial");
        let _ = fs::remove_dir_all(&partial);
        debian(&partial)?;
        selftests(&dir, &partial)?;
        fs::write(partial.join(MADE_OF), INCLUDE)?;
        let _ = fs::remove_dir_all(&root);
        fs::rename(&partial, &root)?;
    }
    // The work may have changed since.
    let is_changed = write_programs(&root)?;
    if is_new || is_changed || !image.exists() {
        let _ = fs::remove_file(&image);
        let mut make = Command::new("mke2fs");
        make.args(["-q", "-F", "-t", "ext4", "-d"]).arg(&root).arg(&image).arg(SIZE);
        host::output(&mut make)?;
    }
    Ok(Workshop { image, root })
}

fn debian(root: &Path) -> anyhow::Result<()> {
    let source = format!(
        "mkdir \"$1/stress\"; chroot \"$1\" sh -ec '\
         echo {SOURCES} > /etc/apt/sources.list.d/source.list; apt-get update -qq; cd /stress; \
         apt-get source -qq --download-only lua5.4; mv lua5.4_*.orig.tar.* lua.tar'"
    );
    let mut make = Command::new("mmdebstrap");
    make.args(["--quiet", "--variant=minbase", "--format=directory", "--include", INCLUDE]);
    make.args(["--aptopt=APT::Install-Recommends \"false\""]);
    for what in ["doc", "man", "locale"] {
        make.arg(format!("--dpkgopt=path-exclude=/usr/share/{what}/*"));
    }
    make.arg(format!("--customize-hook={source}")).arg(SUITE).arg(root);
    host::output(&mut make).map(drop)
}

/// The kernel's own tests of x86, from its source.
fn selftests(dir: &Path, root: &Path) -> anyhow::Result<()> {
    let unpacked = dir.join("source");
    packages::unpack(&[KERNEL_SOURCE], &unpacked)?;
    let archive = unpacked.join(format!("usr/src/{KERNEL_SOURCE}.tar.xz"));
    let to = root.join("stress/selftests");
    fs::create_dir_all(&to)?;
    let folder = format!("{KERNEL_SOURCE}/tools/testing/selftests");
    let mut tar = Command::new("tar");
    tar.arg("-xJf").arg(&archive).arg("-C").arg(&to).arg("--strip-components=4");
    tar.args(["--wildcards", &format!("{folder}/x86/*"), &format!("{folder}/kselftest*.h")]);
    host::output(&mut tar)?;
    fs::remove_dir_all(&unpacked)?;
    host::output(Command::new("chroot").arg(root).args(["sh", "-c", BUILD_SELFTESTS]))?;
    Ok(())
}

/// Puts the work into the tree; true if it was not there as it is.
fn write_programs(root: &Path) -> anyhow::Result<bool> {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let mut is_changed = false;
    for (name, text) in PROGRAMS {
        let path = root.join("stress").join(name);
        // A folder has the name of the program that runs what is in it.
        let path = if path.is_dir() { path.join("run") } else { path };
        if fs::read_to_string(&path).is_ok_and(|there| there == *text) {
            continue;
        }
        // Not in place: a copy of the tree may share the file.
        let _ = fs::remove_file(&path);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        is_changed = true;
    }
    let init = root.join("usr/sbin/init");
    if init.symlink_metadata().is_err() {
        symlink("/stress/init", init)?;
    }
    Ok(is_changed)
}

impl Workshop {
    /// A command that does work on this machine, in the same tree. That needs root's rights.
    pub fn native(&self, work: &[&str]) -> Command {
        let script = "mount -t proc proc \"$0/proc\"; mount -t sysfs sys \"$0/sys\"; \
                      mount --rbind /dev \"$0/dev\"; mount -t tmpfs tmp \"$0/tmp\"; \
                      exec chroot \"$0\" /stress/run \"$@\"";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--", "sh", "-ec", script]).arg(&self.root).args(work);
        // Nothing of the caller's must tell on the results.
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command
    }

    /// A RAM disk that makes the first virtio disk the root, and an image for that disk, which
    /// the caller removes. The work is named on the kernel's command line: `STRESS="node"`.
    pub fn guest(&self, kernel: &Kernel) -> anyhow::Result<(PathBuf, PathBuf)> {
        let ram_disk = initrd(kernel, MODULES, Init::SwitchRoot)?;
        Ok((ram_disk, scratch_copy(&self.image, "workshop")?))
    }
}
