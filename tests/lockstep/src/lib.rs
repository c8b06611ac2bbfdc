//! Boots a guest on [`CheckedEngine`]: whatever translated code does, the interpreter does again on
//! a copy of the guest's memory, and both must come to the same registers and memory.
//!
//! The machine has no device that writes memory by itself: only then does a stretch of translated
//! code depend on nothing but its beginning.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod show;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use board::{EventLog, Machine, MachineSpec};
use boot::{Image, Images};
use chipset::ByteSink;
use engine::{Bus, Engine, Exit};
use engine_full::{Checked, CheckedEngine, Divergence};
use machine_clock::TimeSource;
use x86_state::{CpuProfile, Topology, VcpuId};

pub use show::show;

/// How often the clock's timers are looked at.
const TICK: Duration = Duration::from_millis(1);
const TSC_KHZ: u32 = 1_000_000;

/// What to boot, and how far.
pub struct Guest {
    /// The kernel's image.
    pub kernel: PathBuf,
    /// Its RAM disk.
    pub initrd: PathBuf,
    /// Its command line, with a console on the serial port.
    pub cmdline: String,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// The end: a text on the console.
    pub until: String,
    /// How long that may take.
    pub limit: Duration,
    /// See [`CheckedEngine::by_unit`].
    pub by_unit: bool,
    /// See [`CheckedEngine::code_bytes`].
    pub code_bytes: usize,
}

/// What came of it.
#[derive(Debug)]
pub struct Compared {
    /// What was checked.
    pub checked: Arc<Checked>,
    /// The first divergence.
    pub divergence: Option<Divergence>,
    /// The guest came to its end.
    pub is_whole: bool,
}

/// What the guest has printed; shown as it comes.
struct Printed {
    text: Mutex<Vec<u8>>,
    until: Vec<u8>,
    ends: Arc<AtomicBool>,
    shows: bool,
}

impl ByteSink for Printed {
    fn put(&self, byte: u8) {
        let mut text = self.text.lock().unwrap();
        text.push(byte);
        if text.ends_with(&self.until) {
            self.ends.store(true, Ordering::SeqCst);
        }
        if self.shows {
            let _ = std::io::stderr().write_all(&[byte]);
        }
    }
}

/// Boots the guest, up to its end or the first divergence.
///
/// # Panics
/// When there is no such guest, or the host refuses.
pub fn run(guest: &Guest, shows: bool) -> Compared {
    let ends = Arc::new(AtomicBool::new(false));
    let printed = Arc::new(Printed {
        text: Mutex::default(),
        until: guest.until.clone().into_bytes(),
        ends: ends.clone(),
        shows,
    });
    let divergence = Arc::new(Mutex::new(None));
    let (found, stop) = (divergence.clone(), ends.clone());
    let engine = CheckedEngine {
        by_unit: guest.by_unit,
        code_bytes: guest.code_bytes,
        checked: Arc::default(),
        tell: Arc::new(move |divergence| {
            found.lock().unwrap().get_or_insert(divergence);
            stop.store(true, Ordering::SeqCst);
        }),
    };
    let profile = CpuProfile::portable(Topology { cores: 1 }, TSC_KHZ).unwrap();
    let spec = MachineSpec {
        time: TimeSource::Host,
        serial: printed.clone(),
        ..MachineSpec::new(profile, guest.memory_bytes)
    };
    let machine = Machine::build(spec, EventLog::new()).unwrap();
    let built = engine.build(machine.profile(), &machine.engine_parts()).unwrap();
    machine.socket().plug(built.complex.clone()).unwrap();
    let image = |path: &Path| Image::new(path.to_string_lossy(), File::open(path).unwrap());
    let mut images = Images {
        kernel: image(&guest.kernel),
        initrd: Some(image(&guest.initrd)),
        cmdline: guest.cmdline.clone(),
        modules: Vec::new(),
    };
    let first = machine.boot(Some(&mut images)).unwrap();
    let mut vcpus = built.vcpus;
    vcpus[0].load(&first).unwrap();
    let bus: Arc<dyn Bus> = machine.clone();
    machine.resume_io();
    machine.clock().start();
    let begin = Instant::now();
    thread::scope(|scope| {
        let runner = scope.spawn(|| vcpus[0].run(&bus).unwrap());
        while !runner.is_finished() {
            machine.clock().fire_due();
            if ends.load(Ordering::SeqCst) || begin.elapsed() > guest.limit {
                built.complex.kick(VcpuId(0));
            }
            thread::sleep(TICK);
        }
        assert_eq!(runner.join().unwrap(), Exit::Kicked);
    });
    let is_whole = begin.elapsed() <= guest.limit;
    let divergence = divergence.lock().unwrap().take();
    Compared { checked: engine.checked.clone(), divergence, is_whole }
}
