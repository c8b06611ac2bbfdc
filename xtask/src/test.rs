//! `cargo xtask test`: every test that this machine can run.

use clap::Args;

use guests::host;

use crate::package::{self, Programs};
use crate::{check, ui};

/// What to test.
#[derive(Args)]
pub struct Options {
    /// Only tests whose names contain this
    filter: Option<String>,
}

/// Programs the tests use: the nested machine, guests, oracles.
const PACKAGES: &[&str] = &[
    "acpica-tools",
    "bochs",
    "busybox-static",
    "cpio",
    "dnsmasq-base",
    "e2fsprogs",
    "faketime",
    "iproute2",
    "mmdebstrap",
    "nftables",
    "openssh-client",
    "ovmf",
    "prometheus",
    "qemu-system-x86",
    "qemu-utils",
    "seabios",
    "xz-utils",
];

/// Runs them.
pub fn run(options: &Options) -> anyhow::Result<()> {
    host::need_packages(PACKAGES)?;
    let filter = options.filter.as_deref();
    let has_ui = filter.is_none() && ui::is_built_or_told();
    if filter.is_none() {
        check::lint()?;
    }
    let mut test = host::cargo(&["test", "--workspace", "--lib", "--bins", "--tests"]);
    test.args(filter);
    host::run(&mut test)?;
    if filter.is_none() {
        package::try_out(&Programs::at(host::build_for_tests()?))?;
    }
    if has_ui { ui::test() } else { Ok(()) }
}
