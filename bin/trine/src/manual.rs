//! The manual's pages, made of the same text as `--help`: for packages.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, CommandFactory};

use crate::Cli;

#[derive(Args)]
pub struct Options {
    /// Where to: trine.1, trine-launch.1 and so on
    folder: PathBuf,
}

/// Writes a page for each command.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let folder = &options.folder;
    let write = || {
        fs::create_dir_all(folder)?;
        clap_mangen::generate_to(Cli::command(), folder)
    };
    write().with_context(|| format!("cannot write to {}", folder.display()))
}
