//! ELF executables, as far as loaders need: program headers and the PVH note.
//!
//! System V ABI, "Object files"; Xen `public/elfnote.h`.

use crate::error::BootError;
use crate::guest::{Guest, Image, Source, get16, get32, get64};

/// Bytes of the longest ELF header.
pub(crate) const HEADER_SIZE: usize = 64;
const MAGIC: &[u8] = b"\x7fELF";
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_386: u16 = 3;
const EM_X86_64: u16 = 62;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_NOTE: u32 = 4;
/// Kernels have five or six. A file that says 65,535 wants us to work.
const SEGMENTS_MAX: u16 = 64;
/// Notes longer than this are no kernel's.
const NOTES_SIZE_MAX: u64 = 1 << 20;
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;

/// The header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header {
    pub(crate) is_64: bool,
    pub(crate) entry: u64,
    table: u64,
    entry_size: u16,
    count: u16,
}

/// A program header.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Segment {
    kind: u32,
    pub(crate) offset: u64,
    pub(crate) vaddr: u64,
    pub(crate) paddr: u64,
    pub(crate) file_size: u64,
    pub(crate) memory_size: u64,
    align: u64,
}

impl Segment {
    /// The segment holds this physical address.
    pub(crate) fn holds(&self, paddr: u64) -> bool {
        paddr.checked_sub(self.paddr).is_some_and(|offset| offset < self.memory_size)
    }
}

/// Begins like an ELF file.
pub(crate) fn is_elf(head: &[u8]) -> bool {
    head.starts_with(MAGIC)
}

/// A parsed file.
#[derive(Debug)]
pub(crate) struct Elf {
    pub(crate) header: Header,
    segments: Vec<Segment>,
}

/// The machine an ELF header is for, when it is not ours.
fn foreign_machine(machine: u16) -> &'static str {
    match machine {
        40 => "32-bit ARM",
        183 => "64-bit ARM",
        243 => "RISC-V",
        20 | 21 => "PowerPC",
        22 => "S/390",
        8 => "MIPS",
        258 => "LoongArch",
        _ => "another architecture",
    }
}

/// What a program's header says it is for, when that is not us.
pub(crate) fn foreign_to_us(head: &[u8; HEADER_SIZE]) -> Option<&'static str> {
    if head[5] != LITTLE_ENDIAN {
        return Some("a big-endian machine");
    }
    let machine = u16::from_le_bytes([head[18], head[19]]);
    (![EM_386, EM_X86_64].contains(&machine)).then(|| foreign_machine(machine))
}

impl Header {
    /// # Errors
    /// When it is not the header of an x86 executable.
    pub(crate) fn parse(head: &[u8], name: &str) -> Result<Self, BootError> {
        Self::try_parse(head).map_err(|problem| match problem {
            Problem::Foreign(found) => BootError::Architecture { name: name.to_owned(), found },
            Problem::NotAKernel(reason) => BootError::NotAKernel { name: name.to_owned(), reason },
            Problem::Malformed(reason) => BootError::Malformed { name: name.to_owned(), reason },
        })
    }

    fn try_parse(head: &[u8]) -> Result<Self, Problem> {
        let cut = || Problem::Malformed("its ELF header is cut off");
        if !is_elf(head) {
            return Err(Problem::NotAKernel("it is not an ELF file"));
        }
        let is_64 = *head.get(4).ok_or_else(cut)? == CLASS_64;
        let machine = get16(head, 18).ok_or_else(cut)?;
        if head.get(5) != Some(&LITTLE_ENDIAN) {
            return Err(Problem::Foreign("a big-endian machine"));
        }
        if ![EM_386, EM_X86_64].contains(&machine) {
            return Err(Problem::Foreign(foreign_machine(machine)));
        }
        let kind = get16(head, 16).ok_or_else(cut)?;
        if ![ET_EXEC, ET_DYN].contains(&kind) {
            return Err(Problem::NotAKernel("it is an ELF file, but no executable"));
        }
        let wide = |offset64, offset32| {
            if is_64 { get64(head, offset64) } else { get32(head, offset32).map(u64::from) }
        };
        let narrow = |offset64, offset32| get16(head, if is_64 { offset64 } else { offset32 });
        let header = Self {
            is_64,
            entry: wide(24, 24).ok_or_else(cut)?,
            table: wide(32, 28).ok_or_else(cut)?,
            entry_size: narrow(54, 42).ok_or_else(cut)?,
            count: narrow(56, 44).ok_or_else(cut)?,
        };
        if header.entry_size != if is_64 { 56 } else { 32 } {
            return Err(Problem::Malformed("its ELF program headers have an impossible size"));
        }
        if header.count == 0 || header.count > SEGMENTS_MAX {
            return Err(Problem::Malformed("its number of ELF program headers is impossible"));
        }
        Ok(header)
    }

    /// Where the program headers are.
    pub(crate) fn table(&self) -> (u64, usize) {
        (self.table, usize::from(self.entry_size) * usize::from(self.count))
    }

    /// The file, whose program headers these bytes are.
    pub(crate) fn with_table(self, table: &[u8]) -> Option<Elf> {
        let segments = table
            .chunks_exact(usize::from(self.entry_size))
            .map(|bytes| self.segment(bytes))
            .collect::<Option<Vec<_>>>()?;
        (segments.len() == usize::from(self.count)).then_some(Elf { header: self, segments })
    }

    fn segment(&self, bytes: &[u8]) -> Option<Segment> {
        let narrow = |offset| get32(bytes, offset).map(u64::from);
        Some(if self.is_64 {
            Segment {
                kind: get32(bytes, 0)?,
                offset: get64(bytes, 8)?,
                vaddr: get64(bytes, 16)?,
                paddr: get64(bytes, 24)?,
                file_size: get64(bytes, 32)?,
                memory_size: get64(bytes, 40)?,
                align: get64(bytes, 48)?,
            }
        } else {
            Segment {
                kind: get32(bytes, 0)?,
                offset: narrow(4)?,
                vaddr: narrow(8)?,
                paddr: narrow(12)?,
                file_size: narrow(16)?,
                memory_size: narrow(20)?,
                align: narrow(28)?,
            }
        })
    }
}

/// What is wrong with a header, before it is known what to call the file.
enum Problem {
    Foreign(&'static str),
    NotAKernel(&'static str),
    Malformed(&'static str),
}

impl Elf {
    /// Reads header and program headers of a file.
    pub(crate) fn parse<S: Source>(image: &mut Image<S>) -> Result<Self, BootError> {
        let head = image.head(0, HEADER_SIZE)?;
        let header = Header::parse(&head, &image.name)?;
        let (offset, size) = header.table();
        let table = image.head(offset, size)?;
        let size_bytes = image.size_bytes()?;
        header.with_table(&table).ok_or_else(|| BootError::Truncated {
            name: image.name.clone(),
            part: "its ELF program header table",
            size_bytes,
        })
    }

    /// What is loaded, in the file's order.
    pub(crate) fn loads(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|s| s.kind == PT_LOAD && s.memory_size > 0)
    }

    /// Wants a dynamic linker: a program of some operating system.
    pub(crate) fn is_program(&self) -> bool {
        self.segments.iter().any(|segment| segment.kind == PT_INTERP)
    }

    /// Takes the memory of every segment.
    pub(crate) fn take(&self, guest: &mut Guest<'_>, name: &str) -> Result<(), BootError> {
        let malformed = |reason| BootError::Malformed { name: name.to_owned(), reason };
        if self.loads().next().is_none() {
            return Err(malformed("it has no segment to load"));
        }
        for segment in self.loads() {
            if segment.file_size > segment.memory_size {
                return Err(malformed("a segment is longer in the file than in memory"));
            }
            guest.take(segment.paddr, segment.memory_size, name)?;
        }
        Ok(())
    }

    /// Takes memory for every segment and reads it there. What the file does not fill stays zero.
    pub(crate) fn load<S: Source>(
        &self,
        guest: &mut Guest<'_>,
        image: &mut Image<S>,
    ) -> Result<(), BootError> {
        self.take(guest, &image.name)?;
        for segment in self.loads() {
            guest.read(segment.paddr, image, segment.offset, segment.file_size, "a segment")?;
        }
        Ok(())
    }

    /// The physical address of PVH's 32-bit entry.
    pub(crate) fn pvh_entry<S: Source>(
        &self,
        image: &mut Image<S>,
    ) -> Result<Option<u32>, BootError> {
        for segment in self.segments.iter().filter(|segment| segment.kind == PT_NOTE) {
            let size = segment.file_size.min(NOTES_SIZE_MAX);
            let notes = image.head(segment.offset, size as usize)?;
            if let Some(entry) = find_pvh_note(&notes, segment.align) {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
}

/// Name, then descriptor, each padded to the segment's alignment (4, or 8 in some files).
fn find_pvh_note(mut notes: &[u8], align: u64) -> Option<u32> {
    let align = if align == 8 { 8 } else { 4 };
    let padded = |size: usize| size.checked_next_multiple_of(align);
    while let (Some(name_size), Some(size), Some(kind)) =
        (get32(notes, 0), get32(notes, 4), get32(notes, 8))
    {
        let (name_size, size) = (name_size as usize, size as usize);
        let descriptor = padded(12usize.checked_add(name_size)?)?;
        let name = notes.get(12..12usize.checked_add(name_size)?)?;
        if kind == XEN_ELFNOTE_PHYS32_ENTRY && name == b"Xen\0" {
            return match size {
                4 => get32(notes, descriptor as u64),
                // 64-bit kernels store it so; it is an address below 4 GiB all the same.
                8 => get64(notes, descriptor as u64).and_then(|entry| entry.try_into().ok()),
                _ => None,
            };
        }
        notes = notes.get(padded(descriptor.checked_add(size)?)?..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(kind: u32, name: &[u8], descriptor: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [name.len() as u32, descriptor.len() as u32, kind] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(name);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend(descriptor);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn the_pvh_note_is_found_behind_others_in_both_widths() {
        let before = note(3, b"GNU\0", &[1; 20]);
        for entry in [&0x100_0000u32.to_le_bytes()[..], &0x100_0000u64.to_le_bytes()[..]] {
            let notes = [before.clone(), note(18, b"Xen\0", entry)].concat();
            assert_eq!(find_pvh_note(&notes, 4), Some(0x100_0000));
        }
        assert_eq!(find_pvh_note(&before, 4), None);
    }

    #[test]
    fn lengths_that_run_past_the_end_find_nothing() {
        let mut notes = note(18, b"Xen\0", &[0; 4]);
        for at in 0..8 {
            let old = std::mem::replace(&mut notes[at], 0xff);
            assert_eq!(find_pvh_note(&notes, 4), None, "byte {at}");
            notes[at] = old;
        }
        assert_eq!(find_pvh_note(&notes[..18], 4), None);
    }
}
