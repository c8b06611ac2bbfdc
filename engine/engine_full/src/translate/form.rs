//! Which instructions make a unit, and what is known of each before any is translated.

use x86_decode::DecodeError;
use x86_decode::native::{Class, Native, NativeDecoder, flag};
use x86_state::CpuFeatures;

use crate::cache::Mode;
use crate::context::{ROOM_SIZE, ROOMS};

use super::system::{System, adapt};

/// Instructions of a unit at most.
const INSNS_MAX: usize = 64;
/// Conditional jumps a unit goes on behind.
const JUMPS_MAX: usize = 4;
/// How far to look for what becomes of flags.
const LOOK_DEPTH: u32 = 3;
const LOOK_INSNS: usize = 12;

const PAGE_SIZE: usize = 4096;
const RSP: u8 = 4;

/// A part of the stack, from where RSP is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    first: i16,
    end: i16,
}

impl Frame {
    /// Of the first byte to one past the last, from where RSP is `at`.
    fn new((first, end): (i32, i32), at: i32) -> Option<Self> {
        let from = |place: i32| i16::try_from(place - at).ok();
        Some(Self { first: from(first)?, end: from(end)? })
    }

    /// All of the other is in it.
    pub(crate) fn has(self, other: Self) -> bool {
        self.first <= other.first && other.end <= self.end
    }
}

/// Guest code to translate: a page's bytes, and where to begin.
pub(crate) struct Source<'a> {
    /// Linear address of the first instruction.
    pub(crate) rip: u64,
    /// The whole page; and the beginning of the next, where the first instruction is on both.
    pub(crate) bytes: &'a [u8],
    /// What the CPU has, of what not every profile has.
    pub(crate) features: CpuFeatures,
    /// What for.
    pub(crate) mode: Mode,
    /// A jump by address leads here: the entry for these belongs with what often runs.
    pub(crate) jumped_to: bool,
    /// What whoever comes here first has looked at of the stack: who comes after this unit may want
    /// it, too.
    pub(crate) frame: Option<Frame>,
}

impl Source<'_> {
    fn decoder(&self, at: usize) -> NativeDecoder<'_> {
        NativeDecoder::new(self.mode.code_bits(), &self.bytes[at..]).with_features(self.features)
    }

    fn offset(&self) -> usize {
        self.rip as usize & (PAGE_SIZE - 1)
    }
}

/// A unit's instructions, analysed.
#[derive(Default)]
pub(crate) struct Form {
    /// All that are copied or otherwise done, in order.
    pub(crate) insns: Vec<Native>,
    /// Flags that are read before they are overwritten, from before each instruction on.
    pub(crate) live: Vec<u8>,
    /// The same from behind the last one on.
    pub(crate) live_out: u8,
    /// The same at the target of each conditional jump.
    pub(crate) taken: Vec<u8>,
    /// What is behind the last instruction is translated as well: only limits ended the unit.
    pub(crate) goes_on: bool,
    /// RSP before each instruction, from what it is at the beginning; where that is known.
    pub(crate) stack: Vec<Option<i32>>,
    /// The accesses at a known distance lie here: first byte and one past the last.
    pub(crate) frame: Option<(i32, i32)>,
    /// Lines of the page that were read.
    pub(crate) lines: u64,
    mode: Mode,
}

impl Form {
    /// Takes as many instructions as make a unit. None, when the first is not for translation.
    /// `is_there`: at this offset begins another, which what comes there is left to.
    pub(crate) fn form(&mut self, source: &Source<'_>, is_there: impl Fn(usize) -> bool) {
        self.insns.clear();
        self.lines = 0;
        self.mode = source.mode;
        let start = source.offset();
        let mut decoder = source.decoder(start);
        let mut jumps = 0;
        self.goes_on = true;
        while self.insns.len() < INSNS_MAX {
            let at = start + self.size();
            if at >= PAGE_SIZE || jumps > 0 && is_there(at) {
                break;
            }
            let next = decoder.next_insn().map(adapt);
            let Some(insn) = next.ok().filter(|insn| is_translated(insn, source.mode)) else {
                // One that is on two pages is a unit of its own.
                self.goes_on = next.is_err_and(|e| e == DecodeError::Truncated) && self.size() > 0;
                break;
            };
            let ends = match insn.class {
                Class::JumpIf | Class::Loop => {
                    jumps += 1;
                    jumps == JUMPS_MAX
                }
                Class::Call
                | Class::CallIndirect
                | Class::Ret
                | Class::Jump
                | Class::JumpIndirect => true,
                Class::System => System::of(&insn, source.mode).is_some_and(System::transfers),
                _ => false,
            };
            self.insns.push(insn);
            if ends {
                break;
            }
        }
        let end = start + self.size();
        // The bytes behind decided that the unit ends here.
        self.lines |= lines(start, (end + 15).min(PAGE_SIZE));
        self.find_live_flags(source);
        self.find_frame(source.mode);
        self.widen_frame(source.frame);
    }

    /// Bytes of guest code.
    pub(crate) fn size(&self) -> usize {
        self.insns.last().map_or(0, |last| usize::from(last.offset) + usize::from(last.len))
    }

    fn find_live_flags(&mut self, source: &Source<'_>) {
        let start = source.offset();
        let count = self.insns.len();
        self.live.clear();
        self.live.resize(count, flag::ALL);
        self.taken.clear();
        self.taken.resize(count, flag::ALL);
        let mut live = match self.insns.last() {
            Some(last) if matches!(last.class, Class::Jump | Class::Call) => 0,
            Some(last) if matches!(last.class, Class::Ret | Class::JumpIndirect) => flag::ALL,
            Some(last) if last.class == Class::CallIndirect => flag::ALL,
            Some(_) => self.look(source, start + self.size(), LOOK_DEPTH),
            None => flag::ALL,
        };
        self.live_out = live;
        for index in (0..count).rev() {
            let insn = self.insns[index];
            if let Class::JumpIf | Class::Loop | Class::Jump | Class::Call = insn.class {
                let target = target_offset(&insn, start);
                self.taken[index] = self.look(source, target, LOOK_DEPTH);
                live |= self.taken[index];
            }
            live = live & !insn.flags_written | insn.flags_read;
            self.live[index] = live;
        }
    }

    /// Flags that are read before they are overwritten, from this place of the page on.
    fn look(&mut self, source: &Source<'_>, from: usize, depth: u32) -> u8 {
        let (mut live, mut open) = (0, flag::ALL);
        let mut at = from;
        let mut left = LOOK_INSNS;
        'run: while at < PAGE_SIZE {
            let mut decoder = source.decoder(at);
            let begin = at;
            while let Ok(insn) = decoder.next_insn().map(adapt) {
                self.lines |= lines(at, at + usize::from(insn.len));
                let next = begin + usize::from(insn.offset) + usize::from(insn.len);
                if !is_translated(&insn, source.mode) {
                    return live | open;
                }
                live |= insn.flags_read & open;
                open &= !insn.flags_written;
                left -= 1;
                if open == 0 || left == 0 {
                    return live | open;
                }
                match insn.class {
                    Class::Jump | Class::Call => {
                        at = target_offset(&insn, begin);
                        continue 'run;
                    }
                    Class::JumpIf | Class::Loop if depth > 0 => {
                        let target = target_offset(&insn, begin);
                        live |= open & self.look(source, target, depth - 1);
                        if live == open {
                            return live;
                        }
                    }
                    Class::JumpIf
                    | Class::Loop
                    | Class::Ret
                    | Class::JumpIndirect
                    | Class::CallIndirect => return live | open,
                    _ => {}
                }
                at = next;
            }
            break;
        }
        live | open
    }

    /// Follows RSP from instruction to instruction, as far as it is known.
    fn find_frame(&mut self, mode: Mode) {
        self.stack.clear();
        self.frame = None;
        let word = word_of(mode);
        let usable = !mode.contains(Mode::NO_WINDOW) && self.live.first() == Some(&0);
        let mut at = usable.then_some(0);
        for index in 0..self.insns.len() {
            let insn = self.insns[index];
            if let (Some(rsp), Some((first, last))) = (at, accessed(&insn, word)) {
                let (mut first, mut last) = (rsp + first, rsp + last);
                if word == 4 {
                    // ESP is cut to 32 bits: where it is, it is in the window as well.
                    (first, last) = (first.min(rsp), last.max(rsp));
                }
                let frame = self.frame.map_or((first, last), |f| (f.0.min(first), f.1.max(last)));
                if (frame.1 - frame.0) as u64 <= ROOMS as u64 * ROOM_SIZE {
                    self.frame = Some(frame);
                } else {
                    at = None;
                }
            }
            self.stack.push(at);
            at = at.and_then(|rsp| after(&insn, rsp, word)).filter(|rsp| rsp.abs() < 1 << 20);
            // What is made room for is used by what comes after.
            if let (Some(rsp), Some((first, end))) = (at, self.frame)
                && insn.class == Class::Copy
                && rsp < first
                && (end - rsp) as u64 <= ROOMS as u64 * ROOM_SIZE
            {
                self.frame = Some((rsp, end));
            }
        }
    }

    /// A unit that looks at its frame looks at what was looked at before, too, as far as that goes.
    fn widen_frame(&mut self, known: Option<Frame>) {
        if let (Some((first, end)), Some(known)) = (self.frame, known) {
            let wide = (first.min(known.first.into()), end.max(known.end.into()));
            if (wide.1 - wide.0) as u64 <= ROOMS as u64 * ROOM_SIZE {
                self.frame = Some(wide);
            }
        }
    }

    /// The frame, from RSP at the beginning.
    pub(crate) fn own_frame(&self) -> Option<Frame> {
        self.frame_from(0)
    }

    /// The frame, from where RSP is `at`.
    fn frame_from(&self, at: i32) -> Option<Frame> {
        self.frame.and_then(|frame| Frame::new(frame, at))
    }

    /// The frame, from RSP where a jump of the instruction of this index goes to, which is no call:
    /// what is called has a frame of its own.
    pub(crate) fn frame_behind(&self, index: usize) -> Option<Frame> {
        let insn = self.insns.get(index)?;
        let before = (*self.stack.get(index)?)?;
        let at = match insn.class {
            Class::Jump | Class::JumpIf | Class::Loop => before,
            _ => after(insn, before, word_of(self.mode))?,
        };
        self.frame_from(at)
    }
}

/// Bytes of what PUSH pushes.
pub(crate) fn word_of(mode: Mode) -> u8 {
    if mode.contains(Mode::COMPAT) { 4 } else { 8 }
}

/// Lines of a page that bytes `first..end` touch.
fn lines(first: usize, end: usize) -> u64 {
    let (first, last) = (first / 64, ((end.max(first + 1) - 1) / 64).min(63));
    if first > 63 {
        return 0;
    }
    (u64::MAX >> (63 - (last - first))) << first
}

/// Offset in the page of a near branch's target, or something beyond the page.
pub(crate) fn target_offset(insn: &Native, begin: usize) -> usize {
    let next = (begin + usize::from(insn.offset) + usize::from(insn.len)) as i64;
    usize::try_from(next.wrapping_add(insn.imm)).unwrap_or(usize::MAX)
}

/// The translator does it; others are the interpreter's.
fn is_translated(insn: &Native, mode: Mode) -> bool {
    if !insn.is_portable() || insn.vector && mode.contains(Mode::NO_VECTOR) {
        return false;
    }
    let word = word_of(mode);
    if word == 4 && !is_flat(insn, mode) {
        return false;
    }
    match insn.class {
        Class::System => System::of(insn, mode).is_some(),
        Class::String => super::string::is_possible(insn, word),
        Class::PushFlags | Class::PopFlags => insn.op_size == word && !insn.op66,
        Class::Loop => insn.addr_size == word && matches!(insn.opcode(), 0xe2 | 0xe3),
        Class::Pop => insn.op_size == word && insn.mem.is_none(),
        Class::Push => insn.op_size == word,
        Class::Leave => !insn.op66,
        Class::Call
        | Class::CallIndirect
        | Class::Ret
        | Class::Jump
        | Class::JumpIndirect
        | Class::JumpIf => insn.op_size == word && !insn.op66,
        Class::Copy => super::copy::is_possible(insn),
        Class::Nop => true,
    }
}

/// Of 32-bit code: its memory operand, if any, is in a segment that is all of the 32-bit addresses.
fn is_flat(insn: &Native, mode: Mode) -> bool {
    use x86_state::SegReg;
    let Some(mem) = insn.mem.as_ref() else { return true };
    let flat = match mem.seg {
        SegReg::Fs => !mode.contains(Mode::NO_FS),
        SegReg::Gs => !mode.contains(Mode::NO_GS),
        // Code cannot be written to, and may not be readable.
        SegReg::Cs => false,
        _ => true,
    };
    flat && mem.addr_size == 4
}

/// Bytes an instruction accesses relative to RSP: first, and one past the last.
fn accessed(insn: &Native, word: u8) -> Option<(i32, i32)> {
    let size = i32::from(word);
    match insn.class {
        Class::Push | Class::PushFlags | Class::Call | Class::CallIndirect => {
            let own = by_stack_pointer(insn, word).unwrap_or((-size, 0));
            Some((own.0.min(-size), own.1.max(0)))
        }
        Class::Pop | Class::PopFlags | Class::Ret => Some((0, size)),
        _ => by_stack_pointer(insn, word),
    }
}

/// Bytes of a memory operand that is RSP and a displacement.
pub(crate) fn by_stack_pointer(insn: &Native, word: u8) -> Option<(i32, i32)> {
    use x86_decode::native::Access;
    use x86_state::SegReg;
    let mem = insn.mem.as_ref()?;
    let plain = mem.base == Some(RSP)
        && mem.index.is_none()
        && mem.addr_size == word
        && mem.access != Access::None
        && !matches!(mem.seg, SegReg::Fs | SegReg::Gs)
        && mem.disp.abs() < 1 << 20;
    plain.then(|| (mem.disp, mem.disp + i32::from(mem.size_bytes)))
}

/// RSP after an instruction, where it was at `rsp` before.
fn after(insn: &Native, rsp: i32, word: u8) -> Option<i32> {
    let size = i32::from(word);
    match insn.class {
        Class::Push | Class::PushFlags => Some(rsp - size),
        Class::PopFlags => Some(rsp + size),
        Class::Pop if insn.opcode_register() != RSP => Some(rsp + size),
        Class::Copy if insn.gpr_written & 1 << RSP == 0 => Some(rsp),
        Class::Copy => adjusted(insn, word).map(|by| rsp + by),
        Class::System if insn.gpr_written & 1 << RSP != 0 => None,
        Class::Nop | Class::JumpIf | Class::Loop | Class::String | Class::System => Some(rsp),
        _ => None,
    }
}

/// What ADD, SUB or LEA adds to RSP.
fn adjusted(insn: &Native, word: u8) -> Option<i32> {
    if insn.op_size != word || insn.bytes[usize::from(insn.opcode_at)] == 0x0f {
        return None;
    }
    let by = match (insn.opcode(), insn.modrm? >> 3 & 7) {
        (0x81 | 0x83, 0) if insn.mem.is_none() => insn.imm,
        (0x81 | 0x83, 5) if insn.mem.is_none() => insn.imm.checked_neg()?,
        (0x8d, _) => {
            let mem = insn.mem.as_ref()?;
            let plain = mem.base == Some(RSP) && mem.index.is_none() && mem.addr_size == word;
            plain.then_some(i64::from(mem.disp))?
        }
        _ => return None,
    };
    i32::try_from(by).ok().filter(|by| by.abs() < 1 << 20)
}
