//! `cargo xtask golden`: what today's program saves becomes a file that every later one must load
//! (docs/formats/saved-state.md).

use guests::host;

/// Adds the file, unless the newest is what is saved today.
pub fn run() -> anyhow::Result<()> {
    host::run(&mut host::cargo(&["run", "--quiet", "--package", "state_tests", "--bin", "golden"]))
}
