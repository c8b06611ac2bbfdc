//! What a machine that starts from firmware has besides: flash below 4 GiB, shadow RAM below 1 MiB,
//! and the files that firmware asks for.
//!
//! Flash ends at 4 GiB, with the image last and UEFI's variables before it. Below 1 MiB the host
//! bridge's attributes say of each segment whether it is RAM or what is on the bus: the end of the
//! image, up to 128 KiB of it, and nothing before that.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use boot::layout::Layout;
use boot::{BootDevice, Described, DirectBoot, FirmwareFiles, Moved};
use bus::BusDevice;
use chipset::{FlashArray, FlashSink, FwCfgItems, NotKept};
use guest_memory::{Backing, GuestMemory, RamOffset};
use pci::{AttributeSink, Attributes, DevFn, PciBus, Segment, ecam_base, pm_base};

use super::RAM;
use super::controllers;
use super::memory_map::{MemoryMap, Overlay, Piece};
use super::prepared::Extras;
use super::wiring::{FIRST_DISK, FIRST_NET, HOST_BRIDGE, LPC_BRIDGE};
use crate::spec::{BootKind, FirmwareSpec, MachineSpec, VariableStore};

/// Memory region of the image.
pub(super) const FIRMWARE: &str = "firmware";
/// Memory region of UEFI's variables.
pub(super) const VARIABLES: &str = "uefi-variables";

const FLASH_END: u64 = 1 << 32;
/// VGA's memory and what attributes are for.
const BELOW_1_MIB: u64 = 0xa_0000;
pub(super) const SHADOW: u64 = 0xc_0000;
pub(super) const SHADOW_SIZE: u64 = 0x4_0000;
const SHADOW_END: u64 = SHADOW + SHADOW_SIZE;
/// How much of the image's end is seen below 1 MiB.
const ALIAS_SIZE_MAX: u64 = 0x2_0000;

/// The variables, in guest memory and outside.
pub(super) struct FlashPlace {
    overlay: Overlay,
    image: Piece,
    variables: Piece,
    store: Arc<dyn VariableStore>,
}

/// Shows the image. With variables, returns what shows them, where they are, and at which address.
pub(super) fn show_image(
    map: &Arc<MemoryMap>,
    memory: &GuestMemory,
    store: Option<Arc<dyn VariableStore>>,
) -> Option<(Arc<FlashPlace>, FlashArray, u64)> {
    let overlay = map.overlay();
    let piece = |name: &str, end: u64| {
        let region = memory.region(name)?;
        let memory = Some((region.at, Backing::Rom));
        Some(Piece { gpa: end - region.size_bytes, size: region.size_bytes, memory })
    };
    let image = piece(FIRMWARE, FLASH_END)?;
    overlay.set(vec![image]);
    let variables = piece(VARIABLES, image.gpa)?;
    let array = FlashArray { at: variables.memory?.0, size_bytes: variables.size };
    let place = FlashPlace { overlay, image, variables, store: store? };
    Some((Arc::new(place), array, variables.gpa))
}

impl FlashSink for FlashPlace {
    fn show(&self, shown: bool) {
        let variables = shown.then_some(self.variables);
        self.overlay.set(variables.into_iter().chain([self.image]).collect());
    }

    fn change(&self, offset: u64, bytes: &[u8]) -> Result<(), NotKept> {
        self.store.change(offset, bytes).map_err(|_| NotKept)
    }
}

/// Memory from 0xc0000 to 1 MiB.
pub(super) struct Shadow {
    // Fixed configuration.
    ram: RamOffset,
    /// The end of the image, and how much of it is seen.
    alias: Option<(RamOffset, u64)>,
    // Wiring.
    memory: Arc<GuestMemory>,
    overlay: Overlay,
    // State: follows the host bridge's registers.
    segments: Mutex<Vec<Segment>>,
}

impl Shadow {
    /// Shadow RAM; the host bridge tells it what it is after reset.
    pub(super) fn new(map: &Arc<MemoryMap>, memory: &Arc<GuestMemory>) -> Arc<Self> {
        let alias = memory.region(FIRMWARE).map(|region| {
            let size = region.size_bytes.min(ALIAS_SIZE_MAX);
            (RamOffset(region.at.0 + region.size_bytes - size), size)
        });
        let ram = memory.region(RAM).map_or(RamOffset(0), |region| region.at);
        let (memory, overlay) = (memory.clone(), map.overlay());
        Arc::new(Self { ram, alias, memory, overlay, segments: Mutex::default() })
    }

    /// What reads of a segment find.
    fn found(&self, segment: &Segment) -> Option<(RamOffset, Backing)> {
        let Attributes { reads_ram, writes_ram } = segment.attributes;
        if reads_ram {
            let backing = if writes_ram { Backing::Ram } else { Backing::Rom };
            return Some((RamOffset(self.ram.0 + segment.base), backing));
        }
        let (at, size) = self.alias?;
        let offset = segment.base.checked_sub(SHADOW_END - size)?;
        Some((RamOffset(at.0 + offset), Backing::Rom))
    }
}

impl AttributeSink for Shadow {
    fn set_attributes(&self, segments: &[Segment]) {
        let hole = Piece { gpa: BELOW_1_MIB, size: SHADOW - BELOW_1_MIB, memory: None };
        let mut pieces = vec![hole];
        for segment in segments {
            let memory = self.found(segment);
            let last = pieces.last_mut().filter(|last| goes_on(last, memory));
            match last {
                Some(last) => last.size += segment.size,
                None => pieces.push(Piece { gpa: segment.base, size: segment.size, memory }),
            }
        }
        *self.segments.lock().unwrap_or_else(PoisonError::into_inner) = segments.to_vec();
        self.overlay.set(pieces);
    }
}

/// What comes after the piece is more of it.
fn goes_on(last: &Piece, next: Option<(RamOffset, Backing)>) -> bool {
    match (last.memory, next) {
        (None, None) => true,
        (Some((at, backing)), Some((next, of_next))) => {
            backing == of_next && at.0 + last.size == next.0
        }
        _ => false,
    }
}

/// Writes come here where reads do not find RAM.
impl BusDevice for Shadow {
    fn read(&self, _offset: u64, _data: &mut [u8]) {}

    fn write(&self, offset: u64, data: &[u8]) {
        let segments = self.segments.lock().unwrap_or_else(PoisonError::into_inner);
        for (gpa, byte) in (SHADOW + offset..SHADOW_END).zip(data) {
            let segment = segments.iter().rfind(|segment| segment.base <= gpa);
            if segment.is_some_and(|segment| segment.attributes.writes_ram) {
                self.memory.write(RamOffset(self.ram.0 + gpa), &[*byte]);
            }
        }
    }
}

/// Items of fw_cfg that are numbers and not files (QEMU, `standard-headers/linux/qemu_fw_cfg.h`).
mod key {
    pub(super) const KERNEL_SIZE: u16 = 0x08;
    pub(super) const INITRD_SIZE: u16 = 0x0b;
    pub(super) const KERNEL_DATA: u16 = 0x11;
    pub(super) const INITRD_DATA: u16 = 0x12;
    pub(super) const CMDLINE_SIZE: u16 = 0x14;
    pub(super) const CMDLINE_DATA: u16 = 0x15;
    pub(super) const SETUP_SIZE: u16 = 0x17;
    pub(super) const SETUP_DATA: u16 = 0x18;
}

/// Adds what firmware asks for.
pub(super) fn add_items(
    items: &mut FwCfgItems,
    spec: &mut FirmwareSpec,
    order: &[BootDevice],
    layout: Layout,
    described: Described,
    bus: &Arc<PciBus>,
) {
    let mut files = boot::files(&layout, described, order);
    files.extend(spec.serial_console.map(|port| ("etc/sercon-port", port.to_le_bytes().to_vec())));
    let mut added: Vec<_> =
        files.into_iter().map(|(name, bytes)| items.add_file(name, bytes)).collect();
    for file in FirmwareFiles::ALL {
        let bus = Arc::downgrade(bus);
        let build = move || file.bytes(&layout, described, &moved(&bus));
        added.push(items.add_built_file(file.name(), Arc::new(build)));
    }
    assert!(added.iter().all(Result::is_ok), "firmware's files: {added:?}");
    if let Some(DirectBoot { setup, kernel, initrd, cmdline }) = spec.kernel.take() {
        for (size_key, data_key, data) in [
            (key::SETUP_SIZE, key::SETUP_DATA, setup),
            (key::KERNEL_SIZE, key::KERNEL_DATA, kernel),
            (key::INITRD_SIZE, key::INITRD_DATA, initrd),
            (key::CMDLINE_SIZE, key::CMDLINE_DATA, cmdline),
        ] {
            items.set(size_key, (data.len() as u32).to_le_bytes().to_vec());
            items.set(data_key, data);
        }
    }
}

/// What firmware has moved so far.
fn moved(bus: &Weak<PciBus>) -> Moved {
    let Some(bus) = bus.upgrade() else { return Moved::default() };
    let functions = bus.functions();
    let at = |place: DevFn| functions.iter().find(|(at, _)| *at == place).map(|(_, f)| f);
    Moved {
        ecam: at(HOST_BRIDGE).and_then(|bridge| ecam_base(bridge)),
        pm_base: at(LPC_BRIDGE).and_then(|bridge| pm_base(bridge)),
        bars: bus.placed_memory(),
    }
}

/// Devices to boot from, in the order of `kinds` and then in their own.
pub(super) fn boot_order(kinds: &[BootKind], spec: &MachineSpec) -> Vec<BootDevice> {
    let disks = (FIRST_DISK..).zip(&spec.disks).map(|(at, _)| format!("scsi@{at:x}/disk@0,0"));
    let nets = (0..spec.nets.len() as u8).map(|n| format!("ethernet@{:x}", FIRST_NET - n));
    let disks = disks.map(|path| (BootKind::Disk, path));
    let nets = nets.map(|path| (BootKind::Net, path));
    let devices: Vec<_> = disks.chain(controllers::boot_paths(spec)).chain(nets).collect();
    let of_kind = |kind: &BootKind| {
        let kind = *kind;
        devices.iter().filter(move |(of, _)| *of == kind).map(|(_, path)| path)
    };
    let path = |path: &String| BootDevice(format!("/pci@i0cf8/{path}"));
    kinds.iter().flat_map(of_kind).map(path).collect()
}

/// Puts the image and the variables into their regions.
pub(super) fn fill(memory: &GuestMemory, spec: &FirmwareSpec) {
    let variables = spec.variables.as_ref().map(|variables| (VARIABLES, &variables.bytes));
    for (name, bytes) in [(FIRMWARE, &spec.image)].into_iter().chain(variables) {
        if let Some(region) = memory.region(name) {
            memory.write(region.at, bytes);
        }
    }
}

/// Regions of memory for firmware, by name and size.
pub(super) fn regions(extras: &Extras) -> impl Iterator<Item = (&'static str, u64)> {
    let regions = [(FIRMWARE, extras.image_bytes), (VARIABLES, extras.variables_bytes)];
    regions.into_iter().filter(|(_, size_bytes)| *size_bytes > 0)
}
