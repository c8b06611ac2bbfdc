use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{Access, Flush, Mmu, Privilege, Rights, Translation};

const LOW: u64 = 0x0000_5555_4000_0000;
const HIGH: u64 = 0xffff_8888_0000_0000;

fn paging() -> Paging {
    let format = Format::Level4;
    Paging { format, root: ROOT, pge: true, wp: true, physical_bits: 40, ..Paging::default() }
}

/// A watched TLB of which everything that was dropped has been told.
fn watched() -> Mmu {
    let mut mmu = Mmu::default();
    mmu.set_paging(paging());
    mmu.watch_flushes(true);
    assert_eq!(taken(&mut mmu), [Flush::All], "a mirror begins empty");
    mmu
}

fn taken(mmu: &mut Mmu) -> Vec<Flush> {
    mmu.take_flushes().as_slice().to_vec()
}

fn fill(mmu: &mut Mmu, linear: u64, page_shift: u8, global: bool) {
    let found = Translation {
        gpa: 0x1000,
        page_shift,
        user: true,
        writable: true,
        executable: true,
        global,
        dirty: true,
    };
    mmu.fill(linear, &found, Rights { host: 0, ram: true });
}

#[test]
fn an_unwatched_tlb_tells_nothing() {
    let mut mmu = Mmu::default();
    mmu.flush();
    assert_eq!(taken(&mut mmu), []);
    mmu.watch_flushes(true);
    mmu.invalidate(LOW);
    mmu.watch_flushes(false);
    mmu.invalidate(LOW);
    assert_eq!(taken(&mut mmu), []);
}

#[test]
fn every_way_of_dropping_is_told_once_and_in_order() {
    let mut mmu = watched();
    mmu.load_root(paging(), 7, true);
    mmu.load_root(paging(), 9, false);
    mmu.load_root(paging(), 7, true);
    mmu.invalidate(LOW + 0x1234);
    mmu.invalidate_pcid(9);
    mmu.flush_local();
    let flushes = mmu.take_flushes();
    let expected = [
        Flush::Root { pcid: 7, kept: false },
        Flush::Root { pcid: 9, kept: false },
        Flush::Root { pcid: 7, kept: true },
        Flush::Page { linear: LOW + 0x1000, shift: 12 },
        Flush::Pcid(9),
        Flush::Local,
    ];
    assert_eq!((flushes.as_slice(), flushes.pcid()), (&expected[..], 7));
    assert_eq!(taken(&mut mmu), []);
}

#[test]
fn registers_that_change_nothing_drop_nothing() {
    let mut mmu = watched();
    mmu.set_paging(paging());
    mmu.set_privilege(Privilege::User);
    assert_eq!(taken(&mut mmu), []);
    mmu.set_paging(Paging { wp: false, ..paging() });
    assert_eq!(taken(&mut mmu), [Flush::All]);
}

#[test]
fn a_large_page_is_told_whole_and_its_neighbours_are_not() {
    for (format, shift) in
        [(Format::Level4, 21), (Format::Level4, 30), (Format::Pae, 21), (Format::Bits32, 22)]
    {
        let mut mmu = watched();
        mmu.set_paging(Paging { format, ..paging() });
        taken(&mut mmu);
        let start = 0x4000_0000;
        fill(&mut mmu, start + 0x3000, shift, false);
        let within = if shift == 21 { 0x5678 } else { (1 << (shift - 1)) + 0x5678 };
        mmu.invalidate(start + within);
        mmu.invalidate(start + (1 << 30) + 0x5678);
        let beside = Flush::Page { linear: start + (1 << 30) + 0x5000, shift: 12 };
        assert_eq!(taken(&mut mmu), [Flush::Page { linear: start, shift }, beside]);
    }
}

#[test]
fn an_address_that_is_not_canonical_is_not_told() {
    let mut mmu = watched();
    mmu.invalidate(1 << 47);
    mmu.invalidate(!(1 << 60));
    assert_eq!(taken(&mut mmu), []);
}

#[test]
fn too_much_to_tell_is_everything() {
    let mut mmu = watched();
    mmu.load_root(paging(), 3, false);
    for page in 0..1000 {
        mmu.invalidate(LOW + page * 0x1000);
    }
    let flushes = mmu.take_flushes();
    assert_eq!((flushes.as_slice(), flushes.pcid()), (&[Flush::All][..], 3));
}

#[test]
fn everything_swallows_all_but_the_pcid() {
    let mut mmu = watched();
    mmu.invalidate(LOW);
    mmu.flush();
    mmu.invalidate(LOW);
    mmu.load_root(paging(), 5, false);
    assert_eq!(taken(&mut mmu), [Flush::All, Flush::Root { pcid: 5, kept: false }]);
}

/// Maps of 4 KiB pages: one a PCID, and one of the upper half, which knows what is global.
#[derive(Default)]
struct Mirror {
    lower: BTreeMap<u16, BTreeSet<u64>>,
    upper: BTreeMap<u64, bool>,
    pcid: u16,
}

impl Mirror {
    fn fill(&mut self, linear: u64, global: bool) {
        if linear >> 63 != 0 {
            self.upper.insert(linear, global);
        } else {
            self.lower.entry(self.pcid).or_default().insert(linear);
        }
    }

    fn holds(&self, linear: u64) -> bool {
        self.upper.contains_key(&linear)
            || self.lower.get(&self.pcid).is_some_and(|pages| pages.contains(&linear))
    }

    fn apply(&mut self, flush: Flush) {
        match flush {
            Flush::Page { linear, shift } => {
                let other = |page: u64| (page ^ linear) >> shift != 0;
                self.lower.values_mut().for_each(|pages| pages.retain(|page| other(*page)));
                self.upper.retain(|page, _| other(*page));
            }
            Flush::Pcid(pcid) => {
                self.lower.remove(&pcid);
                if pcid == self.pcid {
                    self.upper.retain(|_, global| *global);
                }
            }
            Flush::Root { pcid, kept } => {
                if !kept {
                    self.lower.remove(&pcid);
                }
                self.pcid = pcid;
                self.upper.retain(|_, global| *global);
            }
            Flush::Local => {
                self.lower.clear();
                self.upper.retain(|_, global| *global);
            }
            Flush::All => {
                self.lower.clear();
                self.upper.clear();
            }
        }
    }
}

/// What may be cached at most: by PCID and page, what was filled since it was last invalidated.
#[derive(Default)]
struct Allowed(BTreeMap<(u16, u64), (u8, bool)>);

impl Allowed {
    fn drop_if(&mut self, gone: impl Fn(u16, u64, u8, bool) -> bool) {
        self.0.retain(|(pcid, page), (shift, global)| !gone(*pcid, *page, *shift, *global));
    }

    fn allows(&self, pcid: u16, page: u64) -> bool {
        let any_pcid = self.0.iter().any(|((_, p), (_, global))| *p == page && *global);
        any_pcid || self.0.contains_key(&(pcid, page))
    }
}

#[test]
fn a_mirror_holds_all_that_hits_and_nothing_that_was_invalidated() {
    let (mut mmu, mut mirror, mut allowed) = (watched(), Mirror::default(), Allowed::default());
    let mut random = 1_u64;
    let mut below = |limit: u64| {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (random >> 33) % limit
    };
    for step in 0..20_000 {
        // Every third region is a large page, every third global; those of the lower half are
        // not, as in all guests we know.
        let (half, region) = (if below(2) == 0 { LOW } else { HIGH }, below(6));
        let page = half + (region << 21) + (below(3) << 12);
        let (shift, global) = (if region % 3 == 0 { 21 } else { 12 }, half == HIGH && region < 2);
        let pcid = below(12) as u16;
        match below(40) {
            0..=24 => {
                fill(&mut mmu, page, shift, global);
                mirror.fill(page, global);
                allowed.0.insert((mirror.pcid, page), (shift, global));
            }
            25..=29 => {
                mmu.invalidate(page + 0x321);
                allowed.drop_if(|_, other, shift, _| (other ^ page) >> shift == 0);
            }
            30..=34 => {
                let keep = below(4) != 0;
                mmu.load_root(paging(), pcid, keep);
                allowed.drop_if(|other, _, _, global| !keep && other == pcid && !global);
            }
            35..=36 => {
                mmu.invalidate_pcid(pcid);
                allowed.drop_if(|other, _, _, global| other == pcid && !global);
            }
            37 => {
                mmu.flush_local();
                allowed.drop_if(|_, _, _, global| !global);
            }
            38 => {
                mmu.flush();
                allowed.drop_if(|_, _, _, _| true);
            }
            _ => {}
        }
        let flushes = mmu.take_flushes();
        flushes.as_slice().iter().for_each(|flush| mirror.apply(*flush));
        assert_eq!(mirror.pcid, flushes.pcid());
        for (half, at) in [LOW, HIGH].into_iter().flat_map(|half| (0..18).map(move |i| (half, i))) {
            let page = half + ((at / 3) << 21) + ((at % 3) << 12);
            let hit = mmu.hit_as(page, 1, Access::Read, Privilege::Supervisor).is_some();
            assert!(mirror.holds(page) || !hit, "step {step}: {page:x} is missing");
            let stale = mirror.holds(page) && !allowed.allows(mirror.pcid, page);
            assert!(!stale, "step {step}: {page:x} is stale");
        }
    }
}
