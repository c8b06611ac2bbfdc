//! The card: its place on PCI, its lock, and who runs its rings.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bus::{BusDevice, Device, Section, SectionError};
use evloop::{Event, EventLoop, Interest, Registration};
use guest_memory::GuestMemory;
use net::{Mac, Network, Offloads};
use pci::{Bar, BarKind, Function, FunctionDevice, FunctionSpec, Identity, Intx, Spaces};

use crate::receive::{self, Received};
use crate::registers::Effect;
use crate::spec::*;
use crate::state::{SavedState, State};
use crate::transmit::{self, Turn};

/// What connects the card with the machine.
#[derive(Clone)]
pub struct E1000Wiring {
    /// Guest memory.
    pub memory: Arc<GuestMemory>,
    /// Where the BARs are mapped.
    pub spaces: Spaces,
    /// Where frames go.
    pub network: Arc<dyn Network>,
    /// The loop whose thread moves frames; without one, register writes do.
    pub event_loop: Option<EventLoop>,
}

/// A network card on PCI.
pub struct E1000 {
    function: Arc<Function>,
    core: Arc<Core>,
    _registration: Option<Registration>,
}

struct Core {
    // Fixed configuration.
    mac: Mac,
    // Wiring.
    memory: Arc<GuestMemory>,
    network: Arc<dyn Network>,
    intx: Arc<Intx>,
    /// Asks for a turn on the loop's thread.
    event: Option<Arc<Event>>,
    // State.
    inside: Mutex<Inside>,
    bus_master: AtomicBool,
    paused: AtomicBool,
}

/// What is behind the lock.
struct Inside {
    state: State,
    received: Received,
}

/// The ports: an address, and the register there (4.2).
struct Ports(Arc<Core>);

impl E1000 {
    /// A card with this address.
    ///
    /// # Errors
    /// When the host has no descriptor for it.
    ///
    /// # Panics
    /// When the network does not take packets that are to be cut: the board's mistake.
    pub fn new(mac: Mac, wiring: &E1000Wiring) -> io::Result<Arc<Self>> {
        let cuts = Offloads::CHECKSUM | Offloads::TSO4 | Offloads::TSO6;
        assert!(wiring.network.info().from_guest.contains(cuts), "the network cannot cut packets");
        let event = match &wiring.event_loop {
            Some(_) => Some(Arc::new(Event::new()?)),
            None => None,
        };
        let core = Arc::new(Core {
            mac,
            memory: wiring.memory.clone(),
            network: wiring.network.clone(),
            intx: Intx::new(),
            event: event.clone(),
            inside: Mutex::new(Inside {
                state: State::at_reset(mac.0),
                received: Received::default(),
            }),
            bus_master: AtomicBool::new(false),
            paused: AtomicBool::new(false),
        });
        let registration = match (&wiring.event_loop, event) {
            (Some(of), Some(event)) => {
                let weak = Arc::downgrade(&core);
                Some(of.add(event.clone(), Interest::Read, move || {
                    event.clear();
                    if let Some(core) = weak.upgrade() {
                        core.turn();
                    }
                })?)
            }
            _ => None,
        };
        let weak = Arc::downgrade(&core);
        core.network.attach(Arc::new(move |_| {
            if let Some(core) = weak.upgrade() {
                core.run();
            }
        }));
        core.network.configure(Offloads::empty(), 1);
        let function = Function::new(&spec(&core), &wiring.spaces, core.clone());
        Ok(Arc::new(Self { function, core, _registration: registration }))
    }

    /// The function to plug into a bus. It is saved, restored and reset apart from the device.
    pub fn function(&self) -> &Arc<Function> {
        &self.function
    }

    /// Ends service: when it returns, guest memory is left alone.
    pub fn pause(&self) {
        self.core.paused.store(true, Ordering::SeqCst);
        drop(self.core.inside());
    }

    /// Begins service again. Also to be called after a restore.
    pub fn resume(&self) {
        self.core.paused.store(false, Ordering::SeqCst);
        self.core.run();
    }
}

fn spec(core: &Arc<Core>) -> FunctionSpec {
    let ports = Ports(core.clone());
    let bar = |index, kind, size_bytes, device| Bar { index, kind, size_bytes, device };
    FunctionSpec {
        identity: Identity {
            vendor_id: 0x8086,
            device_id: 0x100e,
            class: 0x02_0000,
            revision: 2,
            subsystem_vendor_id: 0x8086,
            subsystem_id: 0x001e,
        },
        bars: vec![
            bar(0, BarKind::Memory32, MEMORY_SIZE, core.clone() as Arc<dyn BusDevice>),
            bar(2, BarKind::Io, IO_SIZE, Arc::new(ports)),
        ],
        intx: Some(core.intx.clone()),
        ..FunctionSpec::default()
    }
}

impl Core {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drive_pin(&self) {
        self.intx.update(|| self.inside().state.wants_interrupt());
    }

    /// Has the rings looked at.
    fn run(&self) {
        match &self.event {
            Some(event) => event.signal(),
            None => while self.turn() == Turn::More {},
        }
    }

    /// Looks at the rings, for a while.
    fn turn(&self) -> Turn {
        let memory = self.memory.dma();
        let mut guard = self.inside();
        if self.paused.load(Ordering::SeqCst) || !self.bus_master.load(Ordering::SeqCst) {
            return Turn::Over;
        }
        let Inside { state, received } = &mut *guard;
        let sent = transmit::run(state, &memory, &*self.network);
        let got = receive::run(state, received, &memory, &*self.network);
        drop(guard);
        self.drive_pin();
        let more = sent == Turn::More || got == Turn::More;
        if let (true, Some(event)) = (more, &self.event) {
            event.signal();
        }
        if more { Turn::More } else { Turn::Over }
    }

    fn read_register(&self, at: u64) -> u32 {
        let value = self.inside().state.read(at);
        if at == ICR {
            self.drive_pin();
        }
        value
    }

    fn write_register(&self, at: u64, value: u32) {
        let effect = self.inside().state.write(at, value, self.mac.0);
        match effect {
            Effect::Nothing => {}
            Effect::Run => self.run(),
            Effect::Reset => self.reset(|state| {
                let phy = std::mem::take(&mut state.phy);
                *state = State { phy, ..State::at_reset(self.mac.0) };
            }),
        }
        self.drive_pin();
    }

    fn reset(&self, change: impl FnOnce(&mut State)) {
        let mut inside = self.inside();
        change(&mut inside.state);
        inside.received.size = 0;
    }
}

impl BusDevice for Core {
    fn read(&self, offset: u64, data: &mut [u8]) {
        // Whatever the size, a register that changes by being read is read once.
        let mut last = None;
        for (n, byte) in (offset..).zip(data) {
            let at = n & !3;
            let value = match last {
                Some((of, value)) if of == at => value,
                _ => self.read_register(at),
            };
            last = Some((at, value));
            *byte = value.to_le_bytes()[(n & 3) as usize];
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        if !offset.is_multiple_of(4) {
            return;
        }
        for (n, word) in (0u64..).zip(data.as_chunks::<4>().0) {
            self.write_register(offset + 4 * n, u32::from_le_bytes(*word));
        }
    }
}

impl BusDevice for Ports {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let core = &self.0;
        let address = core.inside().state.io_address;
        let value = match offset {
            IOADDR => address,
            IODATA if u64::from(address) < MEMORY_SIZE => core.read_register((address & !3).into()),
            _ => return,
        };
        for (to, byte) in data.iter_mut().zip(value.to_le_bytes()) {
            *to = byte;
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        let (core, Ok(bytes)) = (&self.0, <[u8; 4]>::try_from(data)) else { return };
        let value = u32::from_le_bytes(bytes);
        if offset == IOADDR {
            core.inside().state.io_address = value;
        } else if offset == IODATA {
            let address = core.inside().state.io_address;
            core.write_register((address & !3).into(), value);
        }
    }
}

impl FunctionDevice for Core {
    fn bus_master_set(&self, on: bool) {
        self.bus_master.store(on, Ordering::SeqCst);
        if on {
            self.run();
        }
    }
}

impl Device for E1000 {
    fn reset(&self) {
        self.core.reset(|state| *state = State::at_reset(self.core.mac.0));
        self.core.network.configure(Offloads::empty(), 1);
        self.core.drive_pin();
    }

    fn save(&self) -> Section {
        Section::encode(&SavedState::from(&self.core.inside().state))
    }

    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        let state: State = section.decode::<SavedState>()?.try_into()?;
        self.core.reset(|now| *now = state);
        self.core.network.configure(Offloads::empty(), 1);
        self.core.drive_pin();
        Ok(())
    }
}
