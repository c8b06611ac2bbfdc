//! `cargo xtask ui`: the web UI, for the daemon to have in it, and its tests.
//!
//! Node.js and npm come from Debian if there are none. Nothing that is made is committed.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use anyhow::Context;

use guests::{Init, host};

/// What the UI is made of. The API's document is where its types come from.
const SOURCES: &[&str] = &[
    "ui/src",
    "ui/public",
    "ui/index.html",
    "ui/vite.config.ts",
    "ui/package-lock.json",
    "docs/openapi.json",
];
const BUILT: &str = "ui/dist/web/index.html";

/// Runs it.
pub fn run() -> anyhow::Result<()> {
    need_node()?;
    build()
}

/// Builds the UI if it can be: without npm's registry there is a daemon that says what is missing in it.
pub fn is_built_or_told() -> bool {
    run().inspect_err(|error| eprintln!("xtask: NOT RUN: the web UI: {error:#}")).is_ok()
}

/// Types and components, and, if a browser can be had, all of it in one with the daemon. The daemon is built.
pub fn test() -> anyhow::Result<()> {
    npm(&["run", "--silent", "check"])?;
    npm(&["run", "--silent", "test"])?;
    if let Err(error) = host::need_packages(&["chromium"]) {
        eprintln!("xtask: NOT RUN: the web UI in a browser: {error:#}");
        return Ok(());
    }
    let programs = host::build_for_tests()?;
    let kernel = guests::kernel("cloud")?;
    let initrd = guests::initrd(&kernel, &[], Init::Shell)?;
    let mut browser = Command::new("npm");
    browser.args(["run", "--silent", "browser"]).current_dir(host::root().join("ui"));
    browser.env("TRINE_BIN", programs).env("TRINE_KERNEL", &kernel.image);
    host::run(browser.env("TRINE_INITRD", initrd))
}

fn need_node() -> anyhow::Result<()> {
    let has = |program: &str| host::output(Command::new(program).arg("--version")).is_ok();
    if has("node") && has("npm") { Ok(()) } else { host::need_packages(&["nodejs", "npm"]) }
}

fn build() -> anyhow::Result<()> {
    let root = host::root();
    let lock = modified(&root.join("ui/package-lock.json"))?;
    // npm writes this file last.
    let installed = modified(&root.join("ui/node_modules/.package-lock.json"));
    if !installed.is_ok_and(|installed| installed >= lock) {
        // Not `ci`: registries that mirror only some platforms' builds of rollup and esbuild leave
        // the others out of the lock, which it refuses.
        npm(&["install", "--no-save", "--no-audit", "--no-fund"])?;
    }
    let mut newest = SystemTime::UNIX_EPOCH;
    for source in SOURCES {
        newest = newest.max(newest_in(&root.join(source))?);
    }
    if modified(&root.join(BUILT)).is_ok_and(|built| built >= newest) {
        return Ok(());
    }
    npm(&["run", "--silent", "build"])
}

fn npm(arguments: &[&str]) -> anyhow::Result<()> {
    host::run(Command::new("npm").args(arguments).current_dir(host::root().join("ui")))
}

fn modified(path: &Path) -> anyhow::Result<SystemTime> {
    let time = fs::metadata(path).and_then(|metadata| metadata.modified());
    time.with_context(|| format!("cannot look at {}", path.display()))
}

fn newest_in(path: &Path) -> anyhow::Result<SystemTime> {
    let mut newest = SystemTime::UNIX_EPOCH;
    if !path.is_dir() {
        return modified(path);
    }
    for entry in fs::read_dir(path)? {
        let path = entry?.path();
        // Written by the build itself.
        if !path.ends_with("api.gen.ts") {
            newest = newest.max(newest_in(&path)?);
        }
    }
    Ok(newest)
}
