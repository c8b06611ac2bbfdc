//! What firmware is told: files of the firmware configuration interface, and bytes of CMOS memory.
//!
//! Names and contents are those of QEMU's machines, which SeaBIOS, OVMF and others know (QEMU,
//! `docs/specs/fw_cfg.rst`, `hw/i386`; SeaBIOS, `docs/Runtime_config.md`).

use crate::acpi::loader::{LOADER_FILE, RSDP_FILE, TABLES_FILE, clear_sums, script};
use crate::acpi::{self, Places, Tables};
use crate::layout::{self, HIGH_RAM_BASE, Layout, RangeKind, Span, port};
use crate::{BootError, Described, Image, Source, smbios};

/// ACPI's files have always this size, because firmware asks for it before they are made.
const TABLES_SIZE: usize = 0x1_0000;
const SCRIPT_SIZE: usize = 0x2000;
/// Bytes of ECAM's window in the host bridge.
const ECAM_WINDOW: u64 = 256 << 20;
/// Where it is until firmware says: where most put it.
const ECAM_FIRMWARE: Span = Span::new(layout::LOW_RAM_MAX, ECAM_WINDOW);
/// VGA's memory: the bus's, too.
const VGA: Span = Span::new(0xa_0000, 0x2_0000);
/// BARs above this are nowhere an address can lead.
const BAR_END_MAX: u64 = 1 << 46;
const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// What firmware has moved, as the bridges' registers say. All of it is the guest's to write.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Moved {
    /// Where ECAM is.
    pub ecam: Option<u64>,
    /// Where the power-management ports are.
    pub pm_base: Option<u16>,
    /// Memory BARs that are mapped.
    pub bars: Vec<std::ops::Range<u64>>,
}

/// The ACPI files, made when firmware reads them.
#[derive(Debug, Clone, Copy)]
pub enum FirmwareFiles {
    /// What to do with the others.
    Loader,
    /// The RSDP.
    Rsdp,
    /// All other tables.
    Tables,
}

impl FirmwareFiles {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Loader, Self::Rsdp, Self::Tables];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Loader => LOADER_FILE,
            Self::Rsdp => RSDP_FILE,
            Self::Tables => TABLES_FILE,
        }
    }

    /// Its bytes: always as many.
    pub fn bytes(self, layout: &Layout, described: Described, moved: &Moved) -> Vec<u8> {
        let mut tables: Tables = acpi::build(described, &places(layout, moved), 0);
        clear_sums(&mut tables);
        let (mut bytes, size) = match self {
            Self::Loader => (script(&tables), SCRIPT_SIZE),
            Self::Rsdp => return tables.rsdp,
            Self::Tables => (tables.bytes, TABLES_SIZE),
        };
        assert!(bytes.len() <= size, "{} is too long", self.name());
        bytes.resize(size, 0);
        bytes
    }
}

/// The places as firmware has left them. Where that cannot be, they are where they would be.
fn places(layout: &Layout, moved: &Moved) -> Places {
    let low_end = layout.low_ram().end();
    let fits = |base: &u64| *base >= low_end && *base <= layout::IOAPIC.base - ECAM_WINDOW;
    let ecam = moved.ecam.filter(fits).unwrap_or(ECAM_FIRMWARE.base);
    let below = Span::new(low_end, ecam - low_end);
    let above = Span::new(ecam + ECAM_WINDOW, layout::IOAPIC.base - (ecam + ECAM_WINDOW));
    let windows = [VGA, below, above].into_iter().filter(|window| window.size > 0).collect();
    Places {
        ecam: Span::new(ecam, layout::ECAM.size),
        pm_base: moved.pm_base.unwrap_or(port::PM.base as u16),
        windows,
        window_64: window_64(layout, moved),
        rsdt: true,
    }
}

/// The window of a machine without firmware, and what BARs are around it.
fn window_64(layout: &Layout, moved: &Moved) -> Span {
    let ram_end = layout.high_ram().map_or(HIGH_RAM_BASE, |high| high.end());
    let (mut base, mut end) = (layout::PCI_WINDOW_64.base, layout::PCI_WINDOW_64.end());
    for bar in moved.bars.iter().filter(|bar| bar.start >= ram_end && bar.end <= BAR_END_MAX) {
        base = base.min(bar.start / GIB * GIB);
        end = end.max(bar.end.next_multiple_of(GIB));
    }
    let base = base.max(ram_end);
    Span::new(base, end - base)
}

/// A device firmware may boot from, as Open Firmware calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootDevice(pub String);

/// The files that are always the same. Boot devices are tried in this order, and then others.
pub fn files(
    layout: &Layout,
    described: Described,
    boot_order: &[BootDevice],
) -> Vec<(&'static str, Vec<u8>)> {
    let mut files = vec![
        ("etc/e820", e820(layout)),
        // S0 and S5; bit 7 says that there is such a state.
        ("etc/system-states", vec![128, 0, 0, 1, 0, 128]),
        // When nothing boots, SeaBIOS waits instead of starting anew.
        ("etc/boot-fail-wait", u32::MAX.to_le_bytes().to_vec()),
    ];
    files.extend(smbios::files(layout, described.cpus));
    if !boot_order.is_empty() {
        let lines: Vec<_> = boot_order.iter().map(|device| device.0.as_str()).collect();
        files.push(("bootorder", [lines.join("\n").as_bytes(), b"\0"].concat()));
    }
    files
}

/// RAM by address, size and kind. Firmware takes its own parts out.
fn e820(layout: &Layout) -> Vec<u8> {
    let ram = std::iter::once(layout.low_ram()).chain(layout.high_ram());
    let entry = |span: Span| {
        let kind = (RangeKind::Usable as u32).to_le_bytes();
        [&span.base.to_le_bytes()[..], &span.size.to_le_bytes(), &kind].concat()
    };
    ram.flat_map(entry).collect()
}

/// Bytes of CMOS memory that say how much RAM and how many CPUs there are, by index.
pub fn cmos(layout: &Layout, cpus: u32) -> Vec<(u8, u8)> {
    let low = layout.low_ram().size;
    let kib_above_1_mib = ((low - MIB) >> 10).min(0xffff) as u16;
    let above_16_mib = (low.saturating_sub(16 * MIB) >> 16).min(0xffff) as u16;
    let high = layout.high_ram().map_or(0, |high| high.size >> 16);
    let mut bytes = Vec::new();
    let mut word = |at: u8, value: u16| {
        bytes.extend((at..).zip(value.to_le_bytes()));
    };
    word(0x15, 640);
    word(0x17, kib_above_1_mib);
    word(0x30, kib_above_1_mib);
    word(0x34, above_16_mib);
    word(0x5b, high as u16);
    bytes.extend([
        (0x5d, (high >> 16) as u8),
        (0x5f, (cpus - 1) as u8),
        // Boot from disk, then CD-ROM, then network, where no file says otherwise; no floppy check.
        (0x38, 0x41),
        (0x3d, 0x32),
        // Equipment: an FPU and a mouse.
        (0x14, 0x06),
    ]);
    bytes
}

/// A Linux kernel that firmware starts by itself.
pub struct DirectBoot {
    /// Its real-mode part.
    pub setup: Vec<u8>,
    /// Its rest.
    pub kernel: Vec<u8>,
    /// Its initial file system, maybe empty.
    pub initrd: Vec<u8>,
    /// Its command line, ended by a NUL.
    pub cmdline: Vec<u8>,
}

/// Linux boot protocol: how many sectors the setup has, after the first.
const SETUP_SECTS: usize = 0x1f1;
const SETUP_SECTS_DEFAULT: usize = 4;
const SECTOR: usize = 512;

impl DirectBoot {
    /// Reads the images whole.
    ///
    /// # Errors
    /// When one cannot be read, or the kernel is no bzImage.
    pub fn read<S: Source>(images: &mut crate::Images<S>) -> Result<Self, BootError> {
        let mut kernel = whole(&mut images.kernel)?;
        if !crate::linux::is_bzimage(&kernel) {
            let name = images.kernel.name.clone();
            return Err(BootError::NotForFirmware { name });
        }
        let sectors = match kernel.get(SETUP_SECTS) {
            Some(0) | None => SETUP_SECTS_DEFAULT,
            Some(sectors) => usize::from(*sectors),
        };
        let truncated = |size: usize| BootError::Truncated {
            name: images.kernel.name.clone(),
            part: "the setup code",
            size_bytes: size as u64,
        };
        let setup_size = (sectors + 1) * SECTOR;
        if kernel.len() < setup_size {
            return Err(truncated(kernel.len()));
        }
        let rest = kernel.split_off(setup_size);
        let initrd = images.initrd.as_mut().map(whole).transpose()?.unwrap_or_default();
        let cmdline = crate::guest::c_string(&images.cmdline, "the command line", u16::MAX.into())?;
        Ok(Self { setup: kernel, kernel: rest, initrd, cmdline })
    }
}

fn whole<S: Source>(image: &mut Image<S>) -> Result<Vec<u8>, BootError> {
    let size = image.size_bytes()?;
    image.head(0, usize::try_from(size).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests;
