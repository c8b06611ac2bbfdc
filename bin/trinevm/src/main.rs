//! `trinevm`: the process of one VM.
//!
//! It parses its command line, takes over the terminal and signals, and leaves the rest to
//! [`vmm`]. `trine run` starts it; so may anyone.

mod ending;
mod escape;
mod footprint;
mod input;
mod options;
mod sweeper;
mod terminal;

use std::fs::File;
use std::io::{IsTerminal, stdin};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cage::{Cage, CageError, Level, Needs, VcpuFilter};
use evloop::{Interest, Signal, Signals};
use vmm::{Console, Inbox, Io, Launched, Outcome, Vm};
use vmm_rpc::{Listener, Request};

use ending::Ending;
use escape::Typed;
use input::Input;
use options::Options;
use sweeper::Sweeper;
use terminal::RawTerminal;

/// How long the last output may take to reach a slow reader.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);
/// One signal may come twice at once: from a terminal, and passed on by `trine run`.
const AGAIN: Duration = Duration::from_secs(1);
/// Who answers on the control socket.
const PROGRAM: &str = concat!("trinevm ", env!("CARGO_PKG_VERSION"));
/// Signals that end the VM, and those a terminal sends to jobs.
const SIGNALS: [Signal; 6] =
    [Signal::Term, Signal::Int, Signal::Hup, Signal::Quit, Signal::Cont, Signal::Ttou];

fn main() -> ExitCode {
    if let Some(swept) = sweeper::main() {
        return swept;
    }
    let options = match Options::from_command_line() {
        Ok(options) => options,
        Err(ending) => return ending.end(),
    };
    if options.record.is_some() {
        // Of what the daemon has been given by who started it, nothing is for a VM.
        cage::close_inherited();
        // A process that leads a group has a session of its own as far as signals go.
        let _ = rustix::process::setsid();
    }
    // Opened now: later, nothing is.
    let record = match options.record.as_deref().map(File::create).transpose() {
        Ok(record) => record,
        Err(error) => return Ending::host("cannot make the record of the end", &error).end(),
    };
    let ending = run(&options).unwrap_or_else(|ending| ending);
    if let Some(file) = record {
        ending.record(file);
    }
    ending.end()
}

fn run(options: &Options) -> Result<Ending, Ending> {
    let spec = options.spec()?;
    footprint::forget_program();
    let level = options.begin_cage();
    // Before there are threads, which inherit the mask.
    let signals =
        Signals::take_over(&SIGNALS).map_err(|e| Ending::host("cannot take signals over", &e))?;
    if let Some(parent) = options.tied_to {
        tie_to(parent)?;
    }
    let inbox = Arc::new(Inbox::default());
    let mut io = Io::new()?;
    if let Some(path) = &options.control {
        let listener = Listener::bind(path);
        let listener = listener.map_err(|e| Ending::usage(errchain::Chain(&e).to_string()))?;
        io.serve_control(listener, &inbox, PROGRAM)?;
    }
    let Launched { mut vm, clock, consoles, outputs, desk, viewers, engine } =
        vmm::launch(spec, &inbox)?;
    eprintln!("trinevm: {engine}");
    for viewer in &viewers {
        eprintln!("trinevm: screen at {}", viewer.place());
    }
    io.serve_clock(&clock)?;
    if let Some(desk) = &desk {
        io.serve_desk(desk)?;
    }
    let stdio = consoles.into_iter().find(Console::is_stdio);
    let terminal = if stdio.is_some() { take_terminal()? } else { None };
    let is_terminal = terminal.is_some();
    let input = stdio.map(|console| take_input(&io, console, &inbox, is_terminal)).transpose()?;
    let signalled = serve_signals(&mut io, signals, &inbox, terminal)?;
    let io = io.start("io")?;
    let sweeper = Sweeper::start(&options.sockets())
        .map_err(|e| Ending::host("cannot start who removes the sockets", &e))?;
    close_cage(options, level, &mut vm)?;
    footprint::forget_program();
    let result = vm.run();
    let summary = options.summary.then(|| vm.status().costs());
    drop(vm);
    for output in outputs {
        output.flush(FLUSH_LIMIT);
    }
    drop((input, viewers, io, sweeper));
    terminal::restore();
    for (name, value) in summary.unwrap_or_default() {
        eprintln!("trinevm: {name:12} {value}");
    }
    let signal = *signalled.lock().unwrap_or_else(PoisonError::into_inner);
    match (result?, signal) {
        (Outcome::Quit, Some(signal)) => Ok(Ending::Signal(signal)),
        (outcome, _) => Ok(Ending::Ran(outcome)),
    }
}

/// The process opens nothing from here on. What the host's kernel has no means for is told: here, or by the daemon.
fn close_cage(options: &Options, mut level: Level, vm: &mut Vm) -> Result<(), Ending> {
    let refused = |error: CageError| Ending::Host(errchain::Chain(&error).to_string());
    let needs = Needs {
        inet: options.may_have_network(),
        unix: options.has_guest_sockets(),
        ..vm.needs(options.control.is_some())
    };
    let vcpus = VcpuFilter::new(&needs).map_err(refused)?;
    let closed = Cage { needs, user: options.cage_user() }.close().map_err(refused)?;
    level.holds.extend(closed.holds);
    level.lacks.extend(closed.lacks);
    if options.record.is_none() {
        for lack in &level.lacks {
            eprintln!("trinevm: the cage lacks {lack}");
        }
    }
    Ok(vm.enclose(level, &vcpus)?)
}

/// Ends this process when its parent does.
fn tie_to(parent: i32) -> Result<(), Ending> {
    let term = rustix::process::Signal::TERM;
    rustix::process::set_parent_process_death_signal(Some(term))
        .map_err(|e| Ending::host("cannot be tied to the parent process", &e.into()))?;
    // It may have gone before the signal was asked for.
    let is_there =
        rustix::process::getppid().is_some_and(|pid| pid.as_raw_nonzero().get() == parent);
    if is_there { Ok(()) } else { Err(Ending::Host("the parent process has gone".to_owned())) }
}

/// Makes a terminal on the standard input raw, and says how to get out.
fn take_terminal() -> Result<Option<RawTerminal>, Ending> {
    if !stdin().is_terminal() {
        return Ok(None);
    }
    eprintln!("trinevm: {}", escape::HINT);
    RawTerminal::enter().map(Some).map_err(|e| Ending::host("cannot make the terminal raw", &e))
}

/// Brings the standard input to a console. Only what is typed at a terminal has escapes.
fn take_input(
    io: &Io,
    console: Console,
    inbox: &Arc<Inbox>,
    is_terminal: bool,
) -> Result<Input, Ending> {
    let failed = |e| Ending::host("cannot use the standard input", &e);
    let inbox = inbox.clone();
    let obey: input::Obey = Box::new(move |typed| match typed {
        Typed::Quit => inbox.quit(),
        Typed::PowerButton => inbox.request(Request::PowerButton, Box::new(|_| ())),
        Typed::Help => eprint!("{}", escape::HELP),
        Typed::Byte(_) | Typed::Nothing => {}
    });
    let room = console.room().clone();
    let offer: input::Offer = Box::new(move |bytes| console.offer(bytes));
    let source = input::standard_input().map_err(failed)?;
    Input::new(io.event_loop(), source, room, offer, is_terminal.then_some(obey)).map_err(failed)
}

/// Has signals end the VM; returns where the one that did will be. Another one after
/// [`AGAIN`] ends the process on the spot, should the VM hang.
fn serve_signals(
    io: &mut Io,
    signals: Signals,
    inbox: &Arc<Inbox>,
    terminal: Option<RawTerminal>,
) -> Result<Arc<Mutex<Option<Signal>>>, Ending> {
    let first = Arc::new(Mutex::new(None));
    let (signals, seen, inbox) = (Arc::new(signals), first.clone(), inbox.clone());
    let mut since: Option<Instant> = None;
    let source = signals.clone();
    let handler = move || match signals.take() {
        None | Some(Signal::Ttou) => {}
        Some(Signal::Cont) => {
            // A terminal that refuses now leaves the guest a cooked one.
            let _ = terminal.as_ref().map(RawTerminal::renew);
        }
        Some(signal) => {
            *seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(signal);
            if since.get_or_insert_with(Instant::now).elapsed() >= AGAIN {
                terminal::restore();
                signal.die_of();
            }
            inbox.quit();
        }
    };
    io.add(source, Interest::Read, handler)
        .map_err(|e| Ending::host("cannot wait for signals", &e))?;
    Ok(first)
}
