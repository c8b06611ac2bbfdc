//! From what an operator asks for to a VM that is ready to run.

use std::fs::{self, File};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{SystemTime, UNIX_EPOCH};

use board::{
    DisplaySpec, Extras, FirmwareSpec, HotplugSpec, Machine, MachineSpec, NetModel, Prepared,
    StartError,
};
use boot::Images;
use engine::{Engine, EngineKind};
use engine_emu::EmuEngine;
use engine_full::FullEngine;
use engine_hw::{HwEngine, Probe};
use machine_clock::{MachineClock, TimeSource};
use virtio::{ConsoleConfig, Dispatch, EntropySource};
use x86_state::{CpuProfile, ProfileError, Topology};

use crate::agent::AgentService;
use crate::images::{self, InitrdCheck};
use crate::{
    Console, ConsoleSpec, Desk, EngineChoice, Engines, Inbox, Io, IoThread, OnReset, Output,
    Plugger, Vm, VmConfig, VmError, VmSpec,
};
use crate::{disks, firmware, networks, proc, viewers};

/// The TSC's rate where there is no KVM to say the host's: one tick a nanosecond.
const TSC_KHZ_WITHOUT_KVM: u32 = 1_000_000;
/// Threads that serve virtio queues: as many as a disk or a network card has queues at most.
const VIRTIO_THREADS_MAX: u32 = 4;
/// Columns and rows of a console whose terminal is not asked.
const CONSOLE_SIZE: (u16, u16) = (80, 25);

/// Width and height of the screen that a kernel finds.
const SCREEN_SIZE: (u16, u16) = (1024, 768);

/// Where distributions have the display adapter's BIOS.
const VGA_BIOS: [&str; 2] =
    ["/usr/share/seabios/vgabios-stdvga.bin", "/usr/share/qemu/vgabios-stdvga.bin"];

/// A VM that is ready to run, and what belongs to it.
pub struct Launched {
    /// It. Its guest's first instruction comes with [`Vm::run`].
    pub vm: Vm,
    /// Its time, for [`Io::serve_clock`].
    pub clock: Arc<MachineClock>,
    /// Its consoles: the serial port, and the virtio console if it has one.
    pub consoles: Vec<Console>,
    /// Its screen and keyboard, if it has them, for [`Io::serve_desk`].
    pub desk: Option<Arc<Desk>>,
    /// Who lets viewers in, for as long as it lives.
    pub viewers: Vec<rfb::Server>,
    /// What to flush at the end.
    pub outputs: Vec<Arc<Output>>,
    /// The engine and why it, in one line.
    pub engine: String,
}

/// Builds a VM. `inbox` will be its owner's.
///
/// # Errors
/// When a file or a number is not what it must be, or the host or the engine refuses. Nothing is
/// left behind then.
pub fn launch(spec: VmSpec, inbox: &Arc<Inbox>) -> Result<Launched, VmError> {
    let mut images = images::open(&spec)?;
    let firmware = firmware::open(&spec, images.as_mut())?;
    if firmware.is_some() {
        // What there is of a kernel, firmware has now.
        images = None;
    }
    check_host_memory(spec.memory_bytes)?;
    let initrd = InitrdCheck::begin(&spec)?;
    let hw = Arc::new(HwEngine::new());
    // Only a VM tells the rate, and the host's kernel waits milliseconds while it makes one:
    // meanwhile, the guest's kernel is read.
    let (asked, (tell, told)) = (hw.clone(), channel());
    let choice = engine_choice(&spec)?;
    let ask = move || {
        // Where nobody waits any more, the launch has failed.
        let _ = tell.send(asked.tsc_khz().unwrap_or(TSC_KHZ_WITHOUT_KVM));
        if choice == EngineChoice::Auto {
            asked.probe();
        }
    };
    let (dispatch, threads) = dispatch(&spec, ask)?;
    let memory = prepare(&spec, firmware.as_ref(), images.as_mut())?;
    let tsc_khz = told.recv().unwrap_or(TSC_KHZ_WITHOUT_KVM);
    let profile = cpu_profile(&hw, &spec, tsc_khz)?;
    let engines = engines(hw);
    let chosen = engines.choose(choice, &profile)?;
    let engine = format!("engine {}: {}", chosen.engine.kind(), chosen.reason);

    let mut parts = machine_spec(&spec, profile)?;
    // A screen comes with a keyboard.
    parts.legacy = match &mut images {
        Some(images) => {
            let pins = spec.nets.iter().any(|net| net.model == NetModel::E1000);
            let tables = boot::reads_tables(&mut images.kernel).map_err(StartError::Boot)?;
            spec.display || pins || !tables
        }
        None => true,
    };
    let restarts = if firmware.is_some() { OnReset::Restart } else { OnReset::End };
    let on_reset = spec.on_reset.unwrap_or(restarts);
    if firmware.is_some() {
        // The VGA BIOS reads what is there past the limits of real mode, which firmware of the
        // distribution's lifts before it calls it. U-Boot does not: there, that would be its end.
        let registers = !matches!(spec.firmware, Some(firmware::FirmwareSource::File(_)));
        let rom = firmware::vga_rom();
        parts.display = parts.display.map(|_| DisplaySpec { rom, registers, mode: None });
    }
    parts.firmware = firmware;
    let mut serial = Console::new(&spec.serial)?;
    parts.serial = serial.sink();
    let mut virtio = match &spec.console {
        ConsoleSpec::None => None,
        to => Some(Console::new(to)?),
    };
    parts.console = virtio.as_ref().map(console_config);
    let agent = spec.agent.then(AgentService::new);
    parts.ports = agent.iter().map(|agent| agent.port()).collect();
    parts.vsock = networks::open_vsock(&spec, &dispatch)?;
    let debugcon = match &spec.debugcon {
        ConsoleSpec::None => None,
        to => Some(Console::new(to)?),
    };
    parts.debugcon = debugcon.as_ref().map(Console::sink);
    parts.nets = networks::open(&spec, &dispatch)?;
    let plugger = Plugger::new(&spec, &dispatch);
    parts.dispatch = dispatch;
    let machine = Machine::build_with(parts, memory, inbox.clone())?;

    let (uart, room) = (machine.uart().clone(), serial.room().clone());
    uart.set_on_room(move || room.signal());
    serial.set_typing(move |bytes| uart.receive(bytes));
    if let (Some(console), Some(device)) = (&mut virtio, machine.console().cloned()) {
        console.set_typing(move |bytes| device.input(bytes));
    }
    if let (Some(agent), Some(device)) = (&agent, machine.ports().cloned()) {
        agent.connect(device);
    }
    let consoles: Vec<_> = [Some(serial), virtio, debugcon].into_iter().flatten().collect();
    let outputs: Vec<_> = consoles.iter().filter_map(|c| c.output().cloned()).collect();
    let clock = machine.clock().clone();
    let no_event = |source| VmError::Host { operation: "make an event", source };
    let desk = Desk::new(&machine).map_err(no_event)?;
    let viewers =
        desk.as_ref().map_or_else(|| Ok(Vec::new()), |desk| viewers::open(&spec.viewers, desk))?;
    let outputs_of = outputs.clone();
    let config = VmConfig {
        chosen,
        engines,
        images,
        on_reset,
        outputs: outputs_of,
        desk: desk.clone(),
        agent,
        plugger,
        threads,
    };
    initrd.finish()?;
    let vm = Vm::new(machine, inbox.clone(), config)?;
    Ok(Launched { vm, clock, consoles, outputs, desk, viewers, engine })
}

/// Guest memory with what is to be booted in it.
fn prepare(
    spec: &VmSpec,
    firmware: Option<&FirmwareSpec>,
    images: Option<&mut Images<File>>,
) -> Result<Prepared, VmError> {
    let extras = Extras {
        testdev: spec.testdev,
        display: spec.display,
        memory_bytes_max: spec.memory_bytes_max.unwrap_or(0),
        ..Extras::default()
    };
    let extras = firmware.map_or(extras, |firmware| extras.with_firmware(firmware));
    let mut memory = Prepared::new(spec.memory_bytes, extras)?;
    images.map(|images| memory.load(images)).transpose()?;
    Ok(memory)
}

/// The profile that is asked for, without PCID on hosts whose hardware has none: the VM can then run
/// on all engines of this host.
fn cpu_profile(hw: &HwEngine, spec: &VmSpec, tsc_khz: u32) -> Result<CpuProfile, ProfileError> {
    let cores = spec.cpus_max.unwrap_or(spec.cpus);
    let profile = CpuProfile::portable(Topology { cores }, tsc_khz)?;
    let profile = profile.without(spec.cpu.without);
    let without = profile.clone().without_pcid();
    let only_without = hw.check(&profile).is_err() && hw.check(&without).is_ok();
    Ok(if only_without { without } else { profile })
}

/// The engines of this program, the best first.
fn engines(hw: Arc<HwEngine>) -> Engines {
    let mut engines = Engines::new();
    let probed = hw.clone();
    engines.add(hw, move || match probed.probe() {
        probe @ Probe::Usable { .. } => Ok(probe.to_string()),
        probe => Err(probe.to_string()),
    });
    engines.add(Arc::new(FullEngine), || Ok("it needs no hardware virtualization".to_owned()));
    engines.add(Arc::new(EmuEngine), || Ok("it runs everywhere".to_owned()));
    engines
}

/// Only the interpreter counts instructions.
fn engine_choice(spec: &VmSpec) -> Result<EngineChoice, VmError> {
    let emu = EngineChoice::Fixed(EngineKind::Emu);
    match spec.engine {
        choice if !spec.deterministic => Ok(choice),
        EngineChoice::Auto => Ok(emu),
        choice if choice == emu => Ok(emu),
        _ => Err(VmError::NotDeterministic),
    }
}

/// The machine, but for what its devices are connected with.
fn machine_spec(spec: &VmSpec, profile: CpuProfile) -> Result<MachineSpec, VmError> {
    let mut parts = MachineSpec::new(profile, spec.memory_bytes);
    let can_grow = spec.cpus_max.is_some() || spec.memory_bytes_max.is_some();
    parts.hotplug = (spec.hotplug || can_grow).then(|| HotplugSpec {
        cpus: spec.cpus,
        memory_bytes_max: spec.memory_bytes_max.unwrap_or(0),
    });
    parts.debug_exit = spec.debug_exit;
    parts.testdev = spec.testdev;
    parts.balloon = spec.balloon;
    parts.entropy = Some(EntropySource::Host);
    parts.rtc_start_unix_s = wall_clock_unix_s();
    if spec.deterministic {
        parts.time = TimeSource::Counted;
        parts.entropy = Some(EntropySource::Seeded(0));
        parts.rtc_start_unix_s = 0;
    }
    disks::open(spec, &mut parts)?;
    if spec.display {
        // For firmware; where the host has none, BIOS shows nothing.
        let rom = VGA_BIOS.iter().find_map(|path| fs::read(path).ok());
        parts.display = Some(DisplaySpec { rom, registers: true, mode: Some(SCREEN_SIZE) });
    }
    Ok(parts)
}

/// A host whose clock is before 1970 has none to speak of.
#[expect(clippy::disallowed_methods, reason = "the RTC's configuration")]
fn wall_clock_unix_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

fn console_config(console: &Console) -> ConsoleConfig {
    let (output, room) = (console.output().cloned(), console.room().clone());
    ConsoleConfig {
        output: Box::new(move |bytes| {
            if let Some(output) = &output {
                output.put(bytes);
            }
        }),
        room: Box::new(move || room.signal()),
        size: CONSOLE_SIZE,
    }
}

/// Virtio queues are served on threads of their own, because disks block; where a run is to be
/// the same each time, on the vCPU's. The first thread does `first` before it serves.
fn dispatch(
    spec: &VmSpec,
    first: impl FnOnce() + Send + 'static,
) -> Result<(Dispatch, Vec<IoThread>), VmError> {
    if spec.deterministic {
        first();
        return Ok((Dispatch::Inline, Vec::new()));
    }
    let devices = spec.disks.len() + spec.nets.len() + spec.cdroms.len();
    let idle = devices == 0 && spec.seed.is_none();
    let count = if idle { 1 } else { spec.cpus.clamp(1, VIRTIO_THREADS_MAX) };
    let (mut loops, mut threads) = (Vec::new(), Vec::new());
    let mut first = Some(first);
    for n in 0..count {
        let io = Io::new()?;
        loops.push(io.event_loop().clone());
        threads.push(io.start_after(&format!("virtio{n}"), first.take())?);
    }
    Ok((Dispatch::Loops(loops), threads))
}

/// Guest memory is taken as the guest touches it, and a host that then has none left kills the
/// process. What it can never have is refused here.
pub(crate) fn check_host_memory(asked_bytes: u64) -> Result<(), VmError> {
    let Some(ram) = proc::host_kib("MemTotal:") else { return Ok(()) };
    let has_bytes = (ram + proc::host_kib("SwapTotal:").unwrap_or(0)) * 1024;
    if asked_bytes > has_bytes {
        return Err(VmError::HostMemory { asked_mib: asked_bytes >> 20, has_mib: has_bytes >> 20 });
    }
    Ok(())
}
