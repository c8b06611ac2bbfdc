//! `trine`: the command line.
//!
//! `trine run` starts a VM in a process of its own and stays beside it; the other commands talk
//! to a running VM over its control socket.

mod control;
mod run;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Virtual machines on any x86-64 Linux host.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a VM on this terminal until its guest ends it (run --help lists its options)
    #[command(disable_help_flag = true)]
    Run(run::Options),
    /// Say how a running VM is
    Status(control::StatusOptions),
    /// Make a running VM and its clock stand
    Pause(control::Target),
    /// Let a paused VM go on
    Resume(control::Target),
    /// Press a VM's reset button
    Reset(control::Target),
    /// Press a VM's power button: its guest is asked to shut down
    PowerButton(control::Target),
    /// End a VM at once
    Quit(control::Target),
    /// Let a running VM go on in another engine
    Move(control::MoveOptions),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(options) => run::run(options),
        command => control::ask(command).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("trine: {error:#}");
        ExitCode::from(4)
    })
}
