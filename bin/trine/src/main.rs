//! `trine`: the command line.
//!
//! `trine run` starts a VM in a process of its own and stays beside it; the other commands talk
//! to a running VM over its control socket.

mod agent;
mod balloon;
mod complete;
mod console;
mod context;
mod control;
mod daemon;
mod devices;
mod disk;
mod image;
mod manual;
mod network;
mod nouns;
mod pool;
mod progress;
mod project;
mod run;
mod scale_set;
mod screenshot;
mod security_group;
mod shown;
mod snapshot;
mod ssh_key;
mod token;
mod user;
mod vm;

use std::process::ExitCode;

use clap::error::ErrorKind;
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
    /// VMs that the daemon looks after
    #[command(subcommand)]
    Vm(vm::Command),
    /// Make a VM and start it (vm create)
    Launch(vm::CreateOptions),
    /// List VMs (vm ls)
    Ls(nouns::ListOptions),
    /// Start VMs (vm start)
    Start(vm::ChangeOptions),
    /// Shut VMs down (vm stop)
    Stop(vm::ForceOptions),
    /// Delete VMs and their disks (vm rm)
    Rm(vm::RmOptions),
    /// A VM's serial port at this terminal
    Console(console::Options),
    /// Sets of VMs that are alike, as many as are wanted or as their load asks for
    #[command(subcommand)]
    ScaleSet(scale_set::Command),
    /// Networks that VMs share
    #[command(subcommand)]
    Network(network::Command),
    /// What VMs on networks may send and be sent
    #[command(subcommand)]
    SecurityGroup(security_group::Command),
    /// Daemons on other hosts
    #[command(subcommand)]
    Context(context::Command),
    /// Sign in to a daemon on another host, by name and password
    Login(context::LoginOptions),
    /// Who can sign in, and what they may
    #[command(subcommand)]
    User(user::Command),
    /// Projects, their quotas, and who may do what in them
    #[command(subcommand)]
    Project(project::Command),
    /// Public keys with which VMs are made
    #[command(subcommand)]
    SshKey(ssh_key::Command),
    /// With what others prove to the daemon who they are
    #[command(subcommand)]
    Token(token::Command),
    /// The store of disk images
    #[command(subcommand)]
    Image(image::Command),
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
    /// Shut a VM's guest down and wait for its end
    Shutdown(agent::ShutdownOptions),
    /// Run a program in a VM's guest (by its guest agent)
    Exec(agent::ExecOptions),
    /// Copy a file into a VM's guest, or out of it (by its guest agent)
    Cp(agent::CopyOptions),
    /// Say how much memory a VM's guest shall do without, and how its memory is
    Balloon(balloon::BalloonOptions),
    /// Disks, and which VMs have them
    #[command(subcommand)]
    Disk(disk::Command),
    /// Take a snapshot of a VM's disks, go back to one, list and delete them
    Snapshot(snapshot::Options),
    /// The folders in which disks are
    #[command(subcommand)]
    Pool(pool::Command),
    /// Give a running VM network cards, or take them away
    #[command(subcommand)]
    Net(devices::NetCommand),
    /// Give a running VM more CPUs or memory
    Set(devices::SetOptions),
    /// Ask a VM's guest agent
    Agent(agent::AgentOptions),
    /// End a VM at once
    Quit(control::Target),
    /// Write what a VM's screen shows to a PNG file
    Screenshot(screenshot::Options),
    /// Press keys together on a VM's keyboard, as in ctrl-alt-delete
    Key(control::KeyOptions),
    /// Type a text on a VM's keyboard
    Type(control::TypeOptions),
    /// Let a running VM go on in another engine
    Move(control::MoveOptions),
    /// Print what makes a shell complete commands, options and names
    Completion(complete::Options),
    /// Write the manual's pages to a folder
    #[command(hide = true)]
    Manual(manual::Options),
}

fn main() -> ExitCode {
    complete::answer_shell();
    let command = match Cli::try_parse() {
        Ok(cli) => cli.command,
        Err(error) => return refuse(&error),
    };
    let result = match command {
        Command::Run(options) => run::run(options),
        Command::Screenshot(options) => screenshot::take(&options).map(|()| ExitCode::SUCCESS),
        Command::Shutdown(options) => agent::shutdown(options).map(|()| ExitCode::SUCCESS),
        Command::Exec(options) => agent::exec(options),
        Command::Cp(options) => agent::copy(options).map(|()| ExitCode::SUCCESS),
        Command::Balloon(options) => balloon::balloon(options).map(|()| ExitCode::SUCCESS),
        Command::Agent(options) => agent::agent(options).map(|()| ExitCode::SUCCESS),
        Command::Disk(command) => disk::run(command).map(|()| ExitCode::SUCCESS),
        Command::Snapshot(options) => snapshot::run(options).map(|()| ExitCode::SUCCESS),
        Command::Pool(command) => pool::run(command).map(|()| ExitCode::SUCCESS),
        Command::Net(command) => devices::net(command).map(|()| ExitCode::SUCCESS),
        Command::Set(options) => devices::set(&options).map(|()| ExitCode::SUCCESS),
        Command::ScaleSet(command) => scale_set::run(command).map(|()| ExitCode::SUCCESS),
        Command::Network(command) => network::run(command).map(|()| ExitCode::SUCCESS),
        Command::SecurityGroup(command) => security_group::run(command).map(|()| ExitCode::SUCCESS),
        Command::Vm(command) => vm::run(command).map(|()| ExitCode::SUCCESS),
        Command::Launch(options) => {
            vm::run(vm::Command::Create(options)).map(|()| ExitCode::SUCCESS)
        }
        Command::Ls(options) => vm::list(&options).map(|()| ExitCode::SUCCESS),
        Command::Start(options) => vm::run(vm::Command::Start(options)).map(|()| ExitCode::SUCCESS),
        Command::Stop(options) => vm::run(vm::Command::Stop(options)).map(|()| ExitCode::SUCCESS),
        Command::Rm(options) => vm::run(vm::Command::Rm(options)).map(|()| ExitCode::SUCCESS),
        Command::Console(options) => console::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Completion(options) => complete::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Manual(options) => manual::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Context(command) => context::run(command).map(|()| ExitCode::SUCCESS),
        Command::Login(options) => context::login(options).map(|()| ExitCode::SUCCESS),
        Command::User(command) => user::run(command).map(|()| ExitCode::SUCCESS),
        Command::Project(command) => project::run(command).map(|()| ExitCode::SUCCESS),
        Command::SshKey(command) => ssh_key::run(command).map(|()| ExitCode::SUCCESS),
        Command::Token(command) => token::run(command).map(|()| ExitCode::SUCCESS),
        Command::Image(command) => image::run(command).map(|()| ExitCode::SUCCESS),
        command => control::ask(command).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("trine: {error:#}");
        ExitCode::from(4)
    })
}

/// Help is shown as it is, and a mistake in one line.
fn refuse(error: &clap::Error) -> ExitCode {
    use ErrorKind::{DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion};
    let is_help = matches!(
        error.kind(),
        DisplayHelp | DisplayVersion | DisplayHelpOnMissingArgumentOrSubcommand
    );
    if is_help {
        // To a reader who has gone, there is nothing to say.
        let _ = error.print();
    } else {
        eprintln!("trine: {}", errchain::first_paragraph(&error.to_string()));
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}
