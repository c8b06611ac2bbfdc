//! Kernels into memory, and the tables that tell them what machine they are on.
//!
//! [`load`] recognises an image by its content, puts it into guest memory with its command line,
//! initrd or modules, and returns the [`Entry`] by which the first CPU's state differs from reset:
//!
//! | Image | Entry |
//! | --- | --- |
//! | Linux bzImage, 64-bit | its payload, unpacked here, at the 64-bit entry |
//! | ELF with a PVH note | the 32-bit PVH entry |
//! | Multiboot 1, ELF or with load addresses | the 32-bit Multiboot entry |
//! | Linux vmlinux without PVH note | the 64-bit entry |
//!
//! A machine that starts from firmware gets the same tables as files, which firmware puts into
//! memory itself: see [`files`].
//!
//! What this crate may not know: devices, engines. It writes guest memory; the board and the owner
//! of the vCPUs do the rest.
//!
//! *Invariants*: images are hostile. Nothing in one can make a parser panic, loop without end, or
//! allocate more than its limits say; every sum is checked. Guest memory is zero when [`load`] is
//! called, and nothing that must be zero is written.

mod acpi;
mod checksum;
mod decompress;
mod elf;
mod entry;
mod error;
mod firmware;
mod guest;
mod initrd;
pub mod layout;
mod linux;
mod multiboot;
mod pvh;
mod screen;
mod smbios;
mod strings;

pub use entry::Entry;
pub use error::BootError;
pub use firmware::{BootDevice, DirectBoot, FirmwareFiles, Moved, cmos, files};
pub use guest::{Image, Source};
pub use initrd::check_initrd;
pub use screen::Screen;

use guest_memory::DmaMemory;

use elf::Elf;
use guest::Guest;
use layout::{Blocks, Layout};

/// Where the RSDP is.
pub(crate) const ACPI_RSDP: u64 = layout::ACPI.base;

/// What is to be booted.
pub struct Images<S> {
    /// The kernel.
    pub kernel: Image<S>,
    /// Linux's initial file system.
    pub initrd: Option<Image<S>>,
    /// The kernel's command line.
    pub cmdline: String,
    /// Modules, for Multiboot and PVH kernels.
    pub modules: Vec<Module<S>>,
}

/// A file for a Multiboot or PVH kernel.
pub struct Module<S> {
    /// The file.
    pub image: Image<S>,
    /// Its arguments.
    pub args: String,
}

/// What the tables tell besides what every board has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Described {
    /// How many CPUs, 1 to 32, at power-up.
    pub cpus: u32,
    /// What can come later, where anything can.
    pub room: Option<Room>,
    /// The HPET.
    pub hpet: bool,
    /// The PIC, the keyboard controller, the LPC bridge and the RTC's interrupt.
    pub legacy: bool,
}

/// What can come to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// CPUs in all, with those of power-up.
    pub cpus: u32,
    /// Memory.
    pub blocks: Blocks,
}

/// Writes the tables that say what the machine is: ACPI and SMBIOS.
pub fn write_tables(memory: &DmaMemory, layout: &Layout, described: Described) {
    let guest = Guest::new(memory, layout);
    guest.write(layout::ACPI.base, &acpi::tables(described));
    guest.write(layout::SMBIOS.base, &smbios::tables(layout, described.cpus));
}

/// Loads what is to be booted into memory that is all zero, but for the machine's tables.
///
/// # Errors
/// When an image is not what it must be or does not fit. Memory then holds parts of it.
pub fn load<S: Source>(
    memory: &DmaMemory,
    layout: &Layout,
    images: &mut Images<S>,
) -> Result<Entry, BootError> {
    let mut guest = Guest::new(memory, layout);
    let head = images.kernel.head(0, multiboot::SEARCH_SIZE)?;
    let entry = if linux::is_bzimage(&head) {
        linux::load_bzimage(&mut guest, images)?
    } else {
        load_elf_or_multiboot(&mut guest, images, &head)?
    };
    entry.write_tables(&guest);
    Ok(entry)
}

/// Tells what was loaded of a screen that is on.
pub fn write_screen(memory: &DmaMemory, layout: &Layout, entry: Entry, screen: Screen) {
    screen::write(&Guest::new(memory, layout), entry, screen);
}

/// The kernel finds its machine by ACPI. Others, which are Multiboot's, look where a PC has things.
///
/// # Errors
/// When the image cannot be read or is malformed.
pub fn reads_tables<S: Source>(kernel: &mut Image<S>) -> Result<bool, BootError> {
    let head = kernel.head(0, multiboot::SEARCH_SIZE)?;
    if linux::is_bzimage(&head) || multiboot::Header::find(&head).is_none() {
        return Ok(true);
    }
    Ok(elf::is_elf(&head) && Elf::parse(kernel)?.pvh_entry(kernel)?.is_some())
}

fn load_elf_or_multiboot<S: Source>(
    guest: &mut Guest<'_>,
    images: &mut Images<S>,
    head: &[u8],
) -> Result<Entry, BootError> {
    let multiboot = multiboot::Header::find(head);
    if elf::is_elf(head) {
        let elf = Elf::parse(&mut images.kernel)?;
        if let Some(entry) = elf.pvh_entry(&mut images.kernel)? {
            return pvh::load(guest, images, &elf, entry);
        }
        if multiboot.is_none() && linux::is_vmlinux(&elf) && !elf.is_program() {
            return linux::load_vmlinux(guest, images, &elf);
        }
    }
    match multiboot {
        Some(header) => multiboot::load(guest, images, header),
        None => Err(not_a_kernel(images.kernel.name.clone(), head)),
    }
}

fn not_a_kernel(name: String, head: &[u8]) -> BootError {
    let foreign = match head.get(0x38..0x3c) {
        Some(b"ARM\x64") => Some("64-bit ARM"),
        Some(b"RSC\x05") => Some("RISC-V"),
        _ => None,
    };
    if let Some(found) = foreign {
        return BootError::Architecture { name, found };
    }
    let reason = if head.is_empty() {
        "it is empty"
    } else if elf::is_elf(head) {
        "it is an ELF file with neither a PVH note nor a Multiboot header"
    } else if decompress::Compression::detect(head).is_some() {
        "it is a compressed file"
    } else {
        "its format is unknown"
    };
    BootError::NotAKernel { name, reason }
}

#[cfg(test)]
mod tests;
