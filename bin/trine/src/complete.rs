//! What shells complete: commands and options, and names that the daemon is asked for.
//!
//! A shell calls `trine` again with `COMPLETE` in its environment ([`CompleteEnv`]). Which arguments are names of
//! what follows from what they are called: `--network`, `VM`, the name in `disk show NAME`.

use std::ffi::OsStr;
use std::io::stdout;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use clap::{Arg, Args, Command, CommandFactory};
use clap_complete::env::{CompleteEnv, Shells};
use clap_complete::{ArgValueCompleter, CompletionCandidate};
use hyper::Method;
use serde_json::Value;

use crate::Cli;
use crate::daemon::{Client, Contexts, Where};

/// Who presses Tab does not wait longer than this for the daemon.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
const VARIABLE: &str = "COMPLETE";
/// What has names, and is called so where one is wanted.
const NOUNS: &[&str] = &[
    "vm",
    "disk",
    "snapshot",
    "pool",
    "image",
    "network",
    "security-group",
    "project",
    "context",
    "token",
    "scale-set",
    "user",
    "ssh-key",
];

#[derive(Args)]
pub struct Options {
    /// Which shell
    #[arg(value_parser = ["bash", "zsh", "fish", "elvish", "powershell"])]
    shell: String,
}

/// Prints what makes a shell complete our commands.
pub fn run(options: &Options) -> anyhow::Result<()> {
    let shells = Shells::builtins();
    let shell = shells.completer(&options.shell).context("no such shell")?;
    Ok(shell.write_registration(VARIABLE, "trine", "trine", "trine", &mut stdout())?)
}

/// Answers a shell and ends, if it was one that called.
pub fn answer_shell() {
    CompleteEnv::with_factory(|| completing(Cli::command(), None)).var(VARIABLE).complete();
}

/// The command, whose arguments that are names know of what.
fn completing(command: Command, noun: Option<&str>) -> Command {
    let verb = command.get_name().to_owned();
    let command = command.mut_args(|arg| match kind(&arg, noun, &verb) {
        Some(kind) => arg.add(ArgValueCompleter::new(move |begun: &OsStr| names(&kind, begun))),
        None => arg,
    });
    command.mut_subcommands(|inner| {
        let name = (verb != "trine").then_some(verb.as_str());
        completing(inner, name)
    })
}

/// Of which objects an argument is the name: a part of the API's paths, or `contexts`.
fn kind(arg: &Arg, noun: Option<&str>, verb: &str) -> Option<String> {
    let id = arg.get_id().as_str();
    let Some(long) = arg.get_long() else {
        return match id.trim_end_matches('s') {
            _ if !arg.is_positional() => None,
            "name" if matches!(verb, "create" | "add" | "launch") => None,
            "name" => noun.map(|noun| format!("{noun}s")),
            "group" => Some("security-groups".to_owned()),
            "project_name" => Some("projects".to_owned()),
            own if NOUNS.contains(&own) => Some(format!("{own}s")),
            _ => None,
        };
    };
    if long == "attach" {
        return Some("disks".to_owned());
    }
    // Sizes and files are no names.
    let value = arg.get_value_names()?.first()?.as_str();
    let is_name = value == "NAME" || value.eq_ignore_ascii_case(long);
    (is_name && NOUNS.contains(&long)).then(|| format!("{long}s"))
}

/// Names that begin so; none where nobody can be asked.
fn names(kind: &str, begun: &OsStr) -> Vec<CompletionCandidate> {
    let Some(begun) = begun.to_str().map(str::to_owned) else { return Vec::new() };
    let (tell, answer) = mpsc::channel();
    let kind = kind.to_owned();
    thread::spawn(move || tell.send(all_names(&kind).unwrap_or_default()));
    let names = answer.recv_timeout(ANSWER_LIMIT).unwrap_or_default();
    names
        .into_iter()
        .filter(|name| name.starts_with(&begun))
        .map(CompletionCandidate::new)
        .collect()
}

fn all_names(kind: &str) -> anyhow::Result<Vec<String>> {
    if kind == "contexts" {
        return Ok(Contexts::load()?.contexts.into_keys().collect());
    }
    let mut client = Client::connect(&Where::of_environment())?;
    let path = format!("/v1/{kind}?project={}&limit=1000", client.project);
    let page: Value = client.ask(Method::GET, &path, None)?;
    let items = page["items"].as_array().context("the daemon answers no list")?;
    Ok(items.iter().filter_map(|item| item["name"].as_str()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind_of(path: &[&str], argument: &str) -> Option<String> {
        let mut command = &Cli::command();
        let mut noun = None;
        for name in path {
            noun = Some(command.get_name()).filter(|name| *name != "trine");
            command = command.find_subcommand(name).expect("such a command");
        }
        let arg = command
            .get_arguments()
            .find(|arg| arg.get_id() == argument)
            .unwrap_or_else(|| panic!("{path:?} has no {argument}"));
        kind(arg, noun, command.get_name())
    }

    #[test]
    fn the_command_line_makes_sense() {
        Cli::command().debug_assert();
    }

    #[test]
    fn arguments_that_are_names_know_of_what() {
        for (path, argument, expected) in [
            (&["stop"][..], "vms", Some("vms")),
            (&["vm", "show"], "name", Some("vms")),
            (&["vm", "create"], "name", None),
            (&["vm", "create"], "image", Some("images")),
            (&["vm", "create"], "disk", None),
            (&["vm", "create"], "disks", Some("disks")),
            (&["vm", "create"], "networks", Some("networks")),
            (&["vm", "create"], "security_groups", Some("security-groups")),
            (&["console"], "vm", Some("vms")),
            (&["snapshot", "rm"], "snapshots", Some("snapshots")),
            (&["disk", "rm"], "disks", Some("disks")),
            (&["network", "create"], "name", None),
            (&["network", "show"], "network", Some("networks")),
            (&["disk", "attach"], "disk", Some("disks")),
            (&["disk", "attach"], "vm", Some("vms")),
            (&["security-group", "show"], "group", Some("security-groups")),
            (&["pool", "rm"], "names", Some("pools")),
            (&["context", "use"], "name", Some("contexts")),
            (&["ls"], "project", Some("projects")),
            (&["user", "set"], "users", Some("users")),
            (&["user", "create"], "name", None),
            (&["project", "quota"], "name", Some("projects")),
            (&["project", "member", "add"], "user", Some("users")),
            (&["project", "member", "add"], "project_name", Some("projects")),
            (&["ssh-key", "rm"], "names", Some("ssh-keys")),
            (&["ls"], "output", None),
        ] {
            assert_eq!(kind_of(path, argument).as_deref(), expected, "{path:?} {argument}");
        }
    }
}
