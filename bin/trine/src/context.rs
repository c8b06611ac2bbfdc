//! Daemons on other hosts: who they are, and who we are to them.

use std::io::{BufRead, IsTerminal, Read, Write, stderr, stdin};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use hyper::Method;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde_json::Value;

use crate::daemon::{Client, Contexts, Elsewhere, fingerprint};
use crate::shown::table;

/// Longer than any token.
const SECRET_MAX: u64 = 4096;

#[derive(Subcommand)]
pub enum Command {
    /// Get to know a daemon on another host; its token comes from standard input
    Add(AddOptions),
    /// List the daemons that are known
    Ls,
    /// Say which one is meant from now on
    Use(UseOptions),
    /// Forget one
    Rm(NameOptions),
}

#[derive(Args)]
pub struct AddOptions {
    /// What it is to be called here
    name: String,
    /// Where it listens: https://HOST:PORT
    server: String,
    /// SHA-256 of its certificate, which it logs [default: it is shown, and you are asked]
    #[arg(long, value_name = "HEX")]
    fingerprint: Option<String>,
    /// The project that is meant if none is named
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
}

#[derive(Args)]
pub struct NameOptions {
    /// Its name
    name: String,
}

#[derive(Args)]
pub struct UseOptions {
    /// Its name
    #[arg(required_unless_present = "local")]
    name: Option<String>,
    /// The daemon of this host
    #[arg(long, conflicts_with = "name")]
    local: bool,
}

/// Does what is asked.
pub fn run(command: Command) -> anyhow::Result<()> {
    let mut contexts = Contexts::load()?;
    match command {
        Command::Add(options) => return add(contexts, options),
        Command::Ls => {
            print!("{}", listed(&contexts));
            return Ok(());
        }
        Command::Use(UseOptions { name: Some(name), .. }) => {
            contexts.get(&name)?;
            contexts.current = Some(name);
        }
        Command::Use(_) => contexts.current = None,
        Command::Rm(NameOptions { name }) => {
            contexts.get(&name)?;
            contexts.contexts.remove(&name);
            contexts.current.take_if(|current| *current == name);
        }
    }
    contexts.save()
}

fn listed(contexts: &Contexts) -> String {
    let rows = contexts.contexts.iter().map(|(name, context)| {
        let is_current = contexts.current.as_ref() == Some(name);
        let current = if is_current { "*" } else { "" };
        let project = context.project.as_deref().unwrap_or("default");
        [current, name, &context.server, project].map(str::to_owned).to_vec()
    });
    table(&["CURRENT", "NAME", "SERVER", "PROJECT"], &rows.collect::<Vec<_>>())
}

fn add(mut contexts: Contexts, options: AddOptions) -> anyhow::Result<()> {
    let AddOptions { name, server, fingerprint: given, project } = options;
    let server = server.trim_end_matches('/').to_owned();
    let mut context = Elsewhere { server, token: String::new(), fingerprint: given, project };
    if context.fingerprint.is_none() && Client::elsewhere(&context).is_err() {
        context.fingerprint = Some(believed(&context.server)?);
    }
    context.token = secret()?.trim().to_owned();
    // Who does not get in need not be kept.
    let path = "/v1/version";
    let version: Value = Client::elsewhere(&context)?.ask(Method::GET, path, None)?;
    let (server, version) = (&context.server, version["version"].as_str().unwrap_or("?"));
    eprintln!("trine: {server} answers, version {version}");
    if contexts.current.is_none() {
        contexts.current = Some(name.clone());
    }
    contexts.contexts.insert(name, context);
    contexts.save()
}

/// The fingerprint of a server for whom nobody vouches, if the user does.
fn believed(server: &str) -> anyhow::Result<String> {
    let shown = fingerprint(server)?;
    if !stdin().is_terminal() {
        bail!("nobody vouches for {server}: if the daemon logged this, say --fingerprint {shown}");
    }
    eprintln!(
        "Nobody vouches for {server}. Its certificate has the SHA-256 fingerprint\n{shown}\n"
    );
    eprint!("Did the daemon log the same when it began to listen? [y/N] ");
    stderr().flush()?;
    let mut answer = String::new();
    stdin().lock().read_line(&mut answer)?;
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        bail!("not trusted, and not kept");
    }
    Ok(shown)
}

/// A token.
fn secret() -> anyhow::Result<String> {
    asked("Token: ").context(
        "no token on standard input: `trine token create NAME` makes one, on the daemon's host",
    )
}

/// A line of standard input, which a terminal does not show.
pub fn asked(what: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    if stdin().is_terminal() {
        eprint!("{what}");
        stderr().flush()?;
        let before = tcgetattr(stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(stdin(), OptionalActions::Now, &quiet)?;
        let read = stdin().lock().take(SECRET_MAX).read_line(&mut text);
        tcsetattr(stdin(), OptionalActions::Now, &before)?;
        eprintln!();
        read?;
    } else {
        stdin().lock().take(SECRET_MAX).read_line(&mut text)?;
    }
    let text = text.trim_end_matches(['\r', '\n']);
    if text.trim().is_empty() {
        bail!("nothing was given");
    }
    Ok(text.to_owned())
}

#[derive(Args)]
pub struct LoginOptions {
    /// What the daemon is called here (trine context ls)
    name: String,
    /// Your name there
    #[arg(long, value_name = "NAME", env = "USER")]
    user: String,
    /// Where it listens, if it is not known yet: https://HOST:PORT
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// SHA-256 of its certificate, which it logs [default: it is shown, and you are asked]
    #[arg(long, value_name = "HEX", requires = "server")]
    fingerprint: Option<String>,
}

/// Signs in; the session is kept as a token is, and good for twelve hours.
pub fn login(options: LoginOptions) -> anyhow::Result<()> {
    let LoginOptions { name, user, server, fingerprint } = options;
    let mut contexts = Contexts::load()?;
    let mut context = match server {
        Some(server) => {
            let server = server.trim_end_matches('/').to_owned();
            Elsewhere { server, token: String::new(), fingerprint, project: None }
        }
        None => contexts.get(&name).context("give --server, as it is not known")?.clone(),
    };
    context.token.clear();
    if context.fingerprint.is_none() && Client::elsewhere(&context).is_err() {
        context.fingerprint = Some(believed(&context.server)?);
    }
    let password = asked(&format!("Password of {user}: "))?;
    context.token = Client::elsewhere(&context)?.sign_in(&user, &password)?;
    eprintln!("trine: signed in to {} as {user}", context.server);
    contexts.current = Some(name.clone());
    contexts.contexts.insert(name, context);
    contexts.save()
}
