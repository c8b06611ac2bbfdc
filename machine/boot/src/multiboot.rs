//! Multiboot 1: a 32-bit kernel with a header in its first 8 KiB, command line and modules.
//!
//! Multiboot Specification version 0.6.96. Of the information a loader may give: memory sizes,
//! command line, modules, memory map and loader name. A wish for a video mode is not fulfilled
//! (the machine has no display), which the specification leaves to the kernel to notice.

use crate::Images;
use crate::elf::{self, Elf};
use crate::entry::Entry;
use crate::error::BootError;
use crate::guest::{Blob, Guest, Image, Source, c_string, get32};
use crate::layout::{CONVENTIONAL_END, EXTENDED_BASE, Span, low};
use crate::strings::Strings;

const HEADER_MAGIC: u32 = 0x1bad_b002;
const LOADER_MAGIC: u32 = 0x2bad_b002;
/// The header is before this.
pub(crate) const SEARCH_SIZE: usize = 8192;
/// Wishes a loader must refuse when it does not know them.
const UNKNOWN_WISHES: u32 = 0xfff8;
const WISH_ADDRESSES: u32 = 1 << 16;

const INFO_SIZE: usize = 120;
const INFO_MEMORY: u32 = 1 << 0;
const INFO_CMDLINE: u32 = 1 << 2;
const INFO_MODULES: u32 = 1 << 3;
const INFO_MEMMAP: u32 = 1 << 6;
const INFO_LOADER_NAME: u32 = 1 << 9;
const LOADER_NAME: &[u8] = b"trine\0";

const MEMMAP_SIZE: usize = 24;
const MEMMAP_MAX: usize = 32;
const MODULE_SIZE: usize = 16;
const MODULES_AT: u64 = low::LISTS.base + (MEMMAP_MAX * MEMMAP_SIZE) as u64;
const MODULES_MAX: usize = (low::LISTS.end() - MODULES_AT) as usize / MODULE_SIZE;

/// A kernel's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// Its offset in the file.
    offset: u64,
    flags: u32,
    addresses: Addresses,
}

/// The a.out kludge's fields: where a file that is not ELF wants to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Addresses {
    header: u32,
    load: u32,
    load_end: u32,
    bss_end: u32,
    entry: u32,
}

impl Header {
    /// The header in the beginning of a file.
    pub(crate) fn find(head: &[u8]) -> Option<Self> {
        let head = &head[..head.len().min(SEARCH_SIZE)];
        (0..head.len() as u64).step_by(4).find_map(|offset| Self::at(head, offset))
    }

    fn at(head: &[u8], offset: u64) -> Option<Self> {
        if get32(head, offset)? != HEADER_MAGIC {
            return None;
        }
        let flags = get32(head, offset + 4)?;
        let sum = HEADER_MAGIC.wrapping_add(flags).wrapping_add(get32(head, offset + 8)?);
        if sum != 0 {
            return None;
        }
        let field = |i: u64| get32(head, offset + 12 + i * 4);
        let addresses = if flags & WISH_ADDRESSES == 0 {
            Addresses { header: 0, load: 0, load_end: 0, bss_end: 0, entry: 0 }
        } else {
            Addresses {
                header: field(0)?,
                load: field(1)?,
                load_end: field(2)?,
                bss_end: field(3)?,
                entry: field(4)?,
            }
        };
        Some(Self { offset, flags, addresses })
    }
}

/// Loads a kernel with this header.
pub(crate) fn load<S: Source>(
    guest: &mut Guest<'_>,
    images: &mut Images<S>,
    header: Header,
) -> Result<Entry, BootError> {
    if images.initrd.is_some() {
        return Err(BootError::InitrdForMultiboot { name: images.kernel.name.clone() });
    }
    if header.flags & UNKNOWN_WISHES != 0 {
        return Err(images.kernel.malformed("its Multiboot header asks for the unknown"));
    }
    let eip = if header.flags & WISH_ADDRESSES != 0 {
        load_flat(guest, &mut images.kernel, &header)?
    } else {
        load_elf(guest, &mut images.kernel)?
    };
    let mut strings = Strings::new();
    let modules = load_modules(guest, images, &mut strings)?;
    write_info(guest, images, &mut strings, &modules)?;
    Ok(Entry::Protected { eip, eax: LOADER_MAGIC, ebx: low::START_INFO as u32, esi: 0 })
}

fn load_elf<S: Source>(guest: &mut Guest<'_>, image: &mut Image<S>) -> Result<u32, BootError> {
    let head = image.head(0, elf::HEADER_SIZE)?;
    if !elf::is_elf(&head) {
        return Err(image.malformed("it is neither ELF nor says where it wants to be loaded"));
    }
    let elf = Elf::parse(image)?;
    elf.load(guest, image)?;
    // The entry is a physical address, or a virtual one in kernels linked to run elsewhere.
    let entry = elf.header.entry;
    let physical = elf.loads().any(|segment| segment.holds(entry));
    let moved = elf.loads().find_map(|segment| {
        let offset = entry.checked_sub(segment.vaddr)?;
        (offset < segment.memory_size).then_some(segment.paddr + offset)
    });
    let entry = if physical { Some(entry) } else { moved };
    entry
        .and_then(|entry| u32::try_from(entry).ok())
        .ok_or_else(|| image.malformed("its entry is in none of its segments"))
}

/// Specification section 3.1.3.
fn load_flat<S: Source>(
    guest: &mut Guest<'_>,
    image: &mut Image<S>,
    header: &Header,
) -> Result<u32, BootError> {
    let Addresses { header: header_at, load, load_end, bss_end, entry } = header.addresses;
    let size_bytes = image.size_bytes()?;
    let bad = "the load addresses in its Multiboot header contradict each other";
    let before_header = header_at.checked_sub(load).ok_or_else(|| image.malformed(bad))?;
    let offset = header.offset.checked_sub(u64::from(before_header));
    let offset = offset.ok_or_else(|| image.malformed(bad))?;
    let file_size = match load_end {
        0 => size_bytes - offset,
        end => u64::from(end.checked_sub(load).ok_or_else(|| image.malformed(bad))?),
    };
    let bss_size = u64::from(bss_end.saturating_sub(load));
    let memory_size = file_size.max(bss_size);
    guest.take(u64::from(load), memory_size, &image.name)?;
    if !(u64::from(load)..u64::from(load) + memory_size).contains(&u64::from(entry)) {
        return Err(image.malformed("its entry is outside of what is loaded"));
    }
    guest.read(u64::from(load), image, offset, file_size, "its load range")?;
    Ok(entry)
}

/// Modules go on pages right after the kernel, where GRUB and QEMU put them.
fn load_modules<S: Source>(
    guest: &mut Guest<'_>,
    images: &mut Images<S>,
    strings: &mut Strings,
) -> Result<Vec<(Span, u64)>, BootError> {
    let count = images.modules.len();
    if count > MODULES_MAX {
        return Err(BootError::TooManyModules { count, max: MODULES_MAX });
    }
    let mut loaded = Vec::with_capacity(count);
    for module in &mut images.modules {
        let size = module.image.size_bytes()?;
        let base = guest.take_above(size, &module.image.name)?;
        guest.read(base, &mut module.image, 0, size, "the file")?;
        let string = with_name(&module.image.name, &module.args);
        let string = c_string(&string, "a module's arguments", usize::MAX)?;
        loaded.push((Span::new(base, size), strings.add(guest, &string)?));
    }
    Ok(loaded)
}

/// Kernels expect their command line and those of modules to begin with the file's name.
fn with_name(name: &str, args: &str) -> String {
    if args.is_empty() { name.to_owned() } else { format!("{name} {args}") }
}

fn write_info<S: Source>(
    guest: &Guest<'_>,
    images: &Images<S>,
    strings: &mut Strings,
    modules: &[(Span, u64)],
) -> Result<(), BootError> {
    let cmdline = with_name(&images.kernel.name, &images.cmdline);
    let cmdline = c_string(&cmdline, "the command line", usize::MAX)?;
    let cmdline = strings.add(guest, &cmdline)?;
    let loader = strings.add(guest, LOADER_NAME)?;

    let ranges = guest.layout.ranges();
    let mut memmap = Blob::zeroed(ranges.len() * MEMMAP_SIZE);
    for (i, (span, kind)) in ranges.iter().enumerate() {
        let at = i * MEMMAP_SIZE;
        memmap.put32(at, MEMMAP_SIZE as u32 - 4); // the size does not count itself
        memmap.put64(at + 4, span.base);
        memmap.put64(at + 12, span.size);
        memmap.put32(at + 20, *kind as u32);
    }
    guest.write(low::LISTS.base, &memmap.0);

    let mut list = Blob::zeroed(modules.len() * MODULE_SIZE);
    for (i, (span, string)) in modules.iter().enumerate() {
        list.put32(i * MODULE_SIZE, span.base as u32);
        list.put32(i * MODULE_SIZE + 4, span.end() as u32);
        list.put32(i * MODULE_SIZE + 8, *string as u32);
    }
    guest.write(MODULES_AT, &list.0);

    let upper = guest.layout.low_ram().end() - EXTENDED_BASE;
    let mut info = Blob::zeroed(INFO_SIZE);
    info.put32(0, INFO_MEMORY | INFO_CMDLINE | INFO_MODULES | INFO_MEMMAP | INFO_LOADER_NAME);
    info.put32(4, (CONVENTIONAL_END >> 10) as u32);
    info.put32(8, (upper >> 10) as u32);
    info.put32(16, cmdline as u32);
    info.put32(20, modules.len() as u32);
    info.put32(24, MODULES_AT as u32);
    info.put32(44, memmap.0.len() as u32);
    info.put32(48, low::LISTS.base as u32);
    info.put32(64, loader as u32);
    guest.write(low::START_INFO, &info.0);
    Ok(())
}
