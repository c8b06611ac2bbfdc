//! Debian as people run it: a whole disk, made by `trine image build debian`.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::host;

/// The name of the image in its store.
pub const IMAGE: &str = "debian";
/// The user that [`Debian::seed`] makes, and the password on the console.
pub const USER: &str = "trine";

/// An image, and who may log in to a guest that has it.
pub struct Debian {
    /// For `TRINE_HOME`: the store that has the image.
    pub home: PathBuf,
    key: PathBuf,
    password: PathBuf,
}

/// The image, made by this `trine` the first time, and the firmware to boot it with.
///
/// # Errors
/// When packages are missing and cannot be installed, or the image cannot be made.
pub fn debian(trine: &Path) -> anyhow::Result<Debian> {
    host::need_packages(&["e2fsprogs", "mmdebstrap", "openssh-client", "ovmf", "seabios"])?;
    let home = host::cache("home")?;
    let _lock = host::builder_lock()?;
    let image = |words: &[&str]| {
        let mut command = Command::new(trine);
        command.arg("image").args(words).env("TRINE_HOME", &home);
        command
    };
    if host::output(&mut image(&["info", IMAGE])).is_err() {
        // It says what it does: this takes a minute or two.
        host::run(&mut image(&["build", "debian", "--name", IMAGE]))?;
    }
    let (key, password) = (home.join("id_ed25519"), home.join("password"));
    if !key.exists() {
        let mut make = Command::new("ssh-keygen");
        host::output(make.args(["-q", "-t", "ed25519", "-N", "", "-C", USER, "-f"]).arg(&key))?;
    }
    fs::write(&password, USER)?;
    Ok(Debian { home, key, password })
}

impl Debian {
    /// For `--cloud-init`.
    pub fn seed(&self) -> String {
        let key = self.public_key();
        let (key, password) = (key.display(), self.password.display());
        format!("user={USER},ssh-key={key},password-file={password},hostname=debian")
    }

    /// The file with the key of who may log in.
    pub fn public_key(&self) -> PathBuf {
        self.key.with_extension("pub")
    }

    /// `ssh` to a guest behind this port of the host's loopback. Another guest may have had the
    /// port before, so its key is not remembered.
    pub fn ssh(&self, port: u16) -> Command {
        let mut ssh = Command::new("ssh");
        ssh.arg("-i").arg(&self.key).args(["-p", &port.to_string()]);
        for option in ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"]
        {
            ssh.args(["-o", option]);
        }
        ssh.arg(format!("{USER}@127.0.0.1"));
        ssh
    }
}

/// For `--net`: a network in which the guest's SSH server is this port of the host's loopback.
pub fn network(port: u16) -> String {
    format!("user,hostfwd=tcp:127.0.0.1:{port}-:22")
}

/// A port of the host's loopback that nobody has now.
///
/// # Errors
/// When there is none.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
