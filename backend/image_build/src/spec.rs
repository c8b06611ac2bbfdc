//! What disk is asked for.

use crate::BuildError;

/// Where packages come from unless said otherwise.
pub const MIRROR: &str = "http://deb.debian.org/debian";
const SECURITY: &str = "http://deb.debian.org/debian-security";
/// A smaller disk has no room for what is always installed.
pub const SIZE_MIN_BYTES: u64 = 2 << 30;

/// A Debian disk, as an operator asks for it.
#[derive(Debug, Clone)]
pub struct DebianSpec {
    /// The release's code name.
    pub suite: String,
    /// Bytes of the disk, whole MiB. The root grows with the disk at its first boot.
    pub size_bytes: u64,
    /// Packages beyond those a bootable disk needs.
    pub packages: Vec<String>,
    /// Which kernel.
    pub kernel: Kernel,
    /// Where packages come from, during the build and in the guest: [`MIRROR`] without one.
    pub mirror: Option<String>,
}

/// Debian's builds of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    /// With the drivers VMs need.
    Cloud,
    /// With all drivers.
    General,
}

/// What a disk needs to boot, to be configured and to be reached.
const PACKAGES: &str = "systemd-sysv,dbus,udev,kmod,iproute2,iputils-ping,ca-certificates,\
    e2fsprogs,dosfstools,zstd,openssh-server,qemu-guest-agent,sudo,less,nano,libnss-myhostname,\
    libnss-resolve,systemd-resolved,systemd-timesyncd,grub-cloud-amd64,cloud-init,\
    cloud-guest-utils,gdisk,netplan.io";

impl Kernel {
    fn package(self) -> &'static str {
        match self {
            Self::Cloud => "linux-image-cloud-amd64",
            Self::General => "linux-image-amd64",
        }
    }
}

impl DebianSpec {
    /// # Errors
    /// When a value makes no sense, or would be more than a value where it is used.
    pub(crate) fn check(&self) -> Result<(), BuildError> {
        let wrong = |message: String| Err(BuildError::Spec(message));
        if !is_name(&self.suite, "-") {
            return wrong(format!("'{}' is not a suite: try bookworm or trixie", self.suite));
        }
        if let Some(package) = self.packages.iter().find(|package| !is_name(package, "+-.")) {
            return wrong(format!("'{package}' is not the name of a package"));
        }
        let is_url = |url: &str| {
            let known = ["http://", "https://", "file:/", "copy:/"];
            known.iter().any(|scheme| url.starts_with(scheme))
                && url.chars().all(|c| c.is_ascii_graphic() && !"[]'\"\\".contains(c))
        };
        if let Some(mirror) = self.mirror.as_ref().filter(|mirror| !is_url(mirror)) {
            return wrong(format!("'{mirror}' is not a mirror: give its URL, like {MIRROR}"));
        }
        if self.size_bytes < SIZE_MIN_BYTES || !self.size_bytes.is_multiple_of(1 << 20) {
            return wrong("a Debian disk has 2G at least, and whole MiB".to_owned());
        }
        Ok(())
    }

    /// All packages, as `mmdebstrap` is told them.
    pub(crate) fn include(&self) -> String {
        let own = std::iter::once(self.kernel.package());
        let all = own.chain(self.packages.iter().map(String::as_str));
        std::iter::once(PACKAGES).chain(all).collect::<Vec<_>>().join(",")
    }

    /// The lines of `sources.list`.
    pub(crate) fn sources(&self) -> Vec<String> {
        let suite = &self.suite;
        let mirror = self.mirror.as_deref().unwrap_or(MIRROR);
        let mut lines = vec![format!("deb {mirror} {suite} main")];
        // These have neither.
        if !["sid", "unstable", "experimental"].contains(&suite.as_str()) {
            lines.push(format!("deb {mirror} {suite}-updates main"));
            if self.mirror.is_none() {
                lines.push(format!("deb {SECURITY} {suite}-security main"));
            }
        }
        lines
    }
}

/// Lower-case letters, digits and these, beginning with a letter or digit.
fn is_name(text: &str, more: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.starts_with(plain) && text.chars().all(|c| plain(c) || more.contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> DebianSpec {
        DebianSpec {
            suite: "bookworm".to_owned(),
            size_bytes: 4 << 30,
            packages: vec!["libstdc++6".to_owned()],
            kernel: Kernel::Cloud,
            mirror: None,
        }
    }

    #[test]
    fn values_that_would_be_more_than_values_are_refused() {
        spec().check().unwrap();
        for suite in ["", "-x", "book worm", "a;b", "Sid"] {
            assert!(DebianSpec { suite: suite.to_owned(), ..spec() }.check().is_err(), "{suite}");
        }
        for package in ["", "a,b", "--x", "a b", "a$(b)"] {
            let spec = DebianSpec { packages: vec![package.to_owned()], ..spec() };
            assert!(spec.check().is_err(), "{package}");
        }
        for mirror in ["", "deb.debian.org", "http://a b", "http://a\nb", "http://[trusted=yes]"] {
            let spec = DebianSpec { mirror: Some(mirror.to_owned()), ..spec() };
            assert!(spec.check().is_err(), "{mirror}");
        }
        for size_bytes in [0, 1 << 30, (4 << 30) + 512] {
            assert!(DebianSpec { size_bytes, ..spec() }.check().is_err(), "{size_bytes}");
        }
    }

    #[test]
    fn a_stable_suite_has_updates_and_fixes_and_a_mirror_replaces_the_archive() {
        assert_eq!(spec().sources().len(), 3);
        assert_eq!(DebianSpec { suite: "sid".to_owned(), ..spec() }.sources().len(), 1);
        let mirror = Some("http://mirror/debian".to_owned());
        let sources = DebianSpec { mirror, ..spec() }.sources();
        assert!(sources.iter().all(|line| line.starts_with("deb http://mirror/debian ")));
    }
}
