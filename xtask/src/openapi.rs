//! `cargo xtask openapi`: writes the API's document. A test of the API compares them.

use std::fs;

use guests::host;

/// Runs it.
pub fn run() -> anyhow::Result<()> {
    let mut trined = host::cargo(&["run", "--quiet", "--package", "trined", "--", "--openapi"]);
    fs::write(host::root().join("docs/openapi.json"), host::output(&mut trined)?)?;
    Ok(())
}
