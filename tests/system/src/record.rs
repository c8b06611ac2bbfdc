//! What a case sends.

use std::fmt::Write;

use crate::Oracle;

/// CF, PF, AF, ZF, SF and OF.
const ARITHMETIC: u64 = 0x8d5;

/// How the records of a guest are laid out.
#[derive(Debug)]
pub struct Layout {
    /// Bytes of a word: 4 or 8.
    pub word: usize,
    /// Names of the words.
    pub names: &'static [&'static str],
}

/// The words of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record(pub Vec<u64>);

impl Layout {
    /// The records in what came through the serial port.
    pub fn parse(&self, bytes: &[u8]) -> Vec<Record> {
        let words = |record: &[u8]| record.chunks(self.word).map(little_endian).collect();
        bytes.chunks_exact(self.size()).map(|r| Record(words(r))).collect()
    }

    /// Bytes of a record.
    pub(crate) fn size(&self) -> usize {
        self.word * self.names.len()
    }

    /// Makes equal what the oracle is known to do wrongly.
    pub(crate) fn forgive(&self, oracle: Oracle, record: &mut Record) {
        let vector = self.names.iter().position(|name| *name == "vector");
        if oracle == Oracle::Bochs {
            return self.forgive_bochs(record);
        }
        let is_page_fault = vector.is_some_and(|at| record.0[at] == 14);
        for (name, value) in self.names.iter().zip(&mut record.0) {
            match *name {
                // TCG does not set RF in the image that faults save,
                "flags" | "tss eflags" => *value &= !(1 << 16),
                // nor P in the error code of a reserved bit.
                "error" if is_page_fault && *value & 8 != 0 => *value |= 1,
                _ => {}
            }
        }
    }

    /// Bochs sets RF for the fault behind a double fault, which is none itself.
    fn forgive_bochs(&self, record: &mut Record) {
        let at = |wanted: &str| self.names.iter().position(|name| *name == wanted);
        if let (Some(vector), Some(flags)) = (at("vector"), at("tss eflags"))
            && record.0[vector] == 8
        {
            record.0[flags] &= !(1 << 16);
        }
    }

    /// `full` loses arithmetic flags that are overwritten before they are read, should what comes
    /// between fault (ADR 8).
    pub(crate) fn forgive_full(&self, record: &mut Record) {
        let at = |wanted: &str| self.names.iter().position(|name| *name == wanted);
        if let (Some(vector), Some(flags)) = (at("vector"), at("flags"))
            && matches!(record.0[vector], 10..=14)
        {
            record.0[flags] &= !ARITHMETIC;
        }
    }

    /// The words that differ, `ours` first.
    pub fn differences(&self, ours: &Record, theirs: &Record) -> String {
        let mut text = String::new();
        for ((name, ours), theirs) in self.names.iter().zip(&ours.0).zip(&theirs.0) {
            if ours != theirs {
                let _ = write!(text, " {name} {ours:#x} not {theirs:#x};");
            }
        }
        text
    }
}

fn little_endian(word: &[u8]) -> u64 {
    word.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}
