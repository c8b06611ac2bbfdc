//! One machine and its CPUs.

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use board::{DiskSpec, EventLog, Machine, MachineSpec};
use boot::{Image, Images};
use chipset::ByteSink;
use engine::{Bus, CpuComplex, Engine, Exit, Vcpu};
use engine_emu::EmuEngine;
use guests::Init;
use machine_clock::TimeSource;
use storage::RawDisk;
use tempfile::NamedTempFile;
use virtio::{ConsoleConfig, EntropySource};
use x86_state::{CpuProfile, Topology, VcpuId, VcpuState};

use crate::Saved;

const MEMORY_BYTES: u64 = 160 << 20;
const DISK_BYTES: u64 = 2 << 20;
const TSC_KHZ: u32 = 1_000_000;
/// Drivers of all the machine's devices.
const MODULES: [&str; 4] = ["virtio_pci", "virtio_blk", "virtio_console", "virtio_rng"];

/// A machine with its CPUs and its disk.
pub struct Vm {
    pub(crate) machine: Arc<Machine>,
    pub(crate) vcpus: Vec<Box<dyn Vcpu>>,
    pub(crate) disk: NamedTempFile,
    pub(crate) serial: Arc<Printed>,
    complex: Arc<dyn CpuComplex>,
}

/// What the guest has printed.
#[derive(Default)]
pub(crate) struct Printed(pub(crate) Mutex<Vec<u8>>);

impl ByteSink for Printed {
    fn put(&self, byte: u8) {
        self.0.lock().unwrap().push(byte);
    }
}

impl Vm {
    /// A machine with a disk that is all zero.
    pub fn new(cores: u32) -> Self {
        let disk = NamedTempFile::new().unwrap();
        disk.as_file().set_len(DISK_BYTES).unwrap();
        Self::with_disk(cores, disk)
    }

    /// The CPUs of these machines.
    pub fn profile(cores: u32) -> CpuProfile {
        CpuProfile::portable(Topology { cores }, TSC_KHZ).unwrap()
    }

    pub(crate) fn with_disk(cores: u32, disk: NamedTempFile) -> Self {
        let profile = Self::profile(cores);
        let serial = Arc::new(Printed::default());
        let opened = Arc::new(RawDisk::open(disk.path(), false).unwrap());
        let spec = MachineSpec {
            time: TimeSource::Counted,
            serial: serial.clone(),
            disks: vec![DiskSpec { disk: opened, serial: "disk0".into() }],
            entropy: Some(EntropySource::Seeded(0)),
            console: Some(ConsoleConfig {
                output: Box::new(|_| {}),
                room: Box::new(|| {}),
                size: (80, 25),
            }),
            debug_exit: true,
            testdev: true,
            ..MachineSpec::new(profile, MEMORY_BYTES)
        };
        let machine = Machine::build(spec, EventLog::new()).unwrap();
        let built = EmuEngine.build(machine.profile(), &machine.engine_parts()).unwrap();
        machine.socket().plug(built.complex.clone()).unwrap();
        Self { machine, vcpus: built.vcpus, disk, serial, complex: built.complex }
    }

    /// Loads Debian's cloud kernel with a first process that works with the disk.
    pub fn boot(&mut self) {
        let kernel = guests::kernel("cloud").unwrap();
        let initrd = guests::initrd(&kernel, &MODULES, Init::Work).unwrap();
        let image = |path: &Path| Image::new(path.to_string_lossy(), File::open(path).unwrap());
        let mut images = Images {
            kernel: image(&kernel.image),
            initrd: Some(image(&initrd)),
            cmdline: "console=ttyS0 quiet panic=-1".into(),
            modules: Vec::new(),
        };
        let first = self.machine.boot(Some(&mut images)).unwrap();
        self.vcpus[0].load(&first).unwrap();
        for (id, vcpu) in (0..).map(VcpuId).zip(&mut self.vcpus).skip(1) {
            vcpu.load(&VcpuState::at_reset(self.machine.profile(), id)).unwrap();
        }
    }

    /// Lets the machine run for so much of its time.
    pub fn run_ms(&mut self, ms: u64) {
        let (clock, complex) = (self.machine.clock().clone(), self.complex.clone());
        let cores = self.machine.profile().topology().cores;
        let kick_all = move || (0..cores).for_each(|id| complex.kick(VcpuId(id)));
        let end = clock.timer(kick_all.clone());
        end.set(Some(clock.now_ns() + ms * 1_000_000));
        let bus: Arc<dyn Bus> = self.machine.clone();
        self.machine.resume_io();
        clock.start();
        thread::scope(|scope| {
            for vcpu in &mut self.vcpus {
                let (bus, kick_all) = (bus.clone(), kick_all.clone());
                scope.spawn(move || {
                    let exit = vcpu.run(&bus).unwrap();
                    if exit != Exit::Kicked {
                        // The others would wait for it.
                        kick_all();
                        panic!("it ended with {exit:?}");
                    }
                });
            }
        });
        clock.stop();
    }

    /// What the guest has printed.
    pub fn printed(&self) -> String {
        String::from_utf8_lossy(&self.serial.0.lock().unwrap()).into_owned()
    }

    /// All of it, as it stands; its devices stand still until [`Vm::run_ms`].
    pub fn save(&mut self) -> Saved {
        Saved::of(self)
    }

    /// The board, as a guest sees it.
    pub fn bus(&self) -> &dyn Bus {
        &*self.machine
    }

    /// The machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Puts a state into one vCPU.
    pub fn set_vcpu(&mut self, id: usize, state: &VcpuState) {
        self.vcpus[id].load(state).unwrap();
    }

    /// State of one vCPU.
    pub fn vcpu(&mut self, id: usize) -> VcpuState {
        self.vcpus[id].save().unwrap()
    }
}
