//! Development commands. `cargo xtask up` shows the product, `cargo xtask test` tests it,
//! `cargo xtask check` is for before every commit.
//!
//! One file a task; what they share with tests is in `tests/guests`.

mod bench;
mod check;
mod golden;
mod lockstep;
mod nested;
mod openapi;
mod package;
mod stress;
mod test;
mod tidy;
mod ui;
mod up;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Development commands of Trine")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what is missing, build, and boot Debian's own kernel to a shell
    Up(up::Options),
    /// Run every test that this machine can run
    Test(test::Options),
    /// Format, lints, layers, documentation and unit tests: before every commit
    Check,
    /// Figures beside a peer's
    Bench(bench::Options),
    /// Compiler, CPython, Node.js, OpenSSL and the kernel's tests in a guest, beside this machine
    Stress(stress::Options),
    /// Boot a guest on `full` with all that its translated code does checked by the interpreter
    Lockstep(lockstep::Options),
    /// Run a command on a machine with hardware virtualization, made of software
    Nested(nested::Options),
    /// Add a file to those every version must load, after a change of the saved state's format
    Golden,
    /// Write docs/openapi.json anew, after a change of the API
    Openapi,
    /// The layers and sizes of the code
    Tidy,
    /// Make a Debian package
    Package(package::Options),
    /// Build the web UI: a daemon that is built afterwards has it
    Ui,
}

fn main() -> std::process::ExitCode {
    let done = match Cli::parse().task {
        Task::Up(options) => up::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Check => check::run(),
        Task::Bench(options) => bench::run(&options),
        Task::Lockstep(options) => lockstep::run(&options),
        Task::Nested(options) => nested::run(&options),
        Task::Golden => golden::run(),
        Task::Openapi => openapi::run(),
        Task::Stress(options) => stress::run(&options),
        Task::Package(options) => package::run(&options),
        Task::Tidy => tidy::run(),
        Task::Ui => ui::run(),
    };
    match done {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
