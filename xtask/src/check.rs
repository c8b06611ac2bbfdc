//! `cargo xtask check`: the one command before every commit.

use guests::host;

use crate::{tidy, ui};

/// Runs it.
pub fn run() -> anyhow::Result<()> {
    ui::is_built_or_told();
    lint()?;
    host::run(&mut host::cargo(&["test", "--quiet", "--workspace", "--lib", "--bins"]))
}

/// Everything but tests.
pub fn lint() -> anyhow::Result<()> {
    host::run(&mut host::cargo(&["fmt", "--check"]))?;
    tidy::run()?;
    host::run(&mut host::cargo(&[
        "clippy",
        "--quiet",
        "--workspace",
        "--all-targets",
        "--",
        "--deny",
        "warnings",
    ]))?;
    let mut doc = host::cargo(&["doc", "--quiet", "--workspace", "--no-deps"]);
    host::run(doc.env("RUSTDOCFLAGS", "--deny warnings"))
}
