//! Guest addresses to host addresses, for translated code: arrays indexed by the page number.
//!
//! An entry is the distance from guest to host address of a page, or zero when the page is to be
//! looked at first. Each address space has one array for loads and one for stores. A *view* is what
//! the segment bases select: GS the loads' array, FS the stores'.
//!
//! | view | lower half of addresses | upper half |
//! | --- | --- | --- |
//! | of an address space (PCID) | its user pages, or those of a supervisor who runs there | the kernel's |
//! | of the supervisor, who may not touch user pages (SMAP) | always empty | the kernel's |
//!
//! The upper half's arrays exist once and are mapped into every view, as is the context below it.
//! So a change of privilege or of PCID is a change of two bases. User code masks its addresses to
//! the lower half, and cannot reach the kernel's.
//!
//! *Invariant*: an entry for stores is filled only while the page need not be watched
//! ([`guest_memory::PageBits::watched`]), and is dropped before watching begins.
//!
//! UNSAFETY: maps memory and writes entries through raw pointers; every entry translated code finds
//! is a distance to a whole page of guest memory, or zero.
#![allow(unsafe_code, reason = "the arrays are shared with generated code")]

mod half;
mod kick;
mod reservation;

use std::collections::HashSet;
use std::fs::File;
use std::hash::BuildHasherDefault;
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::ProtFlags;

use crate::cache::{COMPAT_MARK, KeyHasher};
use crate::context::{
    CONTEXT_SIZE, Context, FAR_JUMPS, FAR_TURN, JUMP_MASK, JUMPS, KNOWN_WINDOWS, KnownWindow,
    OTHER_JUMPS_MASK, StackWindow,
};
use crate::entry::HOST_MXCSR;
use crate::transition;
use half::Half;
pub(crate) use kick::KickWord;
use reservation::Reservation;

/// Bytes of one half of one array: 2^35 pages, 8 bytes each.
const HALF: usize = 1 << 38;
/// Bytes of a table of jumps.
pub(crate) const JUMPS_SIZE: usize = JUMPS * 8;
/// Bytes of a far table of jumps: address, negative, and place.
const FAR_JUMPS_SIZE: usize = FAR_JUMPS * 16;
/// Bytes below a view: its own jumps, the far ones first, then what the others are for; and the
/// context.
const BELOW: usize = FAR_JUMPS_SIZE + 2 * JUMPS_SIZE + CONTEXT_SIZE;
/// Displacement of user code's jumps from the GS base.
pub(crate) const USER_JUMPS: i32 = -((JUMPS_SIZE + CONTEXT_SIZE) as i32);
/// Displacement of the addresses, negative, that those are for.
pub(crate) const USER_JUMPS_FOR: i32 = USER_JUMPS - JUMPS_SIZE as i32;
/// Displacement of user code's far table.
pub(crate) const USER_FAR_JUMPS: i32 = -(BELOW as i32);
/// Address spaces kept: Linux uses six PCIDs.
const SPACES_MAX: usize = 6;
/// Views of all vCPUs together. Each takes a tebibyte of the process's 128, and there may be two
/// engines while a VM moves.
const VIEWS_MAX: usize = 56;
/// Pages that are listed one by one, before all that the list is for is dropped together.
const LISTED_MAX: usize = 4096;
/// Jumps of an address space that are listed one by one.
const JUMPS_LISTED_MAX: usize = 1 << 16;
/// Pages of a set at most: more than the code of a large program has.
const PAGES_MAX: usize = 1 << 16;
/// A stack window reaches this far from its middle, in bytes.
const WINDOW_REACH: u64 = 64 << 10;

fn memory_file(name: &str, size: usize) -> io::Result<File> {
    let file = File::from(memfd_create(name, MemfdFlags::CLOEXEC)?);
    ftruncate(&file, size as u64)?;
    Ok(file)
}

/// Files mapped into every view.
struct Shared {
    context: File,
    upper: [File; 2],
}

/// What the segment bases select.
struct View {
    reservation: Reservation,
}

impl View {
    /// With a lower half of its own, or one that is always empty.
    fn new(shared: &Shared, lower: ProtFlags) -> io::Result<Self> {
        let reservation = Reservation::new(BELOW + 4 * HALF)?;
        let own = BELOW - CONTEXT_SIZE;
        reservation.fill(0, own, ProtFlags::READ | ProtFlags::WRITE)?;
        reservation.share(own, CONTEXT_SIZE, &shared.context)?;
        for (array, upper) in shared.upper.iter().enumerate() {
            let start = BELOW + array * 2 * HALF;
            reservation.fill(start, HALF, lower)?;
            reservation.share(start + HALF, HALF, upper)?;
        }
        Ok(Self { reservation })
    }

    /// GS and FS base.
    fn bases(&self) -> [u64; 2] {
        [0, 1].map(|array| (self.reservation.start + BELOW + array * 2 * HALF) as u64)
    }

    fn half(&self, array: usize, upper: bool) -> *mut u64 {
        let half = if upper { HALF } else { 0 };
        (self.reservation.start + BELOW + array * 2 * HALF + half) as *mut u64
    }

    fn far_jumps(&self) -> *mut [u64; 2] {
        self.reservation.start as *mut [u64; 2]
    }

    fn jumps_for(&self) -> *mut u64 {
        (self.reservation.start + FAR_JUMPS_SIZE) as *mut u64
    }

    fn jumps(&self) -> *mut u64 {
        (self.reservation.start + FAR_JUMPS_SIZE + JUMPS_SIZE) as *mut u64
    }
}

/// One address space.
struct Space {
    view: View,
    halves: [Half; 2],
    pcid: u16,
    used: u64,
    /// Pages whose addresses are among the jumps.
    code_pages: Pages,
    /// The addresses that jumps were set for.
    jumps_set: Vec<u64>,
}

/// Who accesses memory: selects the view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Selector {
    /// User pages and the kernel's.
    Space,
    /// The kernel's only.
    Supervisor,
}

/// All views of a vCPU.
pub(crate) struct Views {
    context: NonNull<Context>,
    supervisor: View,
    /// Entries of the empty lower half that were looked at.
    looked_at: Half,
    upper: [Half; 2],
    spaces: Vec<Space>,
    current: usize,
    uses: u64,
    /// Pages of the upper half that are not global.
    upper_local: Vec<u64>,
    /// What every table of jumps is filled with.
    miss: u64,
    /// What the first entry of user code's and of the kernel's is, when it is to be found elsewhere.
    again: [u64; 2],
}

// SAFETY: the pointers are to mappings the value owns.
unsafe impl Send for Views {}

impl Views {
    /// All empty, of one of so many vCPUs. Jumps go to `miss` until they are known; those of an address
    /// that has no place of its own go to `again` from then on, the user's or the kernel's.
    ///
    /// # Errors
    /// When the host refuses.
    pub(crate) fn new(
        miss: u64,
        again: [u64; 2],
        vcpus: usize,
    ) -> io::Result<(Self, Arc<KickWord>)> {
        let spaces = (VIEWS_MAX / vcpus).saturating_sub(1).clamp(1, SPACES_MAX);
        let shared = Shared {
            context: memory_file("context", CONTEXT_SIZE)?,
            upper: [memory_file("loads", HALF)?, memory_file("stores", HALF)?],
        };
        let supervisor = View::new(&shared, ProtFlags::READ)?;
        let read_write = ProtFlags::READ | ProtFlags::WRITE;
        let spaces: io::Result<Vec<_>> = (0..spaces)
            .map(|_| {
                let view = View::new(&shared, read_write)?;
                let halves = [0, 1].map(|array| Half::new(view.half(array, false)));
                let code_pages = Pages::default();
                Ok(Space { view, halves, pcid: 0, used: 0, code_pages, jumps_set: Vec::new() })
            })
            .collect();
        let context = supervisor.bases()[0] as usize - CONTEXT_SIZE;
        let context = NonNull::new(context as *mut Context).ok_or(io::ErrorKind::OutOfMemory)?;
        let upper = [0, 1].map(|array| Half::new(supervisor.half(array, true)));
        let looked_at = Half::new(supervisor.half(0, false));
        let mut views = Self {
            context,
            supervisor,
            looked_at,
            upper,
            spaces: spaces?,
            current: 0,
            uses: 0,
            upper_local: Vec::new(),
            miss,
            again,
        };
        for view in views.spaces.iter().map(|space| &space.view).chain([&views.supervisor]) {
            // SAFETY: the table is as long as this, and nothing else knows it yet.
            unsafe { std::slice::from_raw_parts_mut(view.jumps(), JUMPS) }.fill(miss);
        }
        let context = views.context();
        context.jumps.fill(miss);
        context.other_jumps_mask = OTHER_JUMPS_MASK;
        context.far_jumps_mask = FAR_JUMPS as u64 - 1;
        context.page_mask = [0x7fff_ffff_f000, 0xffff_ffff_f000];
        *context.jump_mask.get_mut() = JUMP_MASK;
        context.low_mask = [0, 1, 3, 7, 15, 31, 63];
        context.upper_mask = std::array::from_fn(|low| 0xfff & u64::MAX << low);
        context.flags_mask = 0x0100_07ff;
        transition::prepare(context);
        context.offset_mask = 0xfff;
        context.carry_mask = 0x1000;
        context.stack = [StackWindow::EMPTY; 2];
        context.known_windows = [[KnownWindow::NONE; KNOWN_WINDOWS]; 2];
        context.mxcsr = [HOST_MXCSR; 2];
        let mapping = Reservation::new(CONTEXT_SIZE)?;
        mapping.share(0, CONTEXT_SIZE, &shared.context)?;
        Ok((views, Arc::new(KickWord { mapping })))
    }

    /// The context, which translated code shares: to be used only while none runs.
    pub(crate) fn context(&mut self) -> &mut Context {
        // SAFETY: mapped as long as `self` lives, zero or what was written since; the borrow of
        // `self` keeps translated code, which needs it too, from running.
        unsafe { self.context.as_mut() }
    }

    /// Bytes of memory of its own that all of it takes, at most, and of shared mappings.
    pub(crate) fn bytes(&self) -> [usize; 2] {
        let jumps = |space: &Space| match space.used {
            0 => JUMPS_SIZE,
            _ => BELOW - CONTEXT_SIZE,
        };
        let own =
            |space: &Space| jumps(space) + space.halves.iter().map(Half::bytes).sum::<usize>();
        let upper: usize = self.upper.iter().map(Half::bytes).sum();
        [self.spaces.iter().map(own).sum::<usize>() + JUMPS_SIZE, upper + CONTEXT_SIZE]
    }

    /// GS and FS base of a view.
    pub(crate) fn bases(&self, selector: Selector) -> [u64; 2] {
        match selector {
            Selector::Space => self.spaces[self.current].view.bases(),
            Selector::Supervisor => self.supervisor.bases(),
        }
    }

    /// Keeps where a page is: `distance` from guest to host address.
    pub(crate) fn fill(&mut self, linear: u64, write: bool, distance: u64, global: bool) {
        let page = linear >> 12;
        let array = usize::from(write);
        if linear >> 63 == 0 {
            self.spaces[self.current].halves[array].set(page, distance);
            return;
        }
        self.upper[array].set(page, distance);
        if !global {
            if self.upper_local.len() == LISTED_MAX {
                self.flush_upper();
                self.upper[array].set(page, distance);
            }
            self.upper_local.push(page);
        }
    }

    /// Address of the entry for stores.
    pub(crate) fn write_entry(&self, linear: u64) -> u64 {
        let half =
            if linear >> 63 == 0 { &self.spaces[self.current].halves[1] } else { &self.upper[1] };
        half.place(linear >> 12) as u64
    }

    /// Drops one entry: what [`Views::write_entry`] returned.
    pub(crate) fn drop_entry(&mut self, entry: u64) {
        let bounds = |half: &Half| half.entries as u64..half.entries as u64 + HALF as u64;
        let own = |half: &Half| bounds(half).contains(&entry) && entry.is_multiple_of(8);
        assert!(own(&self.upper[1]) || self.spaces.iter().any(|s| own(&s.halves[1])));
        // SAFETY: it is an entry of ours. Translated code reads whole words.
        unsafe { (entry as *mut u64).write_volatile(0) };
    }

    /// From guest to host address of a page stores may go to.
    pub(crate) fn store_distance(&self, linear: u64, selector: Selector) -> Option<u64> {
        let half = match (linear >> 63, selector) {
            (0, Selector::Supervisor) => return None,
            (0, Selector::Space) => &self.spaces[self.current].halves[1],
            _ => &self.upper[1],
        };
        half.get(linear >> 12)
    }

    /// The window of pages around one that stores may go to, as far as they are known and lie in a
    /// row.
    pub(crate) fn window_around(&self, linear: u64, selector: Selector) -> Option<KnownWindow> {
        let page = linear & !0xfff;
        let distance = self.store_distance(page, selector)?;
        let same = |page: u64| self.store_distance(page, selector) == Some(distance);
        let (mut start, mut end) = (page, page + 4096);
        while page - start < WINDOW_REACH && same(start.wrapping_sub(4096)) {
            start -= 4096;
        }
        while end - page < WINDOW_REACH && same(end) {
            end += 4096;
        }
        Some(KnownWindow::new(linear, start, end, distance))
    }

    /// Translated code has looked at the entry of this address, whatever becomes of it.
    pub(crate) fn note(&mut self, linear: u64, write: bool, selector: Selector) {
        let array = usize::from(write);
        match (linear >> 63, selector) {
            (0, Selector::Space) => {
                self.spaces[self.current].halves[array].note(linear >> 12, false);
            }
            (0, Selector::Supervisor) => self.looked_at.note(linear >> 12, false),
            _ => self.upper[array].note(linear >> 12, false),
        }
    }

    /// Drops the translations of a page of `1 << shift` bytes, of every address space; jumps to the
    /// kernel are the caller's business.
    pub(crate) fn invalidate(&mut self, linear: u64, shift: u8) {
        let first = (linear >> shift) << (shift - 12);
        let count = 1u64 << (shift - 12);
        if linear >> 63 != 0 {
            for half in &mut self.upper {
                clear_pages(half, first, count);
            }
            return;
        }
        for space in &mut self.spaces {
            for half in &mut space.halves {
                clear_pages(half, first, count);
            }
            if space.code_pages.has_any(first, count) {
                forget_jumps(space, self.miss);
            }
        }
    }

    /// Drops the jumps to the kernel's code in these pages.
    pub(crate) fn forget_kernel_jumps(&mut self, first: u64, count: u64) {
        let miss = self.miss;
        if count >= 16 {
            self.forget_all_kernel_jumps();
            return;
        }
        self.forget_other_jumps();
        // An instruction of the page before may end on the first.
        for page in first.wrapping_sub(1)..first + count {
            let start = (page as usize & 15) << 12;
            self.context().jumps[start..start + 4096].fill(miss);
        }
    }

    /// Selects the address space of a PCID; without `keep`, none of its translations are kept.
    /// What the upper half has that is not global is dropped: true, if there was any.
    pub(crate) fn select(&mut self, pcid: u16, keep: bool) -> bool {
        let upper = self.flush_upper_local();
        self.uses += 1;
        let found = self.spaces.iter().position(|s| s.used != 0 && s.pcid == pcid);
        let index = found.unwrap_or_else(|| {
            let oldest = self.spaces.iter().enumerate().min_by_key(|(_, s)| s.used);
            oldest.map_or(0, |(index, _)| index)
        });
        let space = &mut self.spaces[index];
        if found.is_none() || !keep {
            flush_space(space, self.miss);
        }
        space.pcid = pcid;
        space.used = self.uses;
        self.current = index;
        upper
    }

    /// Drops a PCID's translations that are not global. True, if the upper half had any.
    pub(crate) fn flush_pcid(&mut self, pcid: u16) -> bool {
        let upper = self.flush_upper_local();
        for space in &mut self.spaces {
            if space.pcid == pcid {
                flush_space(space, self.miss);
            }
        }
        upper
    }

    /// Drops everything that is not global.
    pub(crate) fn flush_local(&mut self) {
        self.flush_upper_local();
        for space in &mut self.spaces {
            flush_space(space, self.miss);
        }
    }

    /// Drops everything.
    pub(crate) fn flush(&mut self) {
        self.flush_local();
        self.flush_upper();
        self.forget_all_kernel_jumps();
    }

    fn forget_all_kernel_jumps(&mut self) {
        let miss = self.miss;
        self.context().jumps.fill(miss);
        self.forget_other_jumps();
    }

    fn forget_other_jumps(&mut self) {
        // No address is one: the lower half has no entries here.
        self.context().other_jumps[0].fill(0);
    }

    /// Jumps to `rip`, the kernel's, go to `host` from now on when they have missed elsewhere.
    pub(crate) fn set_other_jump(&mut self, rip: u64, host: u64) {
        let index = (rip & 0xf | (rip >> 16 & 0xff) << 4) as usize;
        let context = self.context();
        context.other_jumps[0][index] = rip.wrapping_neg();
        context.other_jumps[1][index] = host;
    }

    /// Drops all entries for stores.
    pub(crate) fn flush_stores(&mut self) {
        self.upper[1].flush();
        for space in &mut self.spaces {
            space.halves[1].flush();
        }
    }

    fn flush_upper(&mut self) {
        self.upper_local.clear();
        for half in &mut self.upper {
            half.flush();
        }
    }

    fn flush_upper_local(&mut self) -> bool {
        let any = !self.upper_local.is_empty();
        for page in self.upper_local.drain(..) {
            for half in &self.upper {
                half.clear(page);
            }
        }
        any
    }

    /// There are jumps to the page of this user address.
    pub(crate) fn has_jumps_to(&self, rip: u64) -> bool {
        self.spaces[self.current].code_pages.has_any(rip >> 12, 1)
    }

    /// Jumps to `rip` go to `host` from now on; the instruction there may be on the next page too. Of
    /// 32-bit code, `rip` is marked.
    pub(crate) fn set_jump(&mut self, rip: u64, user: bool, host: u64, crosses: bool) {
        let index = rip as usize & (JUMPS - 1);
        // The first entry stays one for all.
        let place = if index == 0 { self.again[usize::from(!user)] } else { host };
        if !user {
            self.context().jumps[index] = place;
            return;
        }
        let space = &mut self.spaces[self.current];
        if space.code_pages.is_full() {
            forget_jumps(space, self.miss);
        }
        let number = (if rip & COMPAT_MARK == COMPAT_MARK { rip ^ COMPAT_MARK } else { rip }) >> 12;
        for page in [number, number + u64::from(crosses)] {
            space.code_pages.add(page);
        }
        let far = far_place(rip);
        if space.jumps_set.len() <= JUMPS_LISTED_MAX {
            space.jumps_set.push(rip);
        }
        // SAFETY: the indices are inside the tables, which are mapped as long as `self` lives.
        unsafe {
            space.view.jumps().add(index).write_volatile(place);
            space.view.jumps_for().add(index).write_volatile(rip.wrapping_neg());
            space.view.far_jumps().add(far).write_volatile([rip.wrapping_neg(), host]);
        }
    }

    /// Drops all jumps: translated code has moved.
    pub(crate) fn flush_jumps(&mut self) {
        let miss = self.miss;
        for space in &mut self.spaces {
            forget_jumps(space, miss);
        }
        self.forget_all_kernel_jumps();
    }
}

fn clear_pages(half: &mut Half, first: u64, count: u64) {
    // A gigabyte's entries are more than what is filled, as a rule.
    if count > 512 {
        half.flush();
        return;
    }
    for page in first..first + count {
        half.clear(page);
    }
}

fn flush_space(space: &mut Space, miss: u64) {
    for half in &mut space.halves {
        half.flush();
    }
    forget_jumps(space, miss);
}

fn forget_jumps(space: &mut Space, miss: u64) {
    // SAFETY: the tables are as long as this, and mapped as long as the space lives.
    let (jumps, far) = unsafe {
        (
            std::slice::from_raw_parts_mut(space.view.jumps(), JUMPS),
            std::slice::from_raw_parts_mut(space.view.far_jumps(), FAR_JUMPS),
        )
    };
    if space.jumps_set.len() > JUMPS_LISTED_MAX {
        jumps.fill(miss);
        far.fill([0; 2]);
    } else {
        for rip in &space.jumps_set {
            jumps[*rip as usize & (JUMPS - 1)] = miss;
            far[far_place(*rip)] = [0; 2];
        }
    }
    space.jumps_set.clear();
    space.code_pages.clear();
}

/// Where an address is in a far table: large programs have code 256 KiB apart. See
/// [`crate::entry::user_jump_again`].
fn far_place(rip: u64) -> usize {
    (rip.wrapping_add(rip.rotate_right(FAR_TURN))) as usize & (FAR_JUMPS - 1)
}

/// Pages by their numbers.
#[derive(Default)]
pub(crate) struct Pages(HashSet<u64, BuildHasherDefault<KeyHasher>>);

impl Pages {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn add(&mut self, page: u64) {
        self.0.insert(page);
    }

    /// It is to be cleared before more are added.
    pub(crate) fn is_full(&self) -> bool {
        self.0.len() >= PAGES_MAX
    }

    /// Has one of so many pages from the first on.
    pub(crate) fn has_any(&self, first: u64, count: u64) -> bool {
        if count > self.0.len() as u64 {
            return self.0.iter().any(|page| page.wrapping_sub(first) < count);
        }
        (first..first + count).any(|page| self.0.contains(&page))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_place_among_the_jumps_is_that_of_no_address() {
        const KERNEL: u64 = 0xffff_8000_0000_0000;
        let (mut views, kick) = Views::new(1, [2, 3], 1).unwrap();
        views.set_jump(KERNEL + 0x1_0001, false, 7, false);
        views.set_jump(KERNEL + 0x1_0000, false, 7, false);
        assert_eq!(views.context().jumps[..3], [3, 7, 1]);
        engine_soft::Alarm::ring(&*kick);
        assert_eq!(*views.context().jump_mask.get_mut(), 0, "every jump finds the first place");
    }
}
