//! From guest instructions to host instructions.
//!
//! Guest and host are the same architecture: most instructions are copied, with other registers and
//! another memory operand (see [`crate::context`] for which registers hold what). What is added is
//! the look at each memory access, and the ways out.
//!
//! *Invariants*: a check precedes the access it is for, and nothing the guest can see changes
//! before the last check of its instruction; so an instruction that leaves can be begun again.
//! Checks use the arithmetic flags only where the guest's are dead.

mod control;
mod copy;
mod flags;
mod form;
mod look;
mod memory;
mod privilege;
mod stack;
mod string;
mod system;
#[cfg(test)]
mod tests;
mod time;

use x86_decode::native::{Class, Native};
use x86_encode::{Alu, Assembler, Cond, Label, Mem, Reg};

use crate::cache::{Cache, Key, Mode, NewUnit, Point, Reason, SITE_JUMP, Site, SiteKind};
use crate::code::Place;
use crate::context::{LOOKS, field, stack_field};
use crate::views::USER_JUMPS_FOR;
use copy::Held;
use form::Form;
pub(crate) use form::{Frame, Source};
use look::{Look, Looked};
use system::System;

/// Host register of a guest register, where it has one.
const HOST: [Reg; 16] = [
    Reg::RAX,
    Reg::R11,
    Reg::RDX,
    Reg::RBX,
    Reg::RSP,
    Reg::RBP,
    Reg::RSI,
    Reg::RDI,
    Reg::R8,
    Reg::R9,
    Reg::R10,
    Reg::R11,
    Reg::R12,
    Reg::R13,
    Reg::R14,
    Reg::R15,
];
/// Guest registers of special treatment.
const GUEST_RCX: u8 = 1;
const GUEST_RSP: u8 = 4;
const GUEST_R10: u8 = 10;
const GUEST_R11: u8 = 11;

/// Bytes of [`Translator::checked_user_entry`] but for the offset in the page.
const USER_ENTRY_SIZE: u32 = 9 + 4 + 2 + 5 + 3 + 9;
/// Bytes of [`Translator::leave_64_bit_code`].
const COMPAT_CHECK_SIZE: u32 = 9 + 2 + 5 + 5;

/// A field of the context.
fn context(displacement: i32) -> Mem {
    Mem::gs(displacement)
}

/// A guest register that lives in the context.
fn in_context(register: u8) -> Mem {
    context(field!(gpr) + 8 * i32::from(register))
}

/// What is done out of line, behind the unit.
enum Cold {
    /// Leaves with this site.
    Leave(u32),
    /// A misaligned access of this size at the address in R10: back when it is within one page.
    Misaligned { size: u16, back: Label, crossing: Label },
    /// See [`Translator::look_closer`].
    Near(Look),
    /// See [`Translator::look_up`].
    Empty(Look),
    /// Somewhere else out of line.
    Jump(Label),
    /// The frame is not in the stack window: another window, or another unit. `room` is what R10 is
    /// compared with.
    Window { room: Mem, back: Label },
    /// The flags kept by the instruction of this index are put back, then it leaves.
    PutBackFlags { index: usize, out: Label },
}

/// Translates; kept between units for its buffers.
pub(crate) struct Translator {
    form: Form,
    asm: Assembler,
    sites: Vec<Site>,
    points: Vec<Point>,
    cold: Vec<(Label, Cold)>,
    /// Where in the code what is out of line begins.
    cold_from: usize,
    /// Of the unit at hand.
    unit: Current,
}

/// What is known of the unit at hand.
struct Current {
    /// Linear address, or the offset in the page: see [`Key::rip`].
    rip: u64,
    mode: Mode,
    /// Places of the cache's stubs, from the unit's beginning.
    leave: u32,
    miss: u32,
    window: u32,
    first_site: u32,
    body: Label,
    /// RCX holds the stack window's distance.
    distance_at_hand: bool,
    /// What RCX holds of memory looked at; it goes with any change of RCX.
    looked: Option<Looked>,
    /// What the context holds of memory looked at before.
    kept: [Option<Looked>; LOOKS],
    /// What is in the stack window, from RSP where a jump of the instruction at hand goes to.
    frame: Option<Frame>,
    /// The x87 state is in the CPU.
    x87_at_hand: bool,
    /// What R10 and RCX hold.
    held: [Held; 2],
}

impl Default for Translator {
    fn default() -> Self {
        let mut asm = Assembler::new();
        let unit = Current {
            rip: 0,
            mode: Mode::empty(),
            leave: 0,
            miss: 0,
            window: 0,
            first_site: 0,
            body: asm.label(),
            distance_at_hand: false,
            looked: None,
            kept: [None; LOOKS],
            frame: None,
            x87_at_hand: false,
            held: [Held::Nothing; 2],
        };
        Self {
            form: Form::default(),
            asm,
            sites: Vec::new(),
            points: Vec::new(),
            cold: Vec::new(),
            cold_from: 0,
            unit,
        }
    }
}

impl Translator {
    /// Translates and keeps the unit of this key.
    pub(crate) fn translate(&mut self, key: &Key, source: &Source<'_>, cache: &mut Cache) {
        let page = key.rip & !0xfff;
        let is_there = |offset| cache.find_on_page(key, page | offset as u64).is_some();
        self.form.form(source, is_there);
        let start = cache.memory.next();
        self.asm.clear();
        self.sites.clear();
        self.points.clear();
        self.cold.clear();
        let kernel = usize::from(!source.mode.contains(Mode::USER));
        self.unit = Current {
            rip: source.rip,
            mode: source.mode,
            leave: cache.leave.wrapping_sub(start),
            miss: cache.jump_again[kernel].wrapping_sub(start),
            window: cache.window[kernel].wrapping_sub(start),
            first_site: cache.next_site(),
            body: self.asm.label(),
            distance_at_hand: false,
            looked: None,
            kept: [None; LOOKS],
            frame: None,
            x87_at_hand: false,
            held: [Held::Nothing; 2],
        };
        let entry = source.jumped_to.then(|| self.checked_entry());
        let body = self.here();
        self.asm.bind(self.unit.body);
        self.begin_body();
        self.check_frame();
        let inner = self.here();
        let ended = (0..self.form.insns.len()).any(|index| self.insn(index));
        if !ended {
            self.fall_out();
        }
        let link = self.link_entry(key, body);
        while !self.here().is_multiple_of(16) {
            self.asm.int3();
        }
        let cold_from = self.asm.code().len();
        self.cold_from = cold_from;
        self.asm.move_apart((cache.memory.next_cold() - start) as usize - cold_from);
        let entry = entry.unwrap_or_else(|| self.entry_apart());
        let retired_exit = self.emit_cold(body);
        self.link_now(key, cache);
        cache.add_sites(&self.sites);
        cache.add(&NewUnit {
            key: *key,
            link,
            code: &self.asm.code()[..cold_from],
            cold: &self.asm.code()[cold_from..],
            entry,
            body,
            inner,
            frame: self.form.own_frame(),
            retired_exit,
            lines: self.form.lines,
            points: &self.points,
        });
    }

    /// Links to what there is on the page.
    fn link_now(&mut self, key: &Key, cache: &mut Cache) {
        if !cache.links {
            return;
        }
        let start = cache.memory.next();
        let first = self.unit.first_site;
        for (site, number) in self.sites.iter().zip(first..) {
            if site.reason != Reason::Link {
                continue;
            }
            let Some(other) = cache.find_on_page(key, site.rip) else { continue };
            let Some((to, inner)) = cache.entrance(site, &other) else { continue };
            let at = site.host as usize;
            let place = &mut self.asm.code_mut()[at..at + 4];
            if inner {
                cache.note_inner(&other, number);
            }
            place.copy_from_slice(&to.wrapping_sub(start + site.host + 4).to_le_bytes());
        }
    }

    /// Where units of the same page are linked to. What is on a second page as well is that only
    /// while the jumps by address say so, but for the kernel's, whose pages are watched.
    fn link_entry(&mut self, key: &Key, body: Place) -> Place {
        if key.second.is_none() || !key.mode.intersects(Mode::USER | Mode::LOCAL) {
            return body;
        }
        let link = self.here();
        self.set_address(Reg::R10, 8, key.rip);
        self.jump_to_r10();
        link
    }

    /// Place of what is out of line, from the unit's beginning.
    #[cfg(test)]
    fn cold_at(&self) -> u64 {
        (self.asm.here() - (self.asm.code().len() - self.cold_from)) as u64
    }

    /// Place in the unit of what is written next.
    fn here(&self) -> Place {
        self.asm.here() as Place
    }

    fn user(&self) -> bool {
        self.unit.mode.contains(Mode::USER)
    }

    /// 32-bit code.
    fn compat(&self) -> bool {
        self.unit.mode.contains(Mode::COMPAT)
    }

    /// Bytes of an address, and of what PUSH pushes.
    fn word(&self) -> u8 {
        form::word_of(self.unit.mode)
    }

    /// A register = a guest address: as it is, or as far as it is from the page. A size of less than 8
    /// leaves that of it.
    fn set_address(&mut self, to: Reg, size: u8, address: u64) {
        if !self.user() {
            let mask = u64::MAX >> (64 - 8 * u32::from(size));
            self.asm.mov_ri(to, address & mask);
            return;
        }
        self.asm.load(8, to, context(field!(code_page)));
        let distance = address as i64;
        let first = distance.clamp(i32::MIN.into(), i32::MAX.into());
        if first != distance {
            // A displacement from the end of the page.
            self.asm.lea(8, to, Mem::at(to, (distance - first) as i32));
        }
        if first != 0 || size != 8 {
            self.asm.lea(size, to, Mem::at(to, first as i32));
        }
    }

    /// Guest address of an instruction, as of [`Key::rip`].
    fn rip_of(&self, insn: &Native) -> u64 {
        self.unit.rip.wrapping_add(u64::from(insn.offset))
    }

    /// Guest address behind an instruction.
    fn rip_after(&self, insn: &Native) -> u64 {
        self.rip_of(insn).wrapping_add(u64::from(insn.len))
    }

    /// The guest's flags may be overwritten before this instruction.
    fn flags_free(&self, index: usize) -> bool {
        self.form.live[index] == 0
    }

    /// A site of the unit.
    fn site(&mut self, reason: Reason, rip: u64, host: Place) -> u32 {
        let frame = self.unit.frame.filter(|_| reason == Reason::Link);
        let mut kind = SiteKind::RAISES;
        kind.set(SiteKind::NEAR, self.user());
        self.sites.push(Site { rip, host, out: 0, frame, reason, kind });
        self.unit.first_site + self.sites.len() as u32 - 1
    }

    /// Somewhere out of line that leaves.
    fn way_out(&mut self, reason: Reason, rip: u64, host: Place) -> Label {
        let site = self.site(reason, rip, host);
        let label = self.asm.label();
        self.cold.push((label, Cold::Leave(site)));
        label
    }

    /// Where jumps by address arrive, with it in R10: goes on only when it is this unit's. No flag
    /// is touched.
    fn checked_entry(&mut self) -> Place {
        if self.user() {
            return self.checked_user_entry();
        }
        let entry = self.here();
        let negative = self.unit.rip.wrapping_neg();
        let body = self.unit.body;
        match i32::try_from(negative as i64) {
            Ok(disp) => self.asm.lea(8, Reg::RCX, Mem::at(Reg::R10, disp)),
            Err(_) => {
                self.asm.mov_ri(Reg::RCX, negative);
                self.asm.lea(8, Reg::RCX, Mem::at(Reg::RCX, 0).index(Reg::R10, 0));
            }
        }
        self.asm.jrcxz(body);
        self.jump_to_place(self.unit.miss);
        while !self.here().is_multiple_of(8) {
            self.asm.raw(&[0xcc]);
        }
        entry
    }

    /// The same for user code: what led here was an entry of the table, RCX, and another table has the
    /// address that entry is for.
    ///
    /// ```text
    ///        mov rcx, gs:[rcx*8 + addresses]   ; negative
    ///        lea rcx, [rcx + r10]
    ///        jrcxz there
    ///        jmp miss
    /// there: lea rcx, [r10 - offset]
    ///        mov gs:[code_page], rcx
    /// ```
    fn checked_user_entry(&mut self) -> Place {
        let there = self.asm.label();
        // The body behind it is to begin at a multiple of eight.
        let offset = -(self.unit.rip as i32);
        let distance_size = match offset {
            0 => 0,
            -128..0 => 1,
            _ => 4,
        };
        let own_size = if self.compat() { COMPAT_CHECK_SIZE } else { 0 };
        let size = USER_ENTRY_SIZE + own_size + distance_size;
        while !(self.here() + size).is_multiple_of(8) {
            self.asm.int3();
        }
        let entry = self.here();
        self.asm.load(8, Reg::RCX, Mem::gs(USER_JUMPS_FOR).index(Reg::RCX, 3));
        self.asm.lea(8, Reg::RCX, Mem::at(Reg::RCX, 0).index(Reg::R10, 0));
        self.asm.jrcxz(there);
        self.jump_to_place(self.unit.miss);
        self.asm.bind(there);
        self.leave_64_bit_code();
        self.asm.lea(8, Reg::RCX, Mem::at(Reg::R10, offset));
        self.asm.store(8, context(field!(code_page)), Reg::RCX);
        debug_assert_eq!(self.here(), entry + size);
        entry
    }

    /// Of 32-bit code: 64-bit code that has jumped here has left the canonical addresses.
    ///
    /// ```text
    ///     mov rcx, gs:[long_code]
    ///     jrcxz on
    ///     mov ecx, SITE_JUMP
    ///     jmp leave
    /// on:
    /// ```
    fn leave_64_bit_code(&mut self) {
        if !self.compat() {
            return;
        }
        let on = self.asm.label();
        self.asm.load(8, Reg::RCX, context(field!(long_code)));
        self.asm.jrcxz(on);
        self.asm.mov_ri(Reg::RCX, SITE_JUMP.into());
        self.jump_to_place(self.unit.leave);
        self.asm.bind(on);
    }

    /// The checked entry, out of line. Returns where.
    fn entry_apart(&mut self) -> Place {
        let body = std::mem::replace(&mut self.unit.body, self.asm.label());
        let entry = self.checked_entry();
        self.asm.bind(self.unit.body);
        self.asm.jmp(body);
        self.unit.body = body;
        entry
    }

    /// What can become a jump: an instruction of five bytes or more which is all in the first eight.
    /// That of the check that follows will do, but for one without a displacement.
    fn begin_body(&mut self) {
        if self.form.frame.is_none_or(|(_, end)| end == 1) {
            self.asm.raw(&[0x0f, 0x1f, 0x44, 0, 0]);
        }
    }

    /// JMP to a place given from the unit's beginning.
    fn jump_to_place(&mut self, place: u32) {
        let distance = place.wrapping_sub(self.here() + 5);
        self.asm.raw(&[0xe9]);
        self.asm.raw(&distance.to_le_bytes());
    }

    /// The unit's stack accesses are all inside the window, or it is not the one to run.
    fn check_frame(&mut self) {
        let Some((first, end)) = self.form.frame else { return };
        let user = self.user();
        let room = ((end - first - 1) / crate::context::ROOM_SIZE as i32) as usize;
        let window_end = std::mem::offset_of!(crate::context::StackWindow, end);
        let rooms = std::mem::offset_of!(crate::context::StackWindow, room);
        self.asm.lea(8, Reg::R10, Mem::at(Reg::RSP, end - 1));
        self.asm.alu_rm(Alu::Sub, 8, Reg::R10, context(stack_field(user, window_end)));
        let room = context(stack_field(user, rooms + 8 * room));
        self.asm.alu_rm(Alu::Cmp, 8, Reg::R10, room);
        let out = self.asm.label();
        self.asm.jcc(Cond::B, out);
        let back = self.asm.label_here();
        self.cold.push((out, Cold::Window { room, back }));
    }

    /// Out of line: the frame is not in the stack window.
    fn other_window(&mut self, room: Mem, back: Label) {
        let site = self.site(Reason::Window, self.unit.rip, 0);
        self.asm.store_imm32(4, context(field!(site)), site as i32);
        // LEA RCX, [RIP + 5]: behind the jump.
        self.asm.raw(&[0x48, 0x8d, 0x0d, 5, 0, 0, 0]);
        self.jump_to_place(self.unit.window);
        let retry = self.here();
        if let Some(last) = self.sites.last_mut() {
            last.host = retry;
        }
        self.asm.alu_rm(Alu::Cmp, 8, Reg::R10, room);
        self.asm.jcc(Cond::Ae, back);
        self.asm.align_for_rel32(1);
        let at = self.here() + 1;
        let out = self.way_out(Reason::Careful, self.unit.rip, at);
        self.asm.jmp(out);
    }

    /// One instruction. True when nothing follows it.
    fn insn(&mut self, index: usize) -> bool {
        let insn = self.form.insns[index];
        self.points.push(Point { host: self.here(), guest: insn.offset });
        self.unit.frame = self.form.frame_behind(index);
        match insn.class {
            Class::Copy | Class::Nop => {}
            // Where it does not jump, the temporaries stay what they are.
            Class::JumpIf => self.put_back(),
            Class::Push | Class::Pop => {
                self.let_go();
                self.forget_looked(insn.gpr_written | 1 << GUEST_RSP);
            }
            _ => {
                self.let_go();
                self.unit.kept = [None; LOOKS];
            }
        }
        match insn.class {
            Class::Nop => {}
            Class::Copy => {
                if !self.copy(index, &insn) {
                    self.let_go();
                    let out = self.way_out(Reason::Interpret, self.rip_of(&insn), 0);
                    self.asm.jmp(out);
                    return true;
                }
            }
            Class::Push => self.push(index, &insn),
            Class::Pop => self.pop(index, &insn),
            Class::Leave => self.leave_frame(index),
            Class::JumpIf => self.jump_if(index, &insn),
            Class::Loop => self.jump_by_rcx(index, &insn),
            Class::Jump => {
                self.go(self.target_of(&insn), self.flags_free(index));
                return true;
            }
            Class::Call => {
                self.call(index, &insn);
                return true;
            }
            Class::CallIndirect => {
                self.call_indirect(index, &insn);
                return true;
            }
            Class::JumpIndirect => {
                self.jump_indirect(index, &insn);
                return true;
            }
            Class::Ret => {
                self.ret(index, &insn);
                return true;
            }
            Class::PushFlags => self.push_flags(index, &insn),
            Class::PopFlags => self.pop_flags(index, &insn),
            Class::String => self.string(index, &insn),
            Class::System => match System::of(&insn, self.unit.mode) {
                Some(what) => return self.system(index, &insn, what),
                None => unreachable!("the form has no such instruction"),
            },
        }
        false
    }

    /// Behind the last instruction, which has not jumped: another unit, or the interpreter.
    fn fall_out(&mut self) {
        self.let_go();
        let rip = self.unit.rip.wrapping_add(self.form.size() as u64);
        if self.form.goes_on {
            self.go(rip, self.form.live_out == 0);
        } else {
            let out = self.way_out(Reason::Interpret, rip, 0);
            self.asm.jmp(out);
        }
    }

    /// What is out of line. Returns where a retired unit leaves.
    fn emit_cold(&mut self, body: Place) -> Place {
        let mut index = 0;
        while index < self.cold.len() {
            let (label, cold) = &self.cold[index];
            self.asm.bind(*label);
            match *cold {
                Cold::Leave(site) => self.leave(site),
                Cold::Misaligned { size, back, crossing } => self.misaligned(size, back, crossing),
                Cold::Near(look) => self.look_closer(&look),
                Cold::Empty(look) => self.look_up(&look),
                Cold::Jump(to) => self.asm.jmp(to),
                Cold::Window { room, back } => self.other_window(room, back),
                Cold::PutBackFlags { index, out } => {
                    self.put_back_flags(index);
                    self.asm.jmp(out);
                }
            }
            index += 1;
        }
        let retired = self.here();
        let site = self.site(Reason::Retired, self.unit.rip, body);
        self.leave(site);
        retired
    }

    fn leave(&mut self, site: u32) {
        let out = self.here();
        self.sites[(site - self.unit.first_site) as usize].out = out;
        self.asm.mov_ri(Reg::RCX, u64::from(site));
        self.jump_to_place(self.unit.leave);
    }
}
