//! Places in the code and the jumps to them.

/// A place jumps go to, before or after it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label(u32);

/// A jump of one byte does not reach its label, or a label was never placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfRange;

impl std::fmt::Display for OutOfRange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a jump does not reach its label")
    }
}

impl std::error::Error for OutOfRange {}

#[derive(Debug, Clone, Copy)]
struct Fixup {
    label: Label,
    /// Where the distance is, which counts from its end.
    at: u32,
    short: bool,
}

const UNPLACED: u32 = u32::MAX;

/// Labels and what waits for them.
#[derive(Debug, Default)]
pub(crate) struct Labels {
    places: Vec<u32>,
    fixups: Vec<Fixup>,
    missed: bool,
    /// What is from here on in the code will be so many bytes further on.
    apart: Option<(usize, usize)>,
}

impl Labels {
    pub(crate) fn clear(&mut self) {
        self.places.clear();
        self.fixups.clear();
        self.missed = false;
        self.apart = None;
    }

    pub(crate) fn set_apart(&mut self, from: usize, by: usize) {
        self.apart = Some((from, by));
    }

    /// Where a byte of the code will be.
    #[inline(always)]
    pub(crate) fn place_of(&self, at: usize) -> usize {
        match self.apart {
            Some((from, by)) if at >= from => at + by,
            _ => at,
        }
    }

    pub(crate) fn add(&mut self) -> Label {
        self.places.push(UNPLACED);
        Label(self.places.len() as u32 - 1)
    }

    pub(crate) fn place(&self, label: Label) -> Option<usize> {
        let place = self.places[label.0 as usize];
        (place != UNPLACED).then_some(place as usize)
    }

    /// The distance about to be written at the end of `code` goes to `label`.
    pub(crate) fn write_distance(&mut self, code: &mut Vec<u8>, label: Label, short: bool) {
        let at = code.len();
        code.extend_from_slice(if short { &[0] } else { &[0; 4] });
        match self.place(label) {
            Some(place) => self.patch(code, at, place, short),
            None => self.fixups.push(Fixup { label, at: at as u32, short }),
        }
    }

    pub(crate) fn bind(&mut self, code: &mut [u8], label: Label) {
        let place = self.place_of(code.len());
        self.places[label.0 as usize] = place as u32;
        let mut i = 0;
        while let Some(fixup) = self.fixups.get(i).copied() {
            if fixup.label == label {
                self.fixups.swap_remove(i);
                self.patch(code, fixup.at as usize, place, fixup.short);
            } else {
                i += 1;
            }
        }
    }

    pub(crate) fn finish(&self) -> Result<(), OutOfRange> {
        if self.missed || !self.fixups.is_empty() { Err(OutOfRange) } else { Ok(()) }
    }

    fn patch(&mut self, code: &mut [u8], at: usize, place: usize, short: bool) {
        let end = at + if short { 1 } else { 4 };
        let distance = place as i64 - (self.place_of(at) + end - at) as i64;
        if short {
            match i8::try_from(distance) {
                Ok(distance) => code[at] = distance as u8,
                Err(_) => self.missed = true,
            }
        } else {
            match i32::try_from(distance) {
                Ok(distance) => code[at..end].copy_from_slice(&distance.to_le_bytes()),
                Err(_) => self.missed = true,
            }
        }
    }
}
