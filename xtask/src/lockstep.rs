//! `cargo xtask lockstep`: a whole guest on translated code and the interpreter at once.

use clap::Args;
use guests::host;

/// What to compare.
#[derive(Args)]
pub struct Options {
    /// What the program `lockstep` takes
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Compares.
pub fn run(options: &Options) -> anyhow::Result<()> {
    host::need_packages(&["busybox-static", "xz-utils"])?;
    let mut command = host::cargo(&["run", "-q", "-p", "lockstep", "--"]);
    command.args(&options.arguments);
    host::run(&mut command)
}
