//! CPython, in a process of its own that prints its rows itself.

use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use super::Place;
use crate::measure::Effort;

const SCRIPT: &str = include_str!("python.py");

/// Runs Python's rows.
pub fn run(place: &Place, effort: Option<&Effort>, rows: &str) -> anyhow::Result<()> {
    let (passes, pass_ns, row_ns) = effort
        .map_or((0, 0, 0), |effort| (effort.passes, effort.pass.as_nanos(), effort.row.as_nanos()));
    let root = &place.root;
    // The loader and libraries of the same folder, so that a host runs what a guest does.
    let mut python = Command::new(root.join("lib64/ld-linux-x86-64.so.2"));
    python.arg("--library-path").arg(root.join("lib/x86_64-linux-gnu"));
    python.arg(root.join("usr/bin/python3.11")).args(["-S", "-s", "-B", "-c", SCRIPT]);
    python.args([passes.to_string(), pass_ns.to_string(), row_ns.to_string()]).arg(rows);
    python.env_clear().env("PYTHONHOME", root.join("usr")).env("PYTHONHASHSEED", "0");
    let status = python.stdin(Stdio::null()).status().context("CPython does not start")?;
    ensure!(status.success(), "CPython: {status}");
    Ok(())
}
