//! Linux at its 64-bit or 32-bit entry: a bzImage's payload, or a vmlinux without the PVH note.
//!
//! The payload is unpacked here and entered unrelocated, as vmlinux: a decompressor inside the
//! guest would do the same more slowly. Kernel address randomization is off then.
//!
//! Linux `Documentation/arch/x86/boot.rst`, sections "The Real-Mode Kernel Header", "32-bit
//! Boot Protocol" and "64-bit Boot Protocol"; `zero-page.rst`.

use std::io::{self, BufReader, Read};

use crate::checksum;
use crate::decompress::Compression;
use crate::elf::{self, Elf, Header};
use crate::entry::Entry;
use crate::error::BootError;
use crate::guest::{Blob, Guest, Image, Source, c_string, get, get16, get32};
use crate::layout::low;
use crate::{ACPI_RSDP, Images};

/// The header begins here, in the file and in `boot_params`.
const HEADER: u64 = 0x1f1;
const BOOT_FLAG: u64 = 0x1fe;
const HEADER_END: u64 = 0x201;
const MAGIC: u64 = 0x202;
const VERSION: u64 = 0x206;
const TYPE_OF_LOADER: usize = 0x210;
const RAMDISK_IMAGE: usize = 0x218;
const RAMDISK_SIZE: usize = 0x21c;
const CMD_LINE_PTR: usize = 0x228;
const INITRD_ADDR_MAX: u64 = 0x22c;
const KERNEL_ALIGNMENT: usize = 0x230;
const XLOADFLAGS: u64 = 0x236;
const CMDLINE_SIZE: u64 = 0x238;
const PAYLOAD_OFFSET: u64 = 0x248;
const PAYLOAD_LENGTH: u64 = 0x24c;
/// `boot_params` besides the header.
const ACPI_RSDP_ADDR: usize = 0x70;
const E820_ENTRIES: usize = 0x1e8;
const E820_TABLE: usize = 0x2d0;
const E820_ENTRY_SIZE: usize = 20;
const BOOT_PARAMS_SIZE: usize = 0x1000;

const BOOT_FLAG_VALUE: u16 = 0xaa55;
const MAGIC_VALUE: &[u8; 4] = b"HdrS";
const SECTOR: u64 = 512;
/// The first version whose header says whether the kernel is a 64-bit one.
const VERSION_MIN: u16 = 0x20c;
const XLF_KERNEL_64: u16 = 1;
/// "A loader without an assigned number".
const LOADER_UNKNOWN: u8 = 0xff;
/// What kernels without a header take.
pub(crate) const CMDLINE_MAX: usize = 2047;
const INITRD_END_MAX: u64 = 1 << 32;
/// Bytes of the unpacked file we are ready to go through.
const UNPACKED_SIZE_MAX: u64 = 1 << 30;
const CHUNK_SIZE: usize = 256 << 10;
/// The unpacked size, which Linux appends to what is packed. It ends what has no end of its own.
const TRAILER_SIZE: u64 = 4;

/// Begins like a bzImage.
pub(crate) fn is_bzimage(head: &[u8]) -> bool {
    get(head, MAGIC) == Some(*MAGIC_VALUE) && get16(head, BOOT_FLAG) == Some(BOOT_FLAG_VALUE)
}

/// The header of a bzImage.
struct SetupHeader {
    /// As it is, from [`HEADER`].
    bytes: Vec<u8>,
    is_64: bool,
    cmdline_max: usize,
    initrd_end: u64,
    payload: u64,
    payload_size: u64,
}

impl SetupHeader {
    fn parse(head: &[u8], name: &str) -> Result<Self, BootError> {
        let name = || name.to_owned();
        let malformed = |reason| BootError::Malformed { name: name(), reason };
        let cut = || malformed("its setup header is cut off");
        let version = get16(head, VERSION).ok_or_else(cut)?;
        if version < VERSION_MIN {
            return Err(malformed("its boot protocol is older than 2.12 (Linux 3.8)"));
        }
        let is_64 = get16(head, XLOADFLAGS).ok_or_else(cut)? & XLF_KERNEL_64 != 0;
        let [jump] = get(head, HEADER_END).ok_or_else(cut)?;
        let end = (MAGIC + u64::from(jump)) as usize;
        let bytes = head.get(HEADER as usize..end).ok_or_else(cut)?.to_vec();
        let sectors = match bytes.first() {
            Some(0) | None => 4,
            Some(sectors) => u64::from(*sectors),
        };
        let offset = u64::from(get32(head, PAYLOAD_OFFSET).ok_or_else(cut)?);
        Ok(Self {
            bytes,
            is_64,
            cmdline_max: get32(head, CMDLINE_SIZE).ok_or_else(cut)? as usize,
            initrd_end: u64::from(get32(head, INITRD_ADDR_MAX).ok_or_else(cut)?) + 1,
            payload: (sectors + 1) * SECTOR + offset,
            payload_size: u64::from(get32(head, PAYLOAD_LENGTH).ok_or_else(cut)?),
        })
    }

    /// What a vmlinux would say.
    fn of_vmlinux() -> Self {
        let mut blob = Blob::zeroed(0x268);
        blob.put(BOOT_FLAG as usize, &BOOT_FLAG_VALUE.to_le_bytes());
        blob.put(MAGIC as usize, MAGIC_VALUE);
        blob.put(VERSION as usize, &VERSION_MIN.to_le_bytes());
        blob.put32(KERNEL_ALIGNMENT, 0x100_0000);
        blob.put32(CMDLINE_SIZE as usize, CMDLINE_MAX as u32);
        Self {
            bytes: blob.0.split_off(HEADER as usize),
            is_64: true,
            cmdline_max: CMDLINE_MAX,
            initrd_end: INITRD_END_MAX,
            payload: 0,
            payload_size: 0,
        }
    }
}

/// Loads a bzImage.
pub(crate) fn load_bzimage<S: Source>(
    guest: &mut Guest<'_>,
    images: &mut Images<S>,
) -> Result<Entry, BootError> {
    let head = images.kernel.head(0, BOOT_PARAMS_SIZE)?;
    let setup = SetupHeader::parse(&head, &images.kernel.name)?;
    checksum::check(&mut images.kernel)?;
    let header = unpack(guest, &mut images.kernel, &setup)?;
    if header.is_64 != setup.is_64 {
        return Err(images.kernel.malformed("it has 32 bits and says 64, or the other way round"));
    }
    write_boot_params(guest, images, &setup)?;
    match u32::try_from(header.entry) {
        Ok(eip) if !header.is_64 => {
            Ok(Entry::Protected { eip, eax: 0, ebx: 0, esi: low::BOOT_PARAMS as u32 })
        }
        _ => Ok(Entry::Long { rip: header.entry, rsi: low::BOOT_PARAMS }),
    }
}

/// Loads a vmlinux that has no PVH note.
pub(crate) fn load_vmlinux<S: Source>(
    guest: &mut Guest<'_>,
    images: &mut Images<S>,
    elf: &Elf,
) -> Result<Entry, BootError> {
    elf.load(guest, &mut images.kernel)?;
    write_boot_params(guest, images, &SetupHeader::of_vmlinux())?;
    Ok(Entry::Long { rip: elf.header.entry, rsi: low::BOOT_PARAMS })
}

/// An ELF file is a Linux kernel when it runs in the upper half and is entered at a physical
/// address.
pub(crate) fn is_vmlinux(elf: &Elf) -> bool {
    elf.header.is_64
        && elf.loads().any(|s| s.holds(elf.header.entry) && s.vaddr >= 0xffff_8000_0000_0000)
}

/// Unpacks the payload into memory; returns its header.
fn unpack<S: Source>(
    guest: &mut Guest<'_>,
    image: &mut Image<S>,
    setup: &SetupHeader,
) -> Result<Header, BootError> {
    let size_bytes = image.size_bytes()?;
    let name = image.name.clone();
    if setup.payload + setup.payload_size > size_bytes {
        let part = "its compressed kernel";
        return Err(BootError::Truncated { name, part, size_bytes });
    }
    let magic = image.head(setup.payload, 16)?;
    let Some(format) = Compression::detect(&magic) else {
        return Err(image.malformed("its compressed kernel is in no known format"));
    };
    image.seek(setup.payload)?;
    let broken =
        |source| BootError::Decompress { name: name.clone(), format: format.name(), source };
    let size = match format {
        Compression::Lz4 => setup.payload_size.saturating_sub(TRAILER_SIZE),
        _ => setup.payload_size,
    };
    let packed = BufReader::with_capacity(CHUNK_SIZE, image.source.by_ref().take(size));
    let Some(unpacked) = format.decode(packed).map_err(broken)? else {
        return Err(BootError::Compression { name, found: format.name() });
    };
    Unpacking { stream: unpacked, at: 0, chunk: vec![0; CHUNK_SIZE], name: &name, format }
        .load(guest)
}

/// An ELF file that comes as a stream.
struct Unpacking<'a> {
    stream: Box<dyn Read + 'a>,
    at: u64,
    chunk: Vec<u8>,
    name: &'a str,
    format: Compression,
}

impl Unpacking<'_> {
    fn load(mut self, guest: &mut Guest<'_>) -> Result<Header, BootError> {
        let head = self.bytes(elf::HEADER_SIZE)?;
        let header = Header::parse(&head, self.name)?;
        let (offset, size) = header.table();
        // A 32-bit file's program headers can begin in what has been read already.
        let mut table = match usize::try_from(offset) {
            Ok(at @ ..elf::HEADER_SIZE) => head[at..].to_vec(),
            _ => Vec::new(),
        };
        if table.is_empty() {
            self.skip_to(offset)?;
        }
        table.truncate(size);
        let rest = self.bytes(size - table.len())?;
        table.extend(rest);
        let elf = header.with_table(&table).ok_or_else(|| self.malformed("its ELF is cut off"))?;
        elf.take(guest, self.name)?;
        if !elf.loads().any(|segment| segment.holds(elf.header.entry)) {
            return Err(self.malformed("its entry is in none of its segments"));
        }
        let mut loads: Vec<_> = elf.loads().collect();
        loads.sort_by_key(|segment| segment.offset);
        for segment in loads {
            self.skip_to(segment.offset)?;
            self.copy(guest, segment.paddr, segment.file_size)?;
        }
        self.finish()?;
        Ok(elf.header)
    }

    /// Reads to the end, where most formats have their checksum.
    fn finish(&mut self) -> Result<(), BootError> {
        let left = UNPACKED_SIZE_MAX.saturating_sub(self.at);
        let rest = io::copy(&mut self.stream.by_ref().take(left), &mut io::sink());
        rest.map(|_| ()).map_err(|source| self.undecodable(source))
    }

    fn undecodable(&self, source: io::Error) -> BootError {
        BootError::Decompress { name: self.name.to_owned(), format: self.format.name(), source }
    }

    fn malformed(&self, reason: &'static str) -> BootError {
        BootError::Malformed { name: self.name.to_owned(), reason }
    }

    /// Fills the first `size` bytes of the chunk.
    fn fill(&mut self, size: usize) -> Result<(), BootError> {
        let read = self.stream.read_exact(&mut self.chunk[..size]);
        read.map_err(|source| self.undecodable(source))?;
        self.at += size as u64;
        Ok(())
    }

    fn bytes(&mut self, size: usize) -> Result<Vec<u8>, BootError> {
        self.fill(size)?;
        Ok(self.chunk[..size].to_vec())
    }

    fn skip_to(&mut self, offset: u64) -> Result<(), BootError> {
        if offset < self.at || offset > UNPACKED_SIZE_MAX {
            return Err(self.malformed("its unpacked ELF is not in an order that can be loaded"));
        }
        while self.at < offset {
            self.fill((offset - self.at).min(CHUNK_SIZE as u64) as usize)?;
        }
        Ok(())
    }

    fn copy(&mut self, guest: &Guest<'_>, gpa: u64, size: u64) -> Result<(), BootError> {
        let mut done = 0;
        while done < size {
            let part = (size - done).min(CHUNK_SIZE as u64) as usize;
            self.fill(part)?;
            guest.write(gpa + done, &self.chunk[..part]);
            done += part as u64;
        }
        Ok(())
    }
}

/// Places command line and initrd, and writes the zero page.
fn write_boot_params<S: Source>(
    guest: &mut Guest<'_>,
    images: &mut Images<S>,
    setup: &SetupHeader,
) -> Result<(), BootError> {
    if !images.modules.is_empty() {
        return Err(BootError::ModulesForLinux { name: images.kernel.name.clone() });
    }
    let cmdline_max = setup.cmdline_max.min(low::STRINGS.size as usize - 1);
    let cmdline = c_string(&images.cmdline, "the command line", cmdline_max)?;
    guest.write(low::STRINGS.base, &cmdline);

    let mut params = Blob::zeroed(BOOT_PARAMS_SIZE);
    params.put(HEADER as usize, &setup.bytes);
    params.put(TYPE_OF_LOADER, &[LOADER_UNKNOWN]);
    params.put32(CMD_LINE_PTR, low::STRINGS.base as u32);
    params.put64(ACPI_RSDP_ADDR, ACPI_RSDP);
    if let Some(initrd) = &mut images.initrd {
        let span = guest.read_high(initrd, setup.initrd_end.min(INITRD_END_MAX))?;
        params.put32(RAMDISK_IMAGE, span.base as u32);
        params.put32(RAMDISK_SIZE, span.size as u32);
    }
    let ranges = guest.layout.ranges();
    params.put(E820_ENTRIES, &[ranges.len() as u8]);
    for (i, (span, kind)) in ranges.iter().enumerate() {
        let at = E820_TABLE + i * E820_ENTRY_SIZE;
        params.put64(at, span.base);
        params.put64(at + 8, span.size);
        params.put32(at + 16, *kind as u32);
    }
    guest.write(low::BOOT_PARAMS, &params.0);
    Ok(())
}
