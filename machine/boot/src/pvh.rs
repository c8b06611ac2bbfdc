//! PVH: a 32-bit entry with `hvm_start_info`.
//!
//! Xen `docs/misc/pvh.pandoc`, `public/arch-x86/hvm/start_info.h`.

use crate::elf::Elf;
use crate::entry::Entry;
use crate::error::BootError;
use crate::guest::{Blob, Guest, Source, c_string};
use crate::layout::{Span, low};
use crate::linux::CMDLINE_MAX;
use crate::strings::Strings;
use crate::{ACPI_RSDP, Images};

const MAGIC: u32 = 0x336e_c578;
const VERSION: u32 = 1;
const START_INFO_SIZE: usize = 56;
const MODULE_SIZE: usize = 32;
const MEMMAP_SIZE: usize = 24;
/// Memory map before the module list; it never has this many entries.
const MEMMAP_MAX: usize = 32;
const MODULES_AT: u64 = low::LISTS.base + (MEMMAP_MAX * MEMMAP_SIZE) as u64;
const MODULES_MAX: usize = (low::LISTS.end() - MODULES_AT) as usize / MODULE_SIZE;

/// Loads an ELF file with this entry.
pub(crate) fn load<S: Source>(
    guest: &mut Guest<'_>,
    images: &mut Images<S>,
    elf: &Elf,
    eip: u32,
) -> Result<Entry, BootError> {
    elf.load(guest, &mut images.kernel)?;
    if !elf.loads().any(|segment| segment.holds(u64::from(eip))) {
        return Err(images.kernel.malformed("its PVH entry is in none of its segments"));
    }
    let mut strings = Strings::new();
    let cmdline =
        strings.add(guest, &c_string(&images.cmdline, "the command line", CMDLINE_MAX)?)?;
    let modules = load_modules(guest, images, &mut strings)?;

    let ranges = guest.layout.ranges();
    let mut memmap = Blob::zeroed(ranges.len() * MEMMAP_SIZE);
    for (i, (span, kind)) in ranges.iter().enumerate() {
        memmap.put64(i * MEMMAP_SIZE, span.base);
        memmap.put64(i * MEMMAP_SIZE + 8, span.size);
        memmap.put32(i * MEMMAP_SIZE + 16, *kind as u32);
    }
    guest.write(low::LISTS.base, &memmap.0);

    let mut list = Blob::zeroed(modules.len() * MODULE_SIZE);
    for (i, (span, string)) in modules.iter().enumerate() {
        list.put64(i * MODULE_SIZE, span.base);
        list.put64(i * MODULE_SIZE + 8, span.size);
        list.put64(i * MODULE_SIZE + 16, *string);
    }
    guest.write(MODULES_AT, &list.0);

    let mut info = Blob::zeroed(START_INFO_SIZE);
    info.put32(0, MAGIC);
    info.put32(4, VERSION);
    info.put32(12, modules.len() as u32);
    info.put64(16, if modules.is_empty() { 0 } else { MODULES_AT });
    info.put64(24, cmdline);
    info.put64(32, ACPI_RSDP);
    info.put64(40, low::LISTS.base);
    info.put32(48, ranges.len() as u32);
    guest.write(low::START_INFO, &info.0);
    Ok(Entry::Protected { eip, eax: 0, ebx: low::START_INFO as u32, esi: 0 })
}

/// The initrd first, as Linux wants it, then the modules; each with its string's address.
fn load_modules<S: Source>(
    guest: &mut Guest<'_>,
    images: &mut Images<S>,
    strings: &mut Strings,
) -> Result<Vec<(Span, u64)>, BootError> {
    let count = images.modules.len() + usize::from(images.initrd.is_some());
    if count > MODULES_MAX {
        return Err(BootError::TooManyModules { count, max: MODULES_MAX });
    }
    let mut loaded = Vec::new();
    if let Some(initrd) = &mut images.initrd {
        loaded.push((guest.read_high(initrd, u64::MAX)?, 0));
    }
    for module in &mut images.modules {
        let string = c_string(&module.args, "a module's arguments", usize::MAX)?;
        loaded.push((guest.read_high(&mut module.image, u64::MAX)?, strings.add(guest, &string)?));
    }
    Ok(loaded)
}
