//! The PCI transport (4.1), modern only, with MSI-X, and the interrupt pin for drivers without.

mod common;
mod spec;
mod state;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use bus::{BusDevice, Device, MsiSink, Section, SectionError};
use evloop::{Event, Registration};
use guest_memory::GuestMemory;
use pci::{
    Bar, BarKind, Capability, Function, FunctionDevice, FunctionSpec, Identity, Msix, MsixPlace,
    Spaces,
};

use crate::runner::{Runner, lock};
use crate::spec::status;
use crate::{Broken, Dispatch, VirtioDevice};
use common::{Common, Effect};
use spec::*;
use state::VirtioPciState;

/// Told where doorbells are, so that the host's kernel can hand them to the event directly.
///
/// Called under locks of the device: it may not access it. Doorbells that reach the bus all the
/// same are served as well.
pub trait Doorbells: Send + Sync {
    /// A write of any size to this guest-physical address may signal `event` instead.
    fn attach(&self, gpa: u64, event: &Arc<Event>);
    /// It may no more.
    fn detach(&self, gpa: u64, event: &Arc<Event>);
}

/// Doorbells take the bus.
pub struct NoDoorbells;

impl Doorbells for NoDoorbells {
    fn attach(&self, _gpa: u64, _event: &Arc<Event>) {}
    fn detach(&self, _gpa: u64, _event: &Arc<Event>) {}
}

/// What connects a device with the machine.
#[derive(Clone)]
pub struct Wiring {
    /// Guest memory.
    pub memory: Arc<GuestMemory>,
    /// Where the BAR is mapped.
    pub spaces: Spaces,
    /// Where interrupts go.
    pub msi: Arc<dyn MsiSink>,
    /// Where queues are served.
    pub dispatch: Dispatch,
    /// Shortcuts for doorbells.
    pub doorbells: Arc<dyn Doorbells>,
}

/// A virtio device on PCI.
pub struct VirtioPci {
    function: Arc<Function>,
    transport: Arc<Transport>,
    /// Its events' places in the loops.
    _registrations: Vec<Registration>,
}

/// What is behind the BAR.
struct Transport {
    // Wiring.
    runner: Arc<Runner>,
    doorbells: Arc<dyn Doorbells>,
    // State.
    common: Mutex<Common>,
    /// *Lock*: after `common` and the function's; then the board's own.
    placed: Mutex<Placed>,
}

#[derive(Default)]
struct Placed {
    /// Where the BAR is.
    base: Option<u64>,
    /// Addresses and queues of attached doorbells.
    attached: Vec<(u64, usize)>,
}

impl VirtioPci {
    /// Puts `device` on PCI.
    ///
    /// # Errors
    /// When the host has no descriptors left.
    ///
    /// # Panics
    /// When the device has more than 128 queues, or their sizes are no powers of two: the
    /// board's mistake.
    pub fn new(device: Arc<dyn VirtioDevice>, wiring: &Wiring) -> io::Result<Arc<Self>> {
        let queues = device.queue_sizes();
        assert!(queues.len() <= QUEUES_MAX, "{} queues", queues.len());
        assert!(queues.iter().all(|size| size.is_power_of_two()), "sizes {queues:?}");
        let vectors = queues.len() as u16 + 1; // one for the configuration
        let msix = Msix::new(vectors, wiring.msi.clone());
        let common = Mutex::new(Common::at_reset(&*device));
        let identity = identity(&*device);
        let (runner, registrations) =
            Runner::new(device, wiring.memory.clone(), msix.clone(), &wiring.dispatch)?;
        let intx = runner.intx.clone();
        let transport = Arc::new(Transport {
            runner,
            doorbells: wiring.doorbells.clone(),
            common,
            placed: Mutex::default(),
        });
        let spec = FunctionSpec {
            identity,
            bars: vec![Bar {
                index: BAR,
                kind: BarKind::Memory64,
                size_bytes: BAR_SIZE,
                device: transport.clone(),
            }],
            capabilities: capabilities(),
            msix: Some(MsixPlace {
                msix,
                bar: BAR,
                table: MSIX_TABLE as u32,
                pending: MSIX_PENDING as u32,
            }),
            intx: Some(intx),
            ..FunctionSpec::default()
        };
        let function = Function::new(&spec, &wiring.spaces, transport.clone());
        Ok(Arc::new(Self { function, transport, _registrations: registrations }))
    }

    /// The function to plug into a bus. It is saved, restored and reset apart from the device.
    pub fn function(&self) -> &Arc<Function> {
        &self.function
    }

    /// Ends service: when it returns, no request is in flight and the device leaves guest memory
    /// alone. Doorbells are remembered.
    pub fn pause(&self) {
        self.transport.runner.pause();
    }

    /// Begins service again, with what came meanwhile. Also to be called after a restore.
    pub fn resume(&self) {
        self.transport.runner.resume();
    }

    /// What the driver did wrong, when the device waits for its reset because of that.
    pub fn broken(&self) -> Option<Broken> {
        self.transport.runner.broken()
    }

    /// Interrupts that queues have caused.
    pub fn interrupts(&self) -> u64 {
        self.transport.runner.interrupts.load(Ordering::Relaxed)
    }
}

fn identity(device: &dyn VirtioDevice) -> Identity {
    let kind = device.device_type();
    Identity {
        vendor_id: VENDOR_ID,
        device_id: DEVICE_ID_BASE + kind as u16,
        class: kind.pci_class(),
        revision: REVISION,
        subsystem_vendor_id: VENDOR_ID,
        subsystem_id: DEVICE_ID_BASE + kind as u16,
    }
}

/// The structures of 4.1.4, without the ID and link that come before each.
fn capabilities() -> Vec<Capability> {
    let body = |kind: u8, offset: u64, length: u64, more: &[u8]| {
        let mut body = vec![16 + more.len() as u8, kind, BAR as u8, 0, 0, 0];
        body.extend((offset as u32).to_le_bytes());
        body.extend((length as u32).to_le_bytes());
        body.extend(more);
        body
    };
    let plain = |kind, offset, length, more: &[u8]| {
        Capability::read_only(pci::spec::CAPABILITY_VENDOR, body(kind, offset, length, more))
    };
    let window = body(CAP_PCI, 0, 0, &[0; 4]);
    let mut writable = vec![0; window.len()];
    writable[CAP_BAR - 2] = 0xff;
    writable[CAP_OFFSET - 2..].fill(0xff);
    vec![
        plain(CAP_COMMON, COMMON, COMMON_SIZE, &[]),
        plain(CAP_NOTIFY, NOTIFY, NOTIFY_SIZE, &NOTIFY_OFF_MULTIPLIER.to_le_bytes()),
        plain(CAP_ISR, ISR, ISR_SIZE, &[]),
        plain(CAP_DEVICE, DEVICE, DEVICE_SIZE, &[]),
        Capability {
            id: pci::spec::CAPABILITY_VENDOR,
            body: window,
            writable,
            window: Some(CAP_DATA),
        },
    ]
}

impl Transport {
    /// Attaches doorbells while the driver is ready and the BAR has a place.
    fn sync_doorbells(&self) {
        if self.runner.is_inline() {
            return;
        }
        let mut placed = lock(&self.placed);
        let ready = self.runner.status.load(Ordering::SeqCst) & status::DRIVER_OK != 0;
        let doorbell = |base: u64, queue: usize| {
            base + NOTIFY + queue as u64 * u64::from(NOTIFY_OFF_MULTIPLIER)
        };
        let base = placed.base.filter(|_| ready);
        if placed.attached.first().map(|(gpa, _)| *gpa) == base.map(|b| doorbell(b, 0)) {
            return;
        }
        for (gpa, queue) in std::mem::take(&mut placed.attached) {
            self.doorbells.detach(gpa, &self.runner.slots[queue].event);
        }
        if let Some(base) = base {
            for (queue, slot) in self.runner.slots.iter().enumerate() {
                self.doorbells.attach(doorbell(base, queue), &slot.event);
                placed.attached.push((doorbell(base, queue), queue));
            }
        }
    }

    fn read_common(&self, offset: u64, data: &mut [u8]) {
        let register = lock(&self.common).read(&self.runner, offset);
        if let Some((value, size)) = register
            && data.len() <= size
        {
            data.copy_from_slice(&value.to_le_bytes()[..data.len()]);
        }
    }

    fn write_common(&self, offset: u64, data: &[u8]) {
        let effect = lock(&self.common).write(&self.runner, offset, data);
        if effect != Effect::Nothing {
            self.sync_doorbells();
        }
        if effect == Effect::Started {
            self.runner.kick_all();
        }
    }

    /// Where the window of a capability points, when that is inside the BAR (4.1.4.9.1).
    fn window(&self, capability: &[u8]) -> Option<(u64, usize)> {
        let word = |at: usize| {
            let bytes = capability.get(at..at + 4)?;
            Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
        };
        let (offset, length) = (u64::from(word(CAP_OFFSET)?), word(CAP_LENGTH)?);
        let possible = usize::from(*capability.get(CAP_BAR)?) == BAR
            && matches!(length, 1 | 2 | 4)
            && offset.is_multiple_of(length.into())
            && offset + u64::from(length) <= BAR_SIZE;
        possible.then_some((offset, length as usize))
    }
}

impl BusDevice for Transport {
    fn read(&self, offset: u64, data: &mut [u8]) {
        match offset {
            COMMON..ISR => self.read_common(offset - COMMON, data),
            ISR => {
                data.fill(self.runner.isr.swap(0, Ordering::AcqRel));
                self.runner.drive_pin();
            }
            DEVICE..NOTIFY => {
                data.fill(0);
                self.runner.device.config_read(offset - DEVICE, data);
            }
            MSIX_TABLE..MSIX_PENDING => self.runner.msix.read_table(offset - MSIX_TABLE, data),
            MSIX_PENDING..MSIX_END => self.runner.msix.read_pending(offset - MSIX_PENDING, data),
            _ => {}
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        match offset {
            COMMON..ISR => self.write_common(offset - COMMON, data),
            DEVICE..NOTIFY => self.runner.device.config_write(offset - DEVICE, data),
            NOTIFY..MSIX_TABLE => {
                let queue = (offset - NOTIFY) / u64::from(NOTIFY_OFF_MULTIPLIER);
                self.runner.ring(queue as usize);
            }
            MSIX_TABLE..MSIX_PENDING => self.runner.msix.write_table(offset - MSIX_TABLE, data),
            _ => {}
        }
    }
}

impl FunctionDevice for Transport {
    fn bar_placed(&self, _bar: usize, base: Option<u64>) {
        lock(&self.placed).base = base;
        self.sync_doorbells();
    }

    fn bus_master_set(&self, on: bool) {
        self.runner.bus_master.store(on, Ordering::SeqCst);
        if on {
            self.runner.kick_all();
        }
    }

    fn window_read(&self, capability: &[u8], data: &mut [u8]) {
        if let Some((offset, length)) = self.window(capability) {
            let size = data.len().min(length);
            self.read(offset, &mut data[..size]);
        }
    }

    fn window_write(&self, capability: &[u8], data: &[u8]) {
        if let Some((offset, length)) = self.window(capability) {
            self.write(offset, &data[..data.len().min(length)]);
        }
    }
}

impl Device for VirtioPci {
    fn reset(&self) {
        self.transport.reset();
    }

    fn save(&self) -> Section {
        Section::encode(&VirtioPciState::of(&self.transport))
    }

    fn restore(&self, section: &Section) -> Result<(), SectionError> {
        section.decode::<VirtioPciState>()?.put_into(&self.transport)?;
        self.transport.sync_doorbells();
        Ok(())
    }
}

impl Transport {
    fn reset(&self) {
        let mut common = lock(&self.common);
        self.runner.reset();
        *common = Common::at_reset(&*self.runner.device);
        drop(common);
        self.sync_doorbells();
    }
}
