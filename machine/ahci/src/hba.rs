//! The controller: its registers, its place on PCI, and its interrupt.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use bus::{BusDevice, Device, MsiSink, Saved, Section, SectionError};
use evloop::EventLoop;
use guest_memory::GuestMemory;
use pci::{
    Bar, BarKind, Capability, Function, FunctionDevice, FunctionSpec, Identity, Intx, MsiVector,
    Spaces,
};
use storage::{Disk, Lane};

use crate::port::{Job, Port};
use crate::spec::*;
use crate::state::{HostState, SavedHost};

/// Ports of the controller: those of an ICH9.
pub const PORTS_MAX: usize = 6;
/// ABAR and its size.
const BAR: usize = 5;
const BAR_SIZE: u64 = 0x1000;
/// Serial ATA capability: revision 1.0, no index-data pair.
const CAPABILITY_SATA: u8 = 0x12;

/// What is behind a port.
#[derive(Clone)]
pub enum Drive {
    /// An ATA disk.
    Disk {
        /// The medium.
        disk: Arc<dyn Disk>,
        /// Its serial number; 20 bytes at most are kept.
        serial: String,
    },
    /// An ATAPI CD-ROM drive.
    Cdrom {
        /// The disc, if there is one in it.
        disk: Option<Arc<dyn Disk>>,
        /// Its serial number; 20 bytes at most are kept.
        serial: String,
    },
}

impl Drive {
    fn disk(&self) -> Option<&Arc<dyn Disk>> {
        match self {
            Self::Disk { disk, .. } => Some(disk),
            Self::Cdrom { disk, .. } => disk.as_ref(),
        }
    }
}

/// What connects the controller with the machine.
#[derive(Clone)]
pub struct AhciWiring {
    /// Guest memory.
    pub memory: Arc<GuestMemory>,
    /// Where the BAR is mapped.
    pub spaces: Spaces,
    /// Where interrupts go.
    pub msi: Arc<dyn MsiSink>,
    /// A loop to wait for the host on; without one, commands are done inside the register write.
    pub event_loop: Option<EventLoop>,
}

/// A SATA controller on PCI.
pub struct Ahci {
    function: Arc<Function>,
    hba: Arc<Hba>,
}

struct Hba {
    // Fixed configuration.
    drives: Vec<Drive>,
    // Wiring.
    memory: Arc<GuestMemory>,
    msi: Arc<MsiVector>,
    intx: Arc<Intx>,
    /// One for each port with a medium.
    lanes: OnceLock<Vec<Option<Lane<Box<Job>>>>>,
    /// How often each port was to be looked at since somebody began to.
    turns: [AtomicU32; PORTS_MAX],
    // State.
    registers: Mutex<Registers>,
    bus_master: AtomicBool,
    paused: AtomicBool,
}

struct Registers {
    ghc: u32,
    is: u32,
    ports: Vec<Port>,
}

/// What follows from a register write, without the lock.
enum Effect {
    Nothing,
    /// The port may have something to do.
    Run(usize),
    /// The list is to be forgotten once what is in flight has ended.
    Stop(usize),
    /// The controller is to be as after power-up.
    Reset,
}

impl Ahci {
    /// A controller with these drives at its first ports.
    ///
    /// # Panics
    /// When there are more than [`PORTS_MAX`]: the board's mistake.
    pub fn new(drives: Vec<Drive>, wiring: &AhciWiring) -> Arc<Self> {
        assert!(drives.len() <= PORTS_MAX, "{} drives at one controller", drives.len());
        let (msi, intx) = (MsiVector::new(wiring.msi.clone()), Intx::new());
        let registers = Registers::at_reset(&drives);
        let hba = Arc::new(Hba {
            drives,
            memory: wiring.memory.clone(),
            msi: msi.clone(),
            intx: intx.clone(),
            lanes: OnceLock::new(),
            turns: Default::default(),
            registers: Mutex::new(registers),
            bus_master: AtomicBool::new(false),
            paused: AtomicBool::new(false),
        });
        let lane = |(port, drive): (usize, &Drive)| {
            let weak = Arc::downgrade(&hba);
            let disk = drive.disk()?.clone();
            Some(Lane::new(disk, wiring.event_loop.as_ref(), move |done| {
                if let Some(hba) = Weak::upgrade(&weak) {
                    hba.finish(port, done);
                }
            }))
        };
        let lanes = hba.drives.iter().enumerate().map(lane).collect();
        assert!(hba.lanes.set(lanes).is_ok(), "lanes are made once");
        let spec = FunctionSpec {
            identity: Identity {
                vendor_id: 0x8086,
                device_id: 0x2922,
                class: 0x01_0601,
                revision: 2,
                subsystem_vendor_id: 0x1af4,
                subsystem_id: 0x1100,
            },
            bars: vec![Bar {
                index: BAR,
                kind: BarKind::Memory32,
                size_bytes: BAR_SIZE,
                device: hba.clone(),
            }],
            capabilities: vec![Capability::read_only(CAPABILITY_SATA, vec![0x10, 0, 0, 0, 0, 0])],
            msi: Some(msi),
            intx: Some(intx),
            ..FunctionSpec::default()
        };
        let function = Function::new(&spec, &wiring.spaces, hba.clone());
        Arc::new(Self { function, hba })
    }

    /// The function to plug into a bus. It is saved, restored and reset apart from the device.
    pub fn function(&self) -> &Arc<Function> {
        &self.function
    }

    /// Ends service: when it returns, nothing is in flight and guest memory is left alone.
    pub fn pause(&self) {
        self.hba.paused.store(true, Ordering::SeqCst);
        // Whoever was starting commands has finished.
        drop(self.hba.registers());
        (0..PORTS_MAX).for_each(|port| self.hba.drain(port));
    }

    /// Begins service again. Also to be called after a restore.
    pub fn resume(&self) {
        self.hba.paused.store(false, Ordering::SeqCst);
        (0..PORTS_MAX).for_each(|port| self.hba.run(port));
    }
}

impl Registers {
    fn at_reset(drives: &[Drive]) -> Self {
        let port = |port: usize| {
            let mut fresh = Port::default();
            fresh.state.cmd = CMD_SUD | CMD_POD;
            if matches!(drives.get(port), Some(Drive::Cdrom { .. })) {
                fresh.state.cmd |= CMD_ATAPI;
            }
            fresh.reset_device(drives.get(port));
            fresh
        };
        Self { ghc: GHC_AE, is: 0, ports: (0..PORTS_MAX).map(port).collect() }
    }

    fn read(&self, offset: u64, drives: &[Drive]) -> u32 {
        match offset {
            CAP => CAP_VALUE | (PORTS_MAX as u32 - 1),
            GHC => self.ghc,
            IS => self.is,
            PI => (1 << PORTS_MAX) - 1,
            VS => VS_VALUE,
            PORTS.. => {
                let index = ((offset - PORTS) / PORT_SIZE) as usize;
                let Some(port) = self.ports.get(index) else { return 0 };
                let state = &port.state;
                match (offset - PORTS) % PORT_SIZE {
                    PXCLB => state.clb as u32,
                    PXCLBU => (state.clb >> 32) as u32,
                    PXFB => state.fb as u32,
                    PXFBU => (state.fb >> 32) as u32,
                    PXIS => state.is,
                    PXIE => state.ie,
                    PXCMD => state.cmd,
                    PXTFD => state.tfd,
                    PXSIG => state.sig,
                    PXSSTS => match (drives.get(index), state.sctl & SCTL_DET) {
                        (None, _) | (_, 4) => 0,
                        (Some(_), 1) => 1,
                        (Some(_), _) => SSTS_PRESENT,
                    },
                    PXSCTL => state.sctl,
                    PXSERR => state.serr,
                    PXSACT => state.sact,
                    PXCI => state.ci,
                    _ => 0,
                }
            }
            _ => 0,
        }
    }

    fn write(&mut self, offset: u64, value: u32, drives: &[Drive]) -> Effect {
        match offset {
            GHC if value & GHC_HR != 0 => return Effect::Reset,
            GHC => self.ghc = value & GHC_IE | GHC_AE,
            IS => self.is &= !value,
            PORTS.. => {
                let index = ((offset - PORTS) / PORT_SIZE) as usize;
                if let Some(port) = self.ports.get_mut(index) {
                    let register = (offset - PORTS) % PORT_SIZE;
                    return write_port(port, register, value, drives.get(index), index);
                }
            }
            _ => {}
        }
        Effect::Nothing
    }

    /// Ports whose interrupts are wanted show in IS; true when one is new there (10.6.2.1).
    fn sync(&mut self) -> bool {
        let wanting =
            |(index, port): (usize, &Port)| u32::from(port.state.is & port.state.ie != 0) << index;
        let wanted = self.ports.iter().enumerate().map(wanting).fold(0, |all, bit| all | bit);
        let new = wanted & !self.is != 0;
        self.is |= wanted;
        new
    }
}

fn low(register: &mut u64, value: u32, mask: u32) {
    *register = *register & !0xffff_ffff | u64::from(value & mask);
}

fn high(register: &mut u64, value: u32) {
    *register = *register & 0xffff_ffff | u64::from(value) << 32;
}

fn write_port(
    port: &mut Port,
    register: u64,
    value: u32,
    drive: Option<&Drive>,
    index: usize,
) -> Effect {
    let state = &mut port.state;
    match register {
        PXCLB => low(&mut state.clb, value, !0x3ff),
        PXCLBU => high(&mut state.clb, value),
        PXFB => low(&mut state.fb, value, !0xff),
        PXFBU => high(&mut state.fb, value),
        PXIS => state.is &= !value,
        PXIE => state.ie = value & IE_WRITABLE,
        PXCMD => {
            let was = state.cmd;
            state.cmd = was & !CMD_WRITABLE | value & CMD_WRITABLE;
            if value & CMD_CLO != 0 && was & CMD_ST == 0 {
                state.tfd &= !(0x80 | u32::from(ST_DRQ));
            }
            state.cmd = state.cmd & !CMD_FR | if state.cmd & CMD_FRE != 0 { CMD_FR } else { 0 };
            if was & CMD_ST != 0 && value & CMD_ST == 0 {
                return Effect::Stop(index);
            }
            if state.cmd & CMD_ST != 0 {
                state.cmd |= CMD_CR;
            }
            return Effect::Run(index);
        }
        PXSCTL => {
            let was = state.sctl & SCTL_DET;
            state.sctl = value & 0xfff;
            match (was, value & SCTL_DET) {
                (_, 1) => (state.tfd, state.sig) = (TFD_NONE, SIG_NONE),
                (1, 0) => {
                    port.reset_device(drive);
                    return Effect::Run(index);
                }
                _ => {}
            }
        }
        PXSERR => state.serr &= !value,
        PXSACT => state.sact |= if state.cmd & CMD_ST != 0 { value } else { 0 },
        PXCI => {
            state.ci |= if state.cmd & CMD_ST != 0 { value } else { 0 };
            return Effect::Run(index);
        }
        _ => {}
    }
    Effect::Nothing
}

impl Hba {
    fn registers(&self) -> MutexGuard<'_, Registers> {
        self.registers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lane(&self, port: usize) -> Option<&Lane<Box<Job>>> {
        self.lanes.get()?.get(port)?.as_ref()
    }

    fn drain(&self, port: usize) {
        if let Some(lane) = self.lane(port) {
            lane.drain();
        }
    }

    /// Has the port begin what it can. Commands may end meanwhile and make room for others: whoever
    /// began to look goes on, so that nobody calls himself.
    fn run(&self, port: usize) {
        let turns = &self.turns[port];
        if turns.fetch_add(1, Ordering::SeqCst) != 0 {
            return;
        }
        let mut seen = 1;
        loop {
            self.turn(port);
            match turns.compare_exchange(seen, 0, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return,
                Err(now) => seen = now,
            }
        }
    }

    fn turn(&self, port: usize) {
        if self.paused.load(Ordering::SeqCst) || !self.bus_master.load(Ordering::SeqCst) {
            return;
        }
        let memory = self.memory.dma();
        let mut registers = self.registers();
        // Looked at again under the lock, which a pause takes after it has set it.
        if !self.paused.load(Ordering::SeqCst)
            && let Some(found) = registers.ports.get_mut(port)
        {
            let mut push = |job| {
                if let Some(lane) = self.lane(port) {
                    lane.push(job);
                }
            };
            found.run(&memory, self.drives.get(port), &mut push);
        }
        self.interrupt(registers);
        if let Some(lane) = self.lane(port) {
            lane.submit();
        }
    }

    fn interrupt(&self, mut registers: MutexGuard<'_, Registers>) {
        let new = registers.sync();
        let enabled = registers.ghc & GHC_IE != 0;
        if new && enabled {
            self.msi.notify();
        }
        self.intx.update(|| enabled && registers.is != 0);
    }

    fn finish(&self, port: usize, done: &mut storage::Done<Box<Job>>) {
        let memory = self.memory.dma();
        let mut registers = self.registers();
        if let Some(found) = registers.ports.get_mut(port) {
            done.drain(..).for_each(|(job, result)| found.finish(job, &result, &memory));
        }
        let more = registers.ports.get(port).is_some_and(Port::has_more);
        self.interrupt(registers);
        if more {
            self.run(port);
        }
    }

    /// The driver has cleared ST: it may use the list's memory when CR is clear.
    fn stop(&self, port: usize) {
        self.drain(port);
        let mut registers = self.registers();
        if let Some(found) = registers.ports.get_mut(port)
            && found.state.cmd & CMD_ST == 0
        {
            found.clear_list();
            found.state.cmd &= !(CMD_CR | 0x1f << CMD_CCS_SHIFT);
        }
    }

    fn reset(&self) {
        let stop = |port: &mut Port| port.state.cmd &= !(CMD_ST | CMD_CR);
        self.registers().ports.iter_mut().for_each(stop);
        (0..PORTS_MAX).for_each(|port| self.drain(port));
        let mut registers = self.registers();
        let mut fresh = Registers::at_reset(&self.drives);
        // A reset of the controller neither loads nor unlocks a disc.
        for (new, old) in fresh.ports.iter_mut().zip(&registers.ports) {
            new.state.cd = old.state.cd.clone();
        }
        *registers = fresh;
        self.interrupt(registers);
    }

    fn follow(&self, effect: Effect) {
        match effect {
            Effect::Nothing => {}
            Effect::Run(port) => self.run(port),
            Effect::Stop(port) => self.stop(port),
            Effect::Reset => self.reset(),
        }
    }
}

impl BusDevice for Hba {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let registers = self.registers();
        for (n, byte) in (0u64..).zip(data) {
            let at = offset + n;
            let value = registers.read(at & !3, &self.drives);
            *byte = value.to_le_bytes()[(at & 3) as usize];
        }
    }

    /// Registers are written whole (3 of the specification).
    fn write(&self, offset: u64, data: &[u8]) {
        if !offset.is_multiple_of(4) {
            return;
        }
        for (n, word) in (0u64..).zip(data.as_chunks::<4>().0) {
            let mut registers = self.registers();
            let effect = registers.write(offset + 4 * n, u32::from_le_bytes(*word), &self.drives);
            self.interrupt(registers);
            self.follow(effect);
        }
    }
}

impl FunctionDevice for Hba {
    fn bus_master_set(&self, on: bool) {
        self.bus_master.store(on, Ordering::SeqCst);
        if on {
            (0..PORTS_MAX).for_each(|port| self.run(port));
        }
    }
}

impl Device for Ahci {
    fn reset(&self) {
        self.hba.reset();
        // Power-up closes trays.
        for port in &mut self.hba.registers().ports {
            port.state.cd = Default::default();
        }
    }

    fn save(&self) -> Section {
        let Registers { ghc, is, ports } = &*self.hba.registers();
        let ports = ports.iter().map(|port| port.state.clone()).collect();
        Section::encode(&SavedHost::from(&HostState { ghc: *ghc, is: *is, ports }))
    }

    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        let HostState { ghc, is, ports } = section.decode::<SavedHost>()?.try_into()?;
        if ports.len() != PORTS_MAX {
            let reason = format!("{} ports instead of {PORTS_MAX}", ports.len());
            return Err(SectionError::Impossible { kind: SavedHost::KIND, reason });
        }
        let mut registers = self.hba.registers();
        (registers.ghc, registers.is) = (ghc, is);
        for (port, state) in registers.ports.iter_mut().zip(ports) {
            port.clear_list();
            port.state = state;
        }
        let wanted = registers.ghc & GHC_IE != 0 && registers.is != 0;
        self.hba.intx.update(|| wanted);
        Ok(())
    }
}
