//! What has been translated, and where it is.
//!
//! A *unit* is translated code for a run of guest instructions of one page. It has two entries: the
//! checked one, which jumps by address reach and which compares the address, and its body, which
//! other units are linked to. Units of user code do not know where their page is mapped: the context
//! does ([`crate::context::Context::code_page`]), which their checked entry sees to; so they serve
//! every address space, and are linked inside of their page only. The body begins with an instruction of at least five bytes, which
//! does nothing where no other will do; a unit whose bytes were written is *retired* by turning that into a jump out, which is one
//! atomic store.
//!
//! Code memory is divided into *generations*, which take turns to grow. When there is no room left, the oldest one is
//! dropped with all it has: see `generations`.
//!
//! *Invariant*: a unit's lines are marked as code (guest_memory) before its bytes are read, so
//! every later store to them retires it.

mod generations;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;

use crate::code::{CodeMemory, GENERATIONS, Place};
use crate::translate::Frame;

bitflags::bitflags! {
    /// What a unit was translated for.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
    pub(crate) struct Mode: u16 {
        /// At privilege level 3.
        const USER = 1;
        /// x87, MMX and SSE may not be used: CR0.EM or CR0.TS, or no CR4.OSFXSR.
        const NO_VECTOR = 2;
        /// Each stack access looks for itself.
        const NO_WINDOW = 4;
        /// The page is not global: no other page may be linked to it.
        const LOCAL = 8;
        /// 32-bit user code in long mode, its segments flat but for FS and GS.
        const COMPAT = 16;
        /// That, and FS has a limit or may not be written to.
        const NO_FS = 32;
        /// The same of GS.
        const NO_GS = 64;
    }
}

impl Mode {
    /// Bits of code: 64 or 32.
    pub(crate) fn code_bits(self) -> u32 {
        if self.contains(Self::COMPAT) { 32 } else { 64 }
    }

    /// What jumps to code of this mode find it by: 32-bit code's addresses are marked, because other code
    /// of the same address space may be at the same address. No address of 64-bit user code is among those.
    pub(crate) fn jump_address(self, rip: u64) -> u64 {
        if self.contains(Self::COMPAT) { rip | COMPAT_MARK } else { rip }
    }
}

/// See [`Mode::jump_address`].
pub(crate) const COMPAT_MARK: u64 = 0xffff_ffff << 32;

/// Names a unit's translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// Linear address of kernel code; of user code, the offset in its page, wherever that is mapped.
    pub(crate) rip: u64,
    /// Page of guest memory.
    pub(crate) page: u32,
    /// The one its only instruction ends on, when that is another.
    pub(crate) second: Option<u32>,
    /// What for.
    pub(crate) mode: Mode,
}

/// What translated code leaves for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The code at the address in the scratch register is not among the jumps, or the vCPU was
    /// kicked.
    Jump,
    /// The code at the address is not linked: `host` is the place of the jump's distance.
    Link,
    /// Goes on at the address, after a look around.
    Go,
    /// The instruction at the address is the interpreter's.
    Interpret,
    /// A load of the address in the scratch register is to be looked at; it is tried again at
    /// `host`.
    Load,
    /// A store, as above.
    Store,
    /// The stack frame whose last byte is at the address in the scratch register is not in the stack
    /// window; goes on at `host`, in a window or not.
    Window,
    /// There is no window for the stack frame: `host` is the place of the distance of a jump to the
    /// unit that needs none.
    Careful,
    /// The x87 state is to be in the CPU; goes on at `host`.
    X87,
    /// The unit was retired: `host` is its body's place.
    Retired,
}

/// Where translated code leaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Site {
    /// Guest's instruction pointer, where the reason does not say otherwise.
    pub(crate) rip: u64,
    /// A place in code memory.
    pub(crate) host: Place,
    /// The place of the way out itself.
    pub(crate) out: Place,
    /// Of a link: of the stack, this is known to be in the window.
    pub(crate) frame: Option<Frame>,
    /// Why.
    pub(crate) reason: Reason,
    /// More.
    pub(crate) kind: SiteKind,
}

bitflags::bitflags! {
    /// What else there is to know of a site.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub(crate) struct SiteKind: u8 {
        /// Its address is a distance from [`crate::context::Context::code_page`].
        const NEAR = 1;
        /// Of a load or store: when its page is refused, that is what the instruction raises.
        const RAISES = 2;
    }
}

impl Site {
    /// It is of a jump that can be linked, whose distance is at `host`.
    fn has_link(&self) -> bool {
        matches!(self.reason, Reason::Link | Reason::Careful)
    }
}

/// Which instruction a place in a unit belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    /// First place.
    pub(crate) host: Place,
    /// Guest's instruction, from the unit's beginning.
    pub(crate) guest: u16,
}

/// A translated run of instructions.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) key: Key,
    /// Checked entry.
    pub(crate) entry: Place,
    /// What other units of the page are linked to: the body, or a jump by address.
    pub(crate) link: Place,
    /// The beginning of the body, which can become a jump.
    pub(crate) body: Place,
    /// Behind the body's look at its frame, which this is.
    inner: Place,
    frame: Option<Frame>,
    /// Where retired units leave.
    pub(crate) retired_exit: Place,
    /// What often runs of it begins there.
    begin: Place,
    /// What seldom runs of it begins there.
    cold: Place,
    /// Lines of the page whose bytes it depends on, by bits.
    pub(crate) lines: u64,
    points: (u32, u32),
    /// It is among the page's jumps.
    jumped_to: bool,
}

/// A unit ready to be kept; places are from the beginning of its code.
pub(crate) struct NewUnit<'a> {
    pub(crate) key: Key,
    pub(crate) link: Place,
    pub(crate) code: &'a [u8],
    /// What goes where code does that seldom runs.
    pub(crate) cold: &'a [u8],
    pub(crate) entry: Place,
    pub(crate) body: Place,
    pub(crate) inner: Place,
    pub(crate) frame: Option<Frame>,
    pub(crate) retired_exit: Place,
    pub(crate) lines: u64,
    pub(crate) points: &'a [Point],
}

/// Units that depend on a page.
#[derive(Default)]
struct PageUnits {
    ids: Vec<u32>,
    /// Those that were jumped to by address.
    jumps: Vec<u32>,
    /// Where on the page units may begin, by bits.
    starts: Option<Box<[u64; 64]>>,
}

impl PageUnits {
    fn add_start(&mut self, rip: u64) {
        let starts = self.starts.get_or_insert_with(|| Box::new([0; 64]));
        starts[(rip >> 6 & 63) as usize] |= 1 << (rip & 63);
    }

    fn may_start(&self, rip: u64) -> bool {
        let word = self.starts.as_ref().map_or(0, |starts| starts[(rip >> 6 & 63) as usize]);
        word & 1 << (rip & 63) != 0
    }
}

/// Mixes what a key has. A guest that makes its keys collide slows down nobody but itself.
#[derive(Default)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u16(&mut self, value: u16) {
        self.write_u64(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = (self.0.rotate_left(23) ^ value).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_isize(&mut self, value: isize) {
        self.write_u64(value as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}

/// Site of jumps that miss.
pub(crate) const SITE_JUMP: u32 = u32::MAX;
/// Sites and units of a generation are bounded by its code memory; this bounds what a code byte costs
/// beside.
const SITES_MAX: usize = (4 << 20) / GENERATIONS;
/// Numbers of sites and units: the generation above, what it is of that below.
const INDEX_BITS: u32 = 24;

/// Number of a generation's unit or site.
fn number(generation: usize, index: usize) -> u32 {
    debug_assert!(index < 1 << INDEX_BITS);
    (generation as u32) << INDEX_BITS | index as u32
}

/// The generation of a unit or site.
fn generation_of(number: u32) -> usize {
    (number >> INDEX_BITS) as usize
}

/// Which of its generation a unit or site is.
fn index_of(number: u32) -> usize {
    (number & ((1 << INDEX_BITS) - 1)) as usize
}

/// What was translated one after the other, and is dropped together.
#[derive(Default)]
struct Generation {
    sites: Vec<Site>,
    units: Vec<Unit>,
    points: Vec<Point>,
}

/// All translated code of a machine.
pub(crate) struct Cache {
    pub(crate) memory: CodeMemory,
    generations: [Generation; GENERATIONS],
    keys: HashMap<Key, u32, BuildHasherDefault<KeyHasher>>,
    pages: HashMap<u32, PageUnits, BuildHasherDefault<KeyHasher>>,
    /// By unit, the sites whose jumps lead behind its look at the frame: nothing there can become a jump.
    inner_links: HashMap<u32, Vec<u32>, BuildHasherDefault<KeyHasher>>,
    /// Place of the jump to [`crate::entry::leave`].
    pub(crate) leave: Place,
    /// Place of the code for jumps that miss.
    pub(crate) miss: Place,
    /// Places of the jumps to [`crate::entry::user_jump_again`] and to the kernel's, for jumps that
    /// miss there.
    pub(crate) jump_again: [Place; 2],
    /// Places of the jumps to [`crate::entry::change_user_window`] and to the kernel's.
    pub(crate) window: [Place; 2],
    /// Grows whenever something is dropped: what is known of places is good as long as it is the same.
    pub(crate) generation: u64,
    /// Something is about to be dropped: nobody may take a place in code memory from it.
    pub(crate) closing: bool,
    /// By kernel page number, the page of guest memory its units were translated from.
    kernel_pages: HashMap<u64, u32>,
    /// Units may be linked to each other.
    pub(crate) links: bool,
}

impl Cache {
    /// Empty but for the stubs, with about so many bytes for code.
    ///
    /// # Errors
    /// When the host refuses.
    pub(crate) fn new(code_bytes: usize) -> io::Result<Self> {
        let mut memory = CodeMemory::new(code_bytes)?;
        let mut jump_to = |function: *const ()| {
            // jmp [rip + 0]; the address.
            let mut stub = vec![0xff, 0x25, 0, 0, 0, 0];
            stub.extend((function as u64).to_le_bytes());
            memory.put_stub(&stub)
        };
        let leave = jump_to(crate::entry::leave as *const ());
        let window = [
            jump_to(crate::entry::change_user_window as *const ()),
            jump_to(crate::entry::change_kernel_window as *const ()),
        ];
        let jump_again = [
            jump_to(crate::entry::user_jump_again as *const ()),
            jump_to(crate::entry::jump_again as *const ()),
        ];
        let miss = memory.next();
        // mov ecx, SITE_JUMP; jmp leave
        let mut stub = vec![0xb9];
        stub.extend(SITE_JUMP.to_le_bytes());
        stub.push(0xe9);
        let end = miss + 10;
        stub.extend(leave.wrapping_sub(end).to_le_bytes());
        memory.put_stub(&stub);
        memory.begin(0);
        Ok(Self {
            memory,
            generations: Default::default(),
            keys: HashMap::default(),
            pages: HashMap::default(),
            inner_links: HashMap::default(),
            leave,
            miss,
            jump_again,
            window,
            closing: false,
            generation: 0,
            kernel_pages: HashMap::new(),
            links: true,
        })
    }

    fn current(&mut self) -> &mut Generation {
        &mut self.generations[self.memory.current()]
    }

    /// Bytes of memory that what is known of the code takes.
    pub(crate) fn table_bytes(&self) -> usize {
        let page = |page: &PageUnits| {
            let starts = page.starts.as_ref().map_or(0, |starts| size_of_val(&**starts));
            (page.ids.capacity() + page.jumps.capacity()) * 4 + starts
        };
        let of_pages = size_of::<(u32, PageUnits)>() * self.pages.capacity()
            + self.pages.values().map(page).sum::<usize>();
        let of_generation = |one: &Generation| {
            one.sites.capacity() * size_of::<Site>()
                + one.units.capacity() * size_of::<Unit>()
                + one.points.capacity() * size_of::<Point>()
        };
        self.generations.iter().map(of_generation).sum::<usize>()
            + self.keys.capacity() * size_of::<(Key, u32)>()
            + of_pages
    }

    /// Drops all units. No vCPU may be in translated code, or go there by what it knows.
    pub(crate) fn clear(&mut self) {
        self.memory.begin(0);
        self.generations = Default::default();
        self.keys.clear();
        self.pages.clear();
        self.inner_links.clear();
        self.kernel_pages.clear();
        self.closing = false;
        self.generation += 1;
    }

    /// The unit of this key.
    pub(crate) fn find(&self, key: &Key) -> Option<&Unit> {
        self.keys.get(key).and_then(|id| self.unit(*id))
    }

    /// The key of the unit at another place of the page, whatever window there is.
    pub(crate) fn find_on_page(&self, key: &Key, rip: u64) -> Option<Key> {
        if rip >> 12 != key.rip >> 12 || !self.pages.get(&key.page)?.may_start(rip) {
            return None;
        }
        let other = Key { rip, second: None, mode: key.mode - Mode::NO_WINDOW, ..*key };
        self.keys.contains_key(&other).then_some(other)
    }

    /// The user's unit of this key was jumped to by its address, which others of its page were
    /// elsewhere: tells their offsets and entries.
    pub(crate) fn jumps_beside(&self, key: &Key) -> impl Iterator<Item = (u64, Place)> {
        let jumps = self.pages.get(&key.page).map_or(&[][..], |page| &page.jumps);
        let units = jumps.iter().filter_map(|id| self.unit(*id));
        let mode = key.mode;
        let own = move |unit: &&Unit| unit.key.mode == mode && unit.key.second.is_none();
        units.filter(own).map(|unit| (unit.key.rip, unit.entry))
    }

    /// The same, for the next time.
    pub(crate) fn note_jump(&mut self, key: &Key) {
        let Some(id) = self.keys.get(key) else { return };
        let own = &mut self.generations[generation_of(*id)];
        let Some(unit) = own.units.get_mut(index_of(*id)) else { return };
        if !std::mem::replace(&mut unit.jumped_to, true) {
            self.pages.entry(key.page).or_default().jumps.push(*id);
        }
    }

    /// A site.
    pub(crate) fn site(&self, number: u32) -> Option<Site> {
        if number == SITE_JUMP {
            return Some(Site {
                rip: 0,
                host: 0,
                out: 0,
                frame: None,
                reason: Reason::Jump,
                kind: SiteKind::empty(),
            });
        }
        self.generations.get(generation_of(number))?.sites.get(index_of(number)).copied()
    }

    /// A unit, as long as its generation is there.
    fn unit(&self, id: u32) -> Option<&Unit> {
        self.generations[generation_of(id)].units.get(index_of(id))
    }

    /// Number of the next site.
    pub(crate) fn next_site(&self) -> u32 {
        let current = self.memory.current();
        number(current, self.generations[current].sites.len())
    }

    /// Keeps sites, by [`Cache::next_site`] on; their places are from the beginning of the code put
    /// next.
    pub(crate) fn add_sites(&mut self, sites: &[Site]) {
        let start = self.memory.next();
        let placed = |s: &Site| Site { host: s.host + start, out: s.out + start, ..*s };
        self.current().sites.extend(sites.iter().map(placed));
    }

    /// Keeps a unit.
    pub(crate) fn add(&mut self, new: &NewUnit<'_>) -> &Unit {
        let start = self.memory.next();
        let cold = self.memory.next_cold();
        self.memory.put(new.code, new.cold);
        let index = self.memory.current();
        let current = self.current();
        let first = current.points.len() as u32;
        current.points.extend(new.points.iter().map(|p| Point { host: p.host + start, ..*p }));
        let id = number(index, current.units.len());
        current.units.push(Unit {
            key: new.key,
            entry: new.entry + start,
            link: new.link + start,
            body: new.body + start,
            inner: new.inner + start,
            frame: new.frame,
            retired_exit: new.retired_exit + start,
            begin: start,
            cold,
            lines: new.lines,
            points: (first, current.points.len() as u32),
            jumped_to: false,
        });
        self.keys.insert(new.key, id);
        let page = self.pages.entry(new.key.page).or_default();
        page.ids.push(id);
        page.add_start(new.key.rip);
        if !new.key.mode.intersects(Mode::USER | Mode::LOCAL) {
            self.kernel_pages.insert(new.key.rip >> 12, new.key.page);
            if let Some(second) = new.key.second {
                self.kernel_pages.insert((new.key.rip >> 12) + 1, second);
            }
        }
        if let Some(second) = new.key.second {
            self.pages.entry(second).or_default().ids.push(id);
        }
        &self.generations[index].units[index_of(id)]
    }

    /// Links a jump to a unit's body.
    pub(crate) fn link(&self, distance_at: Place, to: Place) {
        if !self.links {
            return;
        }
        let from = distance_at + 4;
        self.memory.patch4(distance_at, to.wrapping_sub(from));
    }

    /// Links a jump, whose site has this number, to the unit of this key, if there still is one: behind its
    /// look at the frame, where whoever jumps has looked at that.
    pub(crate) fn link_to(&mut self, number: u32, site: &Site, key: &Key) {
        let Some((to, inner)) = self.entrance(site, key) else { return };
        self.link(site.host, to);
        if inner {
            self.note_inner(key, number);
        }
    }

    /// Where a jump goes to that is linked to the unit of this key, and whether that is behind the look
    /// at its frame.
    pub(crate) fn entrance(&self, site: &Site, key: &Key) -> Option<(Place, bool)> {
        let unit = self.find(key)?;
        let known = site.frame.zip(unit.frame).is_some_and(|(known, own)| known.has(own));
        let inner = known && unit.link == unit.body;
        Some((if inner { unit.inner } else { unit.link }, inner))
    }

    /// The jump of a site leads behind the look of this key's unit.
    pub(crate) fn note_inner(&mut self, key: &Key, number: u32) {
        if let Some(id) = self.keys.get(key) {
            self.inner_links.entry(*id).or_default().push(number);
        }
    }

    /// Retires units that depend on lines of a page. Returns how many of the page's are retired and
    /// how many are left, if there were any.
    pub(crate) fn retire(&mut self, page: u32, lines: u64) -> Option<(usize, usize)> {
        let PageUnits { ids, jumps, starts } = self.pages.get_mut(&page)?;
        let before = ids.len();
        ids.retain(|id| {
            let unit = &self.generations[generation_of(*id)].units[index_of(*id)];
            let own = if unit.key.page == page { unit.lines } else { 0 };
            // An instruction has no more than 15 bytes: on the second page, they are on its first line.
            let beyond = u64::from(unit.key.second == Some(page));
            if (own | beyond) & lines == 0 {
                return true;
            }
            if self.keys.get(&unit.key) == Some(id) {
                self.keys.remove(&unit.key);
            }
            send_on(&self.memory, unit.body, unit.retired_exit);
            for number in self.inner_links.remove(id).unwrap_or_default() {
                let site = &self.generations[generation_of(number)].sites[index_of(number)];
                unlink(&self.memory, site);
            }
            false
        });
        if ids.len() < before {
            jumps.retain(|id| ids.contains(id));
        }
        if ids.is_empty() {
            *starts = None;
        }
        Some((before - ids.len(), ids.len()))
    }

    /// Whoever arrives at a retired unit goes on at another, of the same address.
    pub(crate) fn replace(&self, retired: Place, by: Place) {
        send_on(&self.memory, retired, by);
    }

    /// The unit whose code is at this place.
    fn unit_at(&self, place: Place) -> Option<&Unit> {
        let units = &self.generations[self.memory.generation_of(place)?].units;
        let is_cold = self.memory.is_cold(place);
        let begins = |unit: &Unit| if is_cold { unit.cold } else { unit.begin };
        units.get(units.partition_point(|unit| begins(unit) <= place).checked_sub(1)?)
    }

    /// What is at this place was translated from this page of guest memory.
    pub(crate) fn is_of_page(&self, place: Place, page: u32) -> bool {
        self.unit_at(place).is_some_and(|unit| unit.key.page == page)
    }

    /// The guest's instruction at a place where translated code was stopped, as a way out.
    pub(crate) fn instruction_at(&self, place: Place) -> Option<Site> {
        let unit = self.unit_at(place)?;
        let points = &self.generations[self.memory.generation_of(place)?].points;
        let points = &points[unit.points.0 as usize..unit.points.1 as usize];
        let index = points.partition_point(|point| point.host <= place).checked_sub(1)?;
        let rip = unit.key.rip.wrapping_add(u64::from(points[index].guest));
        let near = unit.key.mode.contains(Mode::USER);
        let kind = if near { SiteKind::NEAR } else { SiteKind::empty() };
        let reason = Reason::Interpret;
        Some(Site { rip, host: 0, out: 0, frame: None, reason, kind })
    }

    /// The kernel's pages among `first..first + count` that have units: number, and page of guest
    /// memory.
    pub(crate) fn kernel_pages(&self, first: u64, count: u64) -> Vec<(u64, u32)> {
        if count == 1 {
            return self.kernel_pages.get(&first).map(|page| (first, *page)).into_iter().collect();
        }
        let inside = |number: u64| number.wrapping_sub(first) < count;
        let all = self.kernel_pages.iter().filter(|(number, _)| inside(**number));
        all.map(|(number, page)| (*number, *page)).collect()
    }

    /// The kernel's page `number` is no longer the one its units are of.
    pub(crate) fn forget_kernel_page(&mut self, number: u64) {
        self.kernel_pages.remove(&number);
    }
}

/// The jump of a site is as it was translated: it leaves.
fn unlink(memory: &CodeMemory, site: &Site) {
    memory.patch4(site.host, site.out.wrapping_sub(site.host + 4));
}

/// Turns the instruction at a body's beginning, or the jump it was turned into, into a jump.
fn send_on(memory: &CodeMemory, body: Place, to: Place) {
    let distance = to.wrapping_sub(body + 5);
    memory.patch8(body, |mut bytes| {
        bytes[0] = 0xe9;
        bytes[1..5].copy_from_slice(&distance.to_le_bytes());
        bytes
    });
}
