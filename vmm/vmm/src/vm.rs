//! The control thread: what changes a VM's run state.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use board::{Machine, MachineEvent};
use boot::Images;
use display::Picture;
use engine::{Bus, CpuComplex, EngineKind, ExitCount};
use rustix::fs::{MemfdFlags, memfd_create};
use vmm_rpc::{
    AgentRequest, Answer, BalloonRequest, BalloonStatus, CageStatus, KeyPress, Moved, Refusal,
    Reply, Request, Room, RunState, Status,
};
use x86_state::VcpuState;

use crate::agent::AgentService;
use crate::cpus::{Cpus, Stop};
use crate::inbox::{Inbox, Mail};
use crate::launch::check_host_memory;
use crate::moving::{change_engine, reload, reload_with};
use crate::plugging::{self, Plugger};
use crate::{Answering, Chosen, Desk, Engines, IoThread, Output, VmError, kind, name, proc};

/// What becomes of a VM whose guest resets it or whose CPU gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnReset {
    /// It ends.
    End,
    /// It starts anew, as a machine does.
    Restart,
}

/// How a VM ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The guest turned it off.
    PowerOff,
    /// The guest reset it.
    Reset,
    /// A CPU gave up.
    TripleFault,
    /// The guest ended it with this exit status, through the debug-exit port.
    DebugExit(u32),
    /// It was told to, from outside.
    Quit,
}

/// What a VM is made of besides its machine.
pub struct VmConfig {
    /// The engine to begin with.
    pub chosen: Chosen,
    /// What it can move to.
    pub engines: Engines,
    /// What the guest starts from, if not from firmware.
    pub images: Option<Images<File>>,
    /// What becomes of it after a reset.
    pub on_reset: OnReset,
    /// Where output goes: for its counters.
    pub outputs: Vec<Arc<Output>>,
    /// Its screen and keyboard, if it has them.
    pub desk: Option<Arc<Desk>>,
    /// The guest's agent, if it has a port.
    pub(crate) agent: Option<Arc<AgentService>>,
    /// What comes to it later.
    pub plugger: Plugger,
    /// What serves its devices, for as long as it lives.
    pub threads: Vec<IoThread>,
}

/// One VM.
pub struct Vm {
    machine: Arc<Machine>,
    inbox: Arc<Inbox>,
    cpus: Cpus,
    state: RunState,
    config: VmConfig,
    engine: EngineKind,
    cage: CageStatus,
    resets: u64,
    moves: u64,
}

impl Vm {
    /// Plugs the chosen engine into the machine and loads what is to be booted. `inbox` is the
    /// machine's owner.
    ///
    /// # Errors
    /// When the engine cannot be brought up, or there is nothing to boot.
    pub fn new(
        machine: Arc<Machine>,
        inbox: Arc<Inbox>,
        config: VmConfig,
    ) -> Result<Self, VmError> {
        let engine = config.chosen.engine.clone();
        let failed = |source| VmError::Engine { engine: engine.kind(), source };
        let built = engine.build(machine.profile(), &machine.engine_parts()).map_err(failed)?;
        machine.socket().plug(built.complex.clone()).map_err(failed)?;
        let bus: Arc<dyn Bus> = machine.clone();
        let cpus = Cpus::new(built.complex, built.vcpus, &bus, &inbox)?;
        let mut vm = Self {
            machine,
            inbox,
            cpus,
            state: RunState::Paused,
            engine: engine.kind(),
            cage: CageStatus::default(),
            config,
            resets: 0,
            moves: 0,
        };
        vm.boot()?;
        Ok(vm)
    }

    /// What its process must still be able to do when it opens nothing more. `can_move`: it may be told to go on
    /// in another engine. What is looked at later is opened now.
    pub fn needs(&self, can_move: bool) -> cage::Needs {
        proc::open();
        net::keep_resolver();
        for kind in EngineKind::ALL {
            // Whether it works here is said by a move, which looks no more at the host.
            let _ = self.config.engines.get(kind).map(|e| e.check(self.machine.profile()));
        }
        cage::Needs {
            kvm: can_move || self.engine == EngineKind::Hw,
            code: can_move || self.engine == EngineKind::Full,
            ..cage::Needs::default()
        }
    }

    /// The cage of its process is closed: so much holds. vCPUs' threads give up more.
    ///
    /// # Errors
    /// When a thread has died.
    pub fn enclose(&mut self, level: cage::Level, vcpus: &cage::VcpuFilter) -> Result<(), VmError> {
        self.cpus.narrow(vcpus)?;
        self.cage = CageStatus { holds: level.holds, lacks: level.lacks };
        Ok(())
    }

    /// Runs the VM to its end, on this thread.
    ///
    /// # Errors
    /// When the host or an engine fails. All vCPUs stand then.
    pub fn run(&mut self) -> Result<Outcome, VmError> {
        self.go()?;
        loop {
            let outcome = match self.inbox.wait() {
                Mail::Quit => Some(Outcome::Quit),
                Mail::Machine(event) => self.machine_event(event)?,
                Mail::VcpuStopped => match self.stand()? {
                    None => self.go().map(|()| None)?,
                    outcome => outcome,
                },
                Mail::Request(Request::Agent(request), answer) => {
                    self.ask_agent(request, answer);
                    None
                }
                Mail::Request(request, mut answer) => {
                    let (reply, outcome) = self.serve(&request)?;
                    answer(reply);
                    outcome
                }
            };
            if let Some(outcome) = outcome {
                self.stand()?;
                return Ok(outcome);
            }
        }
    }

    /// Everything as after power-up, and the guest's first instruction next.
    fn boot(&mut self) -> Result<(), VmError> {
        let first = self.machine.boot(self.config.images.as_mut())?;
        let profile = self.machine.profile();
        let mut states = vec![first];
        for id in 1..profile.topology().cores {
            states.push(VcpuState::at_reset(profile, x86_state::VcpuId(id)));
        }
        self.cpus.load(states)
    }

    /// The machine starts anew. The vCPUs must stand; they stand afterwards.
    fn reset(&mut self) -> Result<(), VmError> {
        self.machine.pause_io();
        self.machine.reset();
        self.boot()?;
        // What was said before the reset is about a machine that is no more.
        self.inbox.forget_machine();
        self.resets += 1;
        Ok(())
    }

    /// Clock and vCPUs go on.
    fn go(&mut self) -> Result<(), VmError> {
        self.machine.resume_io();
        self.machine.clock().start();
        self.cpus.start(self.machine.cpus())?;
        self.state = RunState::Running;
        Ok(())
    }

    /// vCPUs and clock stand. A vCPU that had stopped by itself decides what becomes of the VM:
    /// the outcome if it ends, or a machine that has been reset.
    fn stand(&mut self) -> Result<Option<Outcome>, VmError> {
        let stop = self.cpus.stop();
        self.machine.clock().stop();
        self.state = RunState::Paused;
        match stop? {
            Stop::Asked => Ok(None),
            Stop::TripleFault => self.ends_or_resets(Outcome::TripleFault),
            Stop::Failed(source) => Err(VmError::Engine { engine: self.engine, source }),
        }
    }

    fn ends_or_resets(&mut self, outcome: Outcome) -> Result<Option<Outcome>, VmError> {
        match self.config.on_reset {
            OnReset::End => Ok(Some(outcome)),
            OnReset::Restart => self.reset().map(|()| None),
        }
    }

    fn machine_event(&mut self, event: MachineEvent) -> Result<Option<Outcome>, VmError> {
        let was = self.state;
        // What the guest did first counts, even when a CPU has given up since.
        let stopped = self.cpus.stop()?;
        self.machine.clock().stop();
        self.state = RunState::Paused;
        if let Stop::Failed(source) = stopped {
            return Err(VmError::Engine { engine: self.engine, source });
        }
        let outcome = match event {
            MachineEvent::PowerOff => Some(Outcome::PowerOff),
            MachineEvent::DebugExit(value) => Some(Outcome::DebugExit(value)),
            MachineEvent::Reset => self.ends_or_resets(Outcome::Reset)?,
            MachineEvent::Failed(source) => {
                return Err(VmError::Engine { engine: self.engine, source });
            }
        };
        if outcome.is_none() && was == RunState::Running {
            self.go()?;
        }
        Ok(outcome)
    }

    /// Has the guest's agent asked, whatever time it takes.
    fn ask_agent(&self, request: AgentRequest, mut answer: Answering) {
        match &self.config.agent {
            None => {
                let message = "the VM has no port for a guest agent: start it with --agent";
                answer(refused(Refusal::Unsupported, message.to_owned()).into());
            }
            Some(_) if self.state == RunState::Paused => {
                let message = "the VM is paused, and so is its agent: resume it first";
                answer(refused(Refusal::WrongState, message.to_owned()).into());
            }
            Some(agent) => agent.start(request, answer),
        }
    }

    fn ask_balloon(&self, request: BalloonRequest) -> Reply {
        let Some(balloon) = self.machine.balloon() else {
            let message = "the VM has no balloon: start it with --balloon on".to_owned();
            return refused(Refusal::Unsupported, message);
        };
        let memory_bytes = self.machine.ram_bytes();
        if let Some(bytes) = request.target_bytes {
            balloon.set_target(bytes.min(memory_bytes));
        }
        if request.reclaim {
            balloon.reclaim();
        }
        let ((target_bytes, actual_bytes), said) = (balloon.size(), balloon.stats());
        Reply::Balloon(BalloonStatus {
            target_bytes,
            actual_bytes,
            memory_bytes,
            resident_bytes: self.machine.memory().resident_bytes(),
            released_bytes: balloon.released_bytes(),
            free_bytes: said.free_bytes,
            total_bytes: said.total_bytes,
            available_bytes: said.available_bytes,
            cache_bytes: said.cache_bytes,
            swapped_in_bytes: said.swapped_in_bytes,
            swapped_out_bytes: said.swapped_out_bytes,
            major_faults: said.major_faults,
            minor_faults: said.minor_faults,
        })
    }

    /// Does what is asked. The outcome is `Some` when the VM has ended by it, or just then.
    fn serve(&mut self, request: &Request) -> Result<(Answer, Option<Outcome>), VmError> {
        let was = self.state;
        let reply = match (request, was) {
            (Request::Status, _) => Reply::Status(Box::new(self.status())),
            (Request::PowerButton, _) => {
                self.machine.press_power_button();
                Reply::Done
            }
            (Request::Quit, _) => return Ok((Reply::Done.into(), Some(Outcome::Quit))),
            (Request::Screenshot, _) => return Ok((self.screenshot(), None)),
            (Request::Keys { keys }, _) => self.type_keys(keys),
            (Request::Balloon(request), _) => self.ask_balloon(*request),
            (Request::Devices, _) => Reply::Devices(plugging::devices(&self.machine)),
            (
                Request::AddDisk { .. }
                | Request::AddNet { .. }
                | Request::RemoveDevice { .. }
                | Request::GrowDisk { .. }
                | Request::LayDisk { .. },
                _,
            ) => self.plug(request).unwrap_or_else(|error| refusal(&error)),
            // It is another's to ask.
            (Request::Agent(_), _) => refused(Refusal::BadRequest, String::new()),
            (Request::Pause, RunState::Paused) | (Request::Resume, RunState::Running) => {
                refused(Refusal::WrongState, format!("the VM is {was} already"))
            }
            (Request::Resume, RunState::Paused) => {
                reload(&self.machine, &mut self.cpus)?;
                self.go()?;
                Reply::Done
            }
            (Request::Pause | Request::Reset | Request::Move { .. } | Request::Grow { .. }, _) => {
                let (reply, outcome) = self.serve_standing(request, was)?;
                return Ok((reply.into(), outcome));
            }
        };
        Ok((reply.into(), None))
    }

    /// Does what needs the vCPUs to stand. They go on afterwards if they did before, but for a
    /// pause.
    fn serve_standing(
        &mut self,
        request: &Request,
        was: RunState,
    ) -> Result<(Reply, Option<Outcome>), VmError> {
        let begin = Instant::now();
        if let Some(outcome) = self.stand()? {
            let reply = refused(Refusal::WrongState, "the VM has just ended".to_owned());
            return Ok((reply, Some(outcome)));
        }
        let mut old = None;
        let mut reply = match request {
            Request::Reset => self.reset().map(|()| Reply::Done)?,
            Request::Grow { cpus, memory_bytes } => self.grow(*cpus, *memory_bytes)?,
            Request::Move { engine } => match self.move_to(kind(*engine)) {
                Ok((left, moved)) => {
                    old = left;
                    Reply::Moved(moved)
                }
                Err(error @ VmError::Thread { .. }) => return Err(error),
                Err(error) => {
                    reload(&self.machine, &mut self.cpus)?;
                    refusal(&error)
                }
            },
            _ => {
                self.machine.pause_io();
                Reply::Done
            }
        };
        if was == RunState::Running && *request != Request::Pause {
            self.go()?;
        }
        if let Reply::Moved(moved) = &mut reply {
            moved.stopped_us = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        }
        drop(old);
        Ok((reply, None))
    }

    fn move_to(&mut self, to: EngineKind) -> Result<(Option<Arc<dyn CpuComplex>>, Moved), VmError> {
        let engine = self.config.engines.get(to)?;
        let old = change_engine(&self.machine, &mut self.cpus, &engine)?;
        let moved = Moved { from: name(self.engine), to: name(to), stopped_us: 0 };
        self.engine = to;
        self.config.chosen = Chosen { engine, reason: format!("moved from {}", moved.from) };
        self.moves += 1;
        Ok((old, moved))
    }

    fn plug(&mut self, request: &Request) -> Result<Reply, VmError> {
        let (machine, plugger) = (&self.machine, &mut self.config.plugger);
        let name = match request {
            Request::AddDisk { disk, directory, files } => {
                plugger.add_disk(machine, disk, directory, files)?
            }
            Request::AddNet { net, files } => plugger.add_net(machine, net, files)?,
            Request::RemoveDevice { name } => {
                machine.ask_to_go(name)?;
                return Ok(Reply::Done);
            }
            Request::LayDisk { name, over, directory, files } => {
                plugging::lay_disk(machine, name, over, directory, files)?;
                return Ok(Reply::Done);
            }
            Request::GrowDisk { name, size_bytes } => {
                plugging::grow_disk(machine, name, *size_bytes)?;
                return Ok(Reply::Done);
            }
            _ => return Ok(Reply::Done),
        };
        Ok(Reply::Plugged { name })
    }

    /// CPUs and memory come, while the vCPUs stand. CPUs that come are as after reset, whatever the
    /// guest has sent them before they were there.
    fn grow(&mut self, cpus: Option<u32>, memory_bytes: Option<u64>) -> Result<Reply, VmError> {
        let before = self.machine.cpus();
        let more = memory_bytes.map_or(0, |bytes| bytes.saturating_sub(self.machine.ram_bytes()));
        let grown = check_host_memory(more)
            .and_then(|()| {
                memory_bytes.map_or(Ok(()), |bytes| Ok(self.machine.set_ram_bytes(bytes)?))
            })
            .and_then(|()| cpus.map_or(Ok(()), |count| Ok(self.machine.set_cpus(count)?)));
        let profile = self.machine.profile().clone();
        reload_with(&self.machine, &mut self.cpus, |states| {
            let new = (before..self.machine.cpus()).map(x86_state::VcpuId);
            new.for_each(|id| states[id.0 as usize] = VcpuState::at_reset(&profile, id));
        })?;
        Ok(grown.map_or_else(|error| refusal(&error), |()| Reply::Done))
    }

    fn screenshot(&self) -> Answer {
        let Some(desk) = &self.config.desk else { return no_desk().into() };
        let mut picture = Picture::default();
        desk.capture(&mut picture);
        let bytes: Vec<u8> = picture.pixels.iter().flat_map(|pixel| pixel.to_le_bytes()).collect();
        match file_of(&bytes) {
            Ok(file) => {
                let reply = Reply::Screen {
                    width: picture.width as u32, // pictures have 4 Mi pixels at most
                    height: picture.height as u32,
                };
                Answer { reply, file: Some(file) }
            }
            Err(error) => {
                let message = format!("the host has no memory for a screenshot: {error}");
                refused(Refusal::Failed, message).into()
            }
        }
    }

    fn type_keys(&self, keys: &[KeyPress]) -> Reply {
        match &self.config.desk {
            None => no_desk(),
            Some(desk) if desk.type_keys(keys) => Reply::Done,
            Some(_) => {
                let message = "too many keys wait for the guest: try again later".to_owned();
                refused(Refusal::WrongState, message)
            }
        }
    }

    /// How it is.
    pub fn status(&self) -> Status {
        let bus = self.machine.bus_counters();
        let complex = self.machine.socket().complex();
        let footprint = complex.as_ref().map(|complex| complex.footprint()).unwrap_or_default();
        let exits = complex.map(|complex| complex.exits()).unwrap_or_default();
        let exits =
            exits.into_iter().map(|ExitCount { why, count }| vmm_rpc::ExitCount { why, count });
        Status {
            pid: std::process::id(),
            engine: name(self.engine),
            engine_reason: self.config.chosen.reason.clone(),
            cage: self.cage.clone(),
            state: self.state,
            memory_bytes: self.machine.ram_bytes(),
            overhead_bytes: overhead_bytes() + footprint.shared_bytes,
            code_bytes: footprint.code_bytes,
            table_bytes: footprint.table_bytes,
            exits: exits.collect(),
            machine_time_ms: self.machine.clock().now_ns() / 1_000_000,
            resets: self.resets,
            moves: self.moves,
            console_lost_bytes: self.config.outputs.iter().map(|output| output.lost_bytes()).sum(),
            vcpus: self.machine.cpus(),
            room: room(&self.machine),
            port_accesses: bus.ports,
            mmio_accesses: bus.mmio,
            unclaimed_accesses: bus.ports_unclaimed + bus.mmio_unclaimed,
        }
    }
}

fn room(machine: &Machine) -> Room {
    let room = machine.room().unwrap_or_default();
    Room { vcpus: room.cpus, memory_bytes: room.ram_bytes, memory_step_bytes: room.ram_step_bytes }
}

fn no_desk() -> Reply {
    let message = "the VM has no screen: start it with --display vga".to_owned();
    refused(Refusal::Unsupported, message)
}

/// A file in memory, from its beginning.
fn file_of(bytes: &[u8]) -> std::io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("screenshot", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file.into())
}

fn refused(refusal: Refusal, message: String) -> Reply {
    Reply::Refused { refusal, message }
}

fn refusal(error: &VmError) -> Reply {
    let refusal = match error {
        VmError::NotBuilt(..) | VmError::Unsupported(_) => Refusal::Unsupported,
        _ => Refusal::Failed,
    };
    refused(refusal, errchain::Chain(error).to_string())
}

/// Host memory of this process that is not shared with the guest: guest memory is a memfd, which
/// the kernel counts apart (proc(5), `RssShmem`).
fn overhead_bytes() -> u64 {
    let kib = |field| proc::own_kib(field).unwrap_or(0);
    (kib("RssAnon:") + kib("RssFile:")) * 1024
}

#[cfg(test)]
mod tests;
