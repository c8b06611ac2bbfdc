//! Tables in a map, and checks of walks and of the TLB over them.

mod flushes;
mod tlb;
mod walks;

use std::collections::BTreeMap;

use crate::{Format, Paging, TableMemory};

/// Words of physical memory, by address.
#[derive(Debug, Default, Clone)]
struct Memory {
    words: BTreeMap<u64, u32>,
    /// Another CPU changes this entry before the first update of it.
    raced: Option<(u64, u64)>,
}

impl Memory {
    fn put(&mut self, gpa: u64, value: u64) {
        self.words.insert(gpa, value as u32);
        self.words.insert(gpa + 4, (value >> 32) as u32);
    }

    fn put32(&mut self, gpa: u64, value: u32) {
        self.words.insert(gpa, value);
    }

    fn race(&mut self, gpa: u64) {
        if let Some((at, value)) = self.raced
            && at == gpa
        {
            self.raced = None;
            self.put(at, value);
        }
    }
}

impl TableMemory for Memory {
    fn read32(&mut self, gpa: u64) -> u32 {
        self.words.get(&gpa).copied().unwrap_or(0)
    }

    fn read64(&mut self, gpa: u64) -> u64 {
        u64::from(self.read32(gpa)) | u64::from(self.read32(gpa + 4)) << 32
    }

    fn update32(&mut self, gpa: u64, old: u32, new: u32) -> bool {
        self.race(gpa);
        let same = self.read32(gpa) == old;
        if same {
            self.put32(gpa, new);
        }
        same
    }

    fn update64(&mut self, gpa: u64, old: u64, new: u64) -> bool {
        self.race(gpa);
        let same = self.read64(gpa) == old;
        if same {
            self.put(gpa, new);
        }
        same
    }
}

/// A way to map one page.
#[derive(Debug, Clone, Copy)]
struct Shape {
    format: Format,
    /// log2 of the page's size.
    shift: u8,
}

const SHAPES: [Shape; 7] = [
    Shape { format: Format::Bits32, shift: 12 },
    Shape { format: Format::Bits32, shift: 22 },
    Shape { format: Format::Pae, shift: 12 },
    Shape { format: Format::Pae, shift: 21 },
    Shape { format: Format::Level4, shift: 12 },
    Shape { format: Format::Level4, shift: 21 },
    Shape { format: Format::Level4, shift: 30 },
];

const ROOT: u64 = 0x10_0000;
const P: u64 = 1;
const W: u64 = 2;
const U: u64 = 4;
const A: u64 = 0x20;
const D: u64 = 0x40;
const PS: u64 = 0x80;
const G: u64 = 0x100;
const NX: u64 = 1 << 63;

impl Shape {
    /// An address the shape can map.
    fn linear(self) -> u64 {
        match self.format {
            Format::Level4 => 0xffff_9234_5678_9abc,
            _ => 0x9234_5678,
        }
    }

    /// Where the page leads to: aligned.
    fn target(self) -> u64 {
        0x1_2345_6000
            & !((1 << self.shift) - 1)
            & if self.format == Format::Bits32 && self.shift == 12 { 0xffff_ffff } else { u64::MAX }
    }

    fn levels(self) -> Vec<u8> {
        let all: &[u8] = match self.format {
            Format::Bits32 => &[22, 12],
            Format::Pae => &[21, 12],
            _ => &[39, 30, 21, 12],
        };
        all.iter().copied().filter(|shift| *shift >= self.shift).collect()
    }

    fn entry_size(self) -> u64 {
        if self.format == Format::Bits32 { 4 } else { 8 }
    }

    /// Where the entry of each level is, leaf last.
    fn entries(self) -> Vec<u64> {
        let bits = if self.format == Format::Bits32 { 10 } else { 9 };
        let index = |shift: u8| self.linear() >> shift & ((1 << bits) - 1);
        (0..)
            .zip(self.levels())
            .map(|(depth, shift)| ROOT + depth * 0x1000 + index(shift) * self.entry_size())
            .collect()
    }

    fn paging(self) -> Paging {
        let mut pdptes = [0; 4];
        pdptes[(self.linear() >> 30 & 3) as usize] = ROOT | P;
        Paging {
            format: self.format,
            root: ROOT,
            pdptes,
            pse: true,
            nxe: true,
            wp: true,
            physical_bits: 40,
            ..Paging::default()
        }
    }

    /// Maps the page: `upper` are the bits of the entries above the leaf, `leaf` its own.
    fn map(self, memory: &mut Memory, upper: u64, leaf: u64) {
        let entries = self.entries();
        let last = entries.len() - 1;
        for (depth, at) in entries.into_iter().enumerate() {
            let value = if depth == last {
                let large = if self.shift > 12 { PS } else { 0 };
                self.leaf_address() | large | leaf
            } else {
                (ROOT + (depth as u64 + 1) * 0x1000) | upper
            };
            if self.entry_size() == 4 {
                memory.put32(at, value as u32);
            } else {
                memory.put(at, value);
            }
        }
    }

    fn leaf_address(self) -> u64 {
        match (self.format, self.shift) {
            // PSE-36: address bits 39..=32 are in bits 20..=13.
            (Format::Bits32, 22) => self.target() & 0xffc0_0000 | self.target() >> 32 << 13,
            _ => self.target(),
        }
    }

    fn entry(self, memory: &mut Memory, depth: usize) -> u64 {
        let at = self.entries()[depth];
        if self.entry_size() == 4 { memory.read32(at).into() } else { memory.read64(at) }
    }
}
