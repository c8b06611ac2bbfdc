//! SMBIOS: who made the machine, for inventories and for guests that look.
//!
//! SMBIOS 3.0 (DSP0134), with the 2.1 entry point for systems that know no other. Structures 0,
//! 1, 3, 4, 16, 17, 19, 32 and 127.

use crate::guest::Blob;
use crate::layout::{Layout, SMBIOS, Span};

/// The structures, after both entry points.
const TABLE: u64 = SMBIOS.base + 0x40;
const MAKER: &str = "Trine";
const PRODUCT: &str = "Trine virtual machine";
const VERSION: &str = "1";
const UNKNOWN: u8 = 2;

/// Handles of structures that others name.
const CHASSIS: u16 = 0x300;
const MEMORY_ARRAY: u16 = 0x1000;

/// Entry points and structures, as they are from [`SMBIOS`]'s base on.
pub(crate) fn tables(layout: &Layout, cpus: u32) -> Vec<u8> {
    let structures = structures(layout, cpus);
    let mut image = Blob::zeroed((TABLE - SMBIOS.base) as usize);
    image.put(0, &entry_3(structures.bytes.len()));
    image.put(0x20, &entry_2(&structures, TABLE));
    image.0.extend(&structures.bytes);
    assert!(image.0.len() as u64 <= SMBIOS.size, "the SMBIOS tables are too long");
    image.0
}

/// The 2.1 entry point, without the structures' address, and the structures, for firmware to put
/// where it wants them.
pub(crate) fn files(layout: &Layout, cpus: u32) -> [(&'static str, Vec<u8>); 2] {
    let structures = structures(layout, cpus);
    let anchor = entry_2(&structures, 0);
    [("etc/smbios/smbios-anchor", anchor), ("etc/smbios/smbios-tables", structures.bytes)]
}

/// DSP0134 5.2.2.
fn entry_3(table_size: usize) -> Vec<u8> {
    let mut entry = Blob::zeroed(24);
    entry.put(0, b"_SM3_");
    entry.put(6, &[24, 3, 0, 0, 1]);
    entry.put32(12, table_size as u32);
    entry.put64(16, TABLE);
    entry.put(5, &[checksum(&entry.0)]);
    entry.0
}

/// DSP0134 5.2.1.
fn entry_2(structures: &Structures, table: u64) -> Vec<u8> {
    let mut entry = Blob::zeroed(31);
    entry.put(0, b"_SM_");
    entry.put(5, &[31, 2, 8]);
    entry.put(8, &(structures.longest as u16).to_le_bytes());
    entry.put(16, b"_DMI_");
    entry.put(22, &(structures.bytes.len() as u16).to_le_bytes());
    entry.put32(24, table as u32);
    entry.put(28, &structures.count.to_le_bytes());
    entry.put(30, &[0x28]);
    entry.put(21, &[checksum(&entry.0[16..])]);
    entry.put(4, &[checksum(&entry.0)]);
    entry.0
}

fn checksum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_sub(*byte))
}

/// Structures one after the other.
#[derive(Default)]
struct Structures {
    bytes: Vec<u8>,
    count: u16,
    longest: usize,
}

impl Structures {
    /// Appends one. `fields` is what follows type, length and handle.
    fn add(&mut self, kind: u8, handle: u16, fields: &[u8], strings: &[&str]) {
        let start = self.bytes.len();
        self.bytes.extend([kind, fields.len() as u8 + 4]);
        self.bytes.extend(handle.to_le_bytes());
        self.bytes.extend(fields);
        for string in strings {
            self.bytes.extend(string.as_bytes());
            self.bytes.push(0);
        }
        self.bytes.extend(if strings.is_empty() { &[0, 0][..] } else { &[0] });
        self.count += 1;
        self.longest = self.longest.max(self.bytes.len() - start);
    }
}

fn structures(layout: &Layout, cpus: u32) -> Structures {
    let mut all = Structures::default();
    // BIOS: vendor, version, segment, date, size; characteristics "not supported", and "this is
    // a virtual machine" in the second extension byte.
    let bios = [1, 2, 0, 0xe8, 3, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1 << 4, 0, 0, 0xff, 0xff];
    all.add(0, 0, &bios, &[MAKER, VERSION, "01/01/2026"]);
    // System: maker, product, version, no serial, no UUID, power switch, no SKU, no family.
    let mut system = [0; 23];
    system[..4].copy_from_slice(&[1, 2, 3, 0]);
    system[20] = 6;
    all.add(1, 0x100, &system, &[MAKER, PRODUCT, VERSION]);
    // Chassis: "other", states safe.
    all.add(3, CHASSIS, &[1, 1, 2, 0, 0, 3, 3, 3, UNKNOWN, 0, 0, 0, 0, 0, 1, 0, 0, 0], &[MAKER]);
    for cpu in 0..cpus {
        processor(&mut all, cpu);
    }
    memory(&mut all, layout);
    all.add(32, 0x2000, &[0, 0, 0, 0, 0, 0, 0], &[]);
    all.add(127, 0x7f00, &[], &[]);
    all
}

/// One socket each: what cores of one socket would say is in CPUID.
fn processor(all: &mut Structures, cpu: u32) {
    let mut fields = Blob::zeroed(44);
    // Socket, central processor, family "other", maker; version.
    fields.put(0, &[1, 3, 1, 2]);
    fields.put(12, &[3]);
    fields.put(20, &[0x41, 1]); // populated and enabled; upgrade "other"
    fields.put(22, &[0xff; 6]); // no cache structures
    fields.put(31, &[1, 1, 1]); // one core, enabled, one thread
    fields.put(34, &(1u16 << 2).to_le_bytes()); // 64-bit capable
    let socket = format!("CPU {cpu}");
    all.add(4, 0x400 + cpu as u16, &fields.0, &[&socket, MAKER, PRODUCT]);
}

/// One array with one device, mapped in one or two ranges.
fn memory(all: &mut Structures, layout: &Layout) {
    let size_kib = layout.ram_bytes() >> 10;
    let mut array = Blob::zeroed(19);
    array.put(0, &[1, 3, 6]); // "other" place, system memory, multi-bit ECC
    array.put32(3, 0x8000_0000); // the size is in the long field
    array.put(7, &0xfffe_u16.to_le_bytes());
    array.put(9, &1u16.to_le_bytes());
    array.put64(11, layout.ram_bytes());
    all.add(16, MEMORY_ARRAY, &array.0, &[]);

    let mut device = Blob::zeroed(36);
    device.put(0, &MEMORY_ARRAY.to_le_bytes());
    device.put(2, &[0xfe, 0xff, 0xff, 0xff, 0xff, 0xff]); // no error structure, widths unknown
    let mib = size_kib >> 10;
    let (size, extended) = if mib < 0x7fff { (mib as u16, 0) } else { (0x7fff, mib as u32) };
    device.put(8, &size.to_le_bytes());
    device.put(10, &[9, 0, 1, 0, 7]); // DIMM, no set, locator, no bank, "RAM"
    device.put(15, &2u16.to_le_bytes());
    device.put32(24, extended);
    all.add(17, 0x1100, &device.0, &["RAM"]);

    let ranges = std::iter::once(layout.low_ram()).chain(layout.high_ram());
    for (handle, Span { base, size }) in (0x1300..).zip(ranges) {
        let mut range = Blob::zeroed(27);
        range.put32(0, 0xffff_ffff); // both addresses are in the long fields
        range.put(8, &MEMORY_ARRAY.to_le_bytes());
        range.put(10, &[1]);
        range.put64(11, base);
        range.put64(19, base + size - 1);
        all.add(19, handle, &range.0, &[]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Types and lengths of the structures, checking that each ends where the next begins.
    fn walk(table: &[u8]) -> Vec<(u8, Vec<u8>)> {
        let mut found = Vec::new();
        let mut at = 0;
        while at < table.len() {
            let length = usize::from(table[at + 1]);
            found.push((table[at], table[at..at + length].to_vec()));
            at += length;
            while table[at..at + 2] != [0, 0] {
                at += 1;
            }
            at += 2;
        }
        found
    }

    #[test]
    fn entry_points_lead_to_the_structures() {
        let layout = Layout::new(8 << 30).unwrap();
        let image = tables(&layout, 3);
        let sum = |bytes: &[u8]| bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
        assert_eq!(sum(&image[..24]), 0);
        assert_eq!(sum(&image[0x20..0x20 + 31]), 0);
        assert_eq!(sum(&image[0x30..0x20 + 31]), 0);
        let structures = walk(&image[0x40..]);
        let kinds: Vec<_> = structures.iter().map(|s| s.0).collect();
        assert_eq!(kinds, [0, 1, 3, 4, 4, 4, 16, 17, 19, 19, 32, 127]);
        assert_eq!(usize::from(image[0x20 + 28]), kinds.len());
        let device = &structures[7].1;
        assert_eq!(device[12..14], 0x2000u16.to_le_bytes());
    }

    #[test]
    fn lengths_are_those_of_the_specification() {
        let layout = Layout::new(64 << 30).unwrap();
        for (kind, bytes) in walk(&tables(&layout, 1)[0x40..]) {
            let expected = match kind {
                0 => 24,
                1 => 27,
                3 => 22,
                4 => 48,
                16 => 23,
                17 => 40,
                19 => 31,
                32 => 11,
                _ => 4,
            };
            assert_eq!(bytes.len(), expected, "type {kind}");
        }
    }
}
