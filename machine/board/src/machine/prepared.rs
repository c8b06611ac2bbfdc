//! Memory that is there before its machine.

use std::fs::File;
use std::sync::Arc;

use boot::Images;
use boot::layout::{Layout, TESTDEV_RAM};
use guest_memory::{Backing, FlatRange, GuestMemory, RamOffset};

use super::{Contents, MORE_RAM, RAM, VRAM, firmware};
use crate::spec::{BuildError, FirmwareSpec, MachineSpec, StartError};

const TESTDEV: &str = "testdev";

/// What a machine has memory for besides RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Extras {
    /// The test device.
    pub testdev: bool,
    /// The display adapter.
    pub display: bool,
    /// RAM at most, where more can come.
    pub memory_bytes_max: u64,
    /// Bytes of firmware's image.
    pub image_bytes: u64,
    /// Bytes of UEFI's variables.
    pub variables_bytes: u64,
}

impl Extras {
    /// What this machine has.
    pub fn of(spec: &MachineSpec) -> Self {
        let none = Self {
            testdev: spec.testdev,
            display: spec.display.is_some(),
            memory_bytes_max: spec.hotplug.map_or(0, |hotplug| hotplug.memory_bytes_max),
            ..Self::default()
        };
        spec.firmware.as_ref().map_or(none, |firmware| none.with_firmware(firmware))
    }

    /// The same with this firmware.
    #[must_use]
    pub fn with_firmware(self, firmware: &FirmwareSpec) -> Self {
        let variables_bytes = firmware.variables.as_ref().map_or(0, |v| v.bytes.len() as u64);
        Self { image_bytes: firmware.image.len() as u64, variables_bytes, ..self }
    }
}

/// The memory of a machine to be built. What is to be booted can be loaded into it while the rest of
/// the machine waits for something else.
pub struct Prepared {
    pub(super) layout: Layout,
    pub(super) memory: Arc<GuestMemory>,
    pub(super) contents: Contents,
}

impl Prepared {
    /// Memory for a machine with so much RAM, and what else it has, all zero.
    ///
    /// # Errors
    /// When it cannot be laid out, or the host has none.
    pub fn new(ram_bytes: u64, extras: Extras) -> Result<Self, BuildError> {
        let layout = Layout::new(ram_bytes)?;
        let memory = build_memory(&layout, extras)?;
        Ok(Self { layout, memory, contents: Contents::Zero })
    }

    /// Loads what the machine's first [`boot`](super::Machine::boot) shall start.
    ///
    /// # Errors
    /// When an image is not what it must be or does not fit.
    pub fn load(&mut self, images: &mut Images<File>) -> Result<(), StartError> {
        let entry = boot::load(&self.memory.dma(), &self.layout, images)?;
        self.contents = Contents::Loaded(entry);
        Ok(())
    }
}

/// RAM, and what the guest sees of it.
fn build_memory(layout: &Layout, extras: Extras) -> Result<Arc<GuestMemory>, BuildError> {
    let mut regions = vec![(RAM, layout.ram_bytes())];
    let more = layout.blocks(extras.memory_bytes_max)?.span().size;
    if more > 0 {
        regions.push((MORE_RAM, more));
    }
    if extras.testdev {
        regions.push((TESTDEV, TESTDEV_RAM.size));
    }
    if extras.display {
        regions.push((VRAM, display::VRAM_BYTES));
    }
    regions.extend(firmware::regions(&extras));
    let memory = GuestMemory::new(&regions)?;
    let mut view = layout.view(RamOffset(0));
    if let Some(region) = memory.region(TESTDEV) {
        let inserted = view.insert(FlatRange {
            gpa: TESTDEV_RAM.base,
            size: TESTDEV_RAM.size,
            at: region.at,
            backing: Backing::Ram,
        });
        assert!(inserted.is_ok(), "the test device's memory overlaps RAM");
    }
    memory.set_view(view);
    Ok(memory)
}
