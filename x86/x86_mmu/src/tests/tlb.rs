use super::*;
use crate::{Access, Mmu, Privilege, Rights, Translation, walk};

const LOW: u64 = 0x0000_5555_0000_0000;
const HIGH: u64 = 0xffff_8888_0000_0000;
const HOST: u64 = 0x7000_0000;

fn page(user: bool) -> Translation {
    Translation {
        gpa: 0x1000,
        page_shift: 12,
        user,
        writable: true,
        executable: true,
        global: false,
        dirty: true,
    }
}

fn paging(root: u64) -> Paging {
    Paging {
        format: Format::Level4,
        root,
        wp: true,
        pge: true,
        nxe: true,
        physical_bits: 40,
        ..Paging::default()
    }
}

fn mmu() -> Mmu {
    let mut mmu = Mmu::default();
    mmu.set_paging(paging(0x1000));
    mmu
}

fn fill(mmu: &mut Mmu, linear: u64, page: Translation) {
    mmu.fill(linear, &page, Rights { host: HOST, ram: true });
}

#[test]
fn a_hit_gives_the_byte_inside_of_the_page() {
    let mut mmu = mmu();
    fill(&mut mmu, LOW, page(true));
    assert_eq!(mmu.hit_read(LOW + 0xff8, 8), Some(HOST + 0xff8));
    assert_eq!(mmu.hit_write(LOW, 8), Some(HOST));
    assert_eq!(mmu.hit_fetch(LOW + 5, 1), Some(HOST + 5));
    assert_eq!(mmu.hit_read(LOW + 0xff9, 8), None, "crosses the page");
    assert_eq!(mmu.hit_read(LOW + 0x1000, 1), None);
    assert_eq!(mmu.hit_read(LOW | 1 << 48, 1), None, "not canonical");
}

#[test]
fn an_empty_tlb_hits_nowhere() {
    let mmu = mmu();
    for linear in [0, 0x1000, u64::MAX, HIGH] {
        assert_eq!(mmu.hit_read(linear, 1), None);
        assert_eq!(mmu.hit_as(linear, 1, Access::Read, Privilege::Supervisor), None);
    }
}

#[test]
fn privilege_changes_what_hits_and_drops_nothing() {
    let mut mmu = mmu();
    mmu.set_paging(Paging { smap: true, smep: true, ..paging(0x1000) });
    fill(&mut mmu, LOW, page(true));
    fill(&mut mmu, HIGH + 0x1000, page(false));
    let hits = |mmu: &Mmu| {
        [LOW, HIGH + 0x1000]
            .map(|linear| (mmu.hit_read(linear, 1).is_some(), mmu.hit_fetch(linear, 1).is_some()))
    };
    for _ in 0..2 {
        mmu.set_privilege(Privilege::User);
        assert_eq!(hits(&mmu), [(true, true), (false, false)]);
        mmu.set_privilege(Privilege::Supervisor);
        assert_eq!(hits(&mmu), [(false, false), (true, true)]);
        mmu.set_privilege(Privilege::SupervisorAc);
        assert_eq!(hits(&mmu), [(true, false), (true, true)]);
    }
}

#[test]
fn a_page_only_the_supervisor_may_write_is_closed_to_the_user() {
    for smap in [false, true] {
        let mut mmu = mmu();
        mmu.set_paging(Paging { wp: false, smap, ..paging(0x1000) });
        fill(&mut mmu, LOW, Translation { writable: false, ..page(true) });
        mmu.set_privilege(Privilege::User);
        assert_eq!(mmu.hit_write(LOW, 1), None);
        assert_eq!(mmu.hit_as(LOW, 1, Access::Write, Privilege::User), None);
        mmu.set_privilege(Privilege::Supervisor);
        assert_eq!(mmu.hit_write(LOW, 1).is_some(), !smap);
    }
}

#[test]
fn clean_pages_and_rom_are_not_written_by_a_hit() {
    let mut mmu = mmu();
    fill(&mut mmu, LOW, Translation { dirty: false, ..page(true) });
    assert_eq!((mmu.hit_read(LOW, 1), mmu.hit_write(LOW, 1)), (Some(HOST), None));
    mmu.fill(LOW, &page(true), Rights { host: HOST, ram: false });
    assert_eq!((mmu.hit_read(LOW, 1), mmu.hit_write(LOW, 1)), (Some(HOST), None));
}

#[test]
fn loading_cr3_drops_all_but_global_pages() {
    let mut mmu = mmu();
    fill(&mut mmu, LOW, page(true));
    fill(&mut mmu, HIGH + 0x1000, page(false));
    fill(&mut mmu, HIGH + 0x2000, Translation { global: true, ..page(false) });
    mmu.load_root(paging(0x1000), 0, false);
    assert_eq!(mmu.hit_read(LOW, 1), None);
    assert_eq!(mmu.hit_read(HIGH + 0x1000, 1), None);
    assert_eq!(mmu.hit_read(HIGH + 0x2000, 1), Some(HOST));
    mmu.flush();
    assert_eq!(mmu.hit_read(HIGH + 0x2000, 1), None);
}

#[test]
fn many_local_pages_of_the_upper_half_are_dropped_too() {
    let mut mmu = mmu();
    for i in 0..200 {
        fill(&mut mmu, HIGH + i * 0x1000, page(false));
    }
    mmu.load_root(paging(0x1000), 0, false);
    for i in 0..200 {
        assert_eq!(mmu.hit_read(HIGH + i * 0x1000, 1), None, "page {i}");
    }
}

#[test]
fn pcids_keep_their_pages_apart_and_alive() {
    let mut mmu = mmu();
    mmu.load_root(paging(0x1000), 1, false);
    fill(&mut mmu, LOW, page(true));
    mmu.load_root(paging(0x2000), 2, true);
    assert_eq!(mmu.hit_read(LOW, 1), None, "another space");
    mmu.load_root(paging(0x1000), 1, true);
    assert_eq!(mmu.hit_read(LOW, 1), Some(HOST), "kept");
    mmu.load_root(paging(0x2000), 2, true);
    mmu.load_root(paging(0x1000), 1, false);
    assert_eq!(mmu.hit_read(LOW, 1), None, "dropped");
}

#[test]
fn invalidating_a_pcid_spares_the_others() {
    let mut mmu = mmu();
    for pcid in [1, 2] {
        mmu.load_root(paging(0x1000), pcid, false);
        fill(&mut mmu, LOW + u64::from(pcid) * 0x1000, page(true));
    }
    mmu.invalidate_pcid(1);
    assert_eq!(mmu.hit_read(LOW + 0x2000, 1), Some(HOST));
    mmu.load_root(paging(0x1000), 1, true);
    assert_eq!(mmu.hit_read(LOW + 0x1000, 1), None);
    mmu.load_root(paging(0x1000), 2, true);
    mmu.invalidate_pcid(2);
    assert_eq!(mmu.hit_read(LOW + 0x2000, 1), None);
}

#[test]
fn a_local_flush_spares_global_pages_alone() {
    let mut mmu = mmu();
    mmu.load_root(paging(0x1000), 1, false);
    fill(&mut mmu, LOW, page(true));
    mmu.load_root(paging(0x2000), 2, false);
    fill(&mut mmu, LOW + 0x1000, page(true));
    fill(&mut mmu, HIGH + 0x2000, page(false));
    fill(&mut mmu, HIGH + 0x3000, Translation { global: true, ..page(false) });
    mmu.flush_local();
    assert_eq!(mmu.hit_read(LOW + 0x1000, 1), None);
    assert_eq!(mmu.hit_read(HIGH + 0x2000, 1), None);
    assert_eq!(mmu.hit_read(HIGH + 0x3000, 1), Some(HOST));
    mmu.load_root(paging(0x1000), 1, true);
    assert_eq!(mmu.hit_read(LOW, 1), None);
}

#[test]
fn no_entry_outlives_thousands_of_spaces() {
    let mut mmu = mmu();
    for i in 0..5000_u64 {
        mmu.load_root(paging(0x1000), (i % 20) as u16, i % 3 == 0);
        let slot = LOW + (i % 1024) * 0x1000;
        if i % 3 != 0 {
            assert_eq!(mmu.hit_read(slot, 1), None, "load {i}");
        }
        fill(&mut mmu, slot, page(true));
        assert_eq!(mmu.hit_read(slot, 1), Some(HOST));
    }
}

#[test]
fn invalidation_takes_the_page_from_every_pcid() {
    let mut mmu = mmu();
    mmu.load_root(paging(0x1000), 1, false);
    fill(&mut mmu, LOW, page(true));
    mmu.load_root(paging(0x2000), 2, false);
    mmu.invalidate(LOW + 0x123);
    mmu.load_root(paging(0x1000), 1, true);
    assert_eq!(mmu.hit_read(LOW, 1), None);
}

#[test]
fn invalidating_one_address_of_a_large_page_drops_all_of_it() {
    for shift in [21, 22, 30] {
        let mut mmu = mmu();
        let large = Translation { page_shift: shift, global: true, ..page(true) };
        let start = HIGH & !((1 << shift) - 1);
        let last = start + (1 << shift) - 0x3000;
        fill(&mut mmu, start + 0x1000, large);
        fill(&mut mmu, last, large);
        fill(&mut mmu, start - 0x2000, page(true));
        mmu.invalidate(start + (1 << (shift - 1)));
        assert_eq!(mmu.hit_read(start + 0x1000, 1), None, "{shift}");
        assert_eq!(mmu.hit_read(last, 1), None, "{shift}");
        assert_eq!(mmu.hit_read(start - 0x2000, 1), Some(HOST), "{shift}: beside it");
    }
}

#[test]
fn the_generation_grows_with_every_invalidation() {
    let mut mmu = mmu();
    let mut seen = mmu.generation();
    let mut grows = |mmu: &Mmu| {
        let now = mmu.generation();
        assert!(now > std::mem::replace(&mut seen, now));
    };
    mmu.invalidate(LOW);
    grows(&mmu);
    mmu.load_root(paging(0x1000), 0, false);
    grows(&mmu);
    mmu.invalidate_pcid(5);
    grows(&mmu);
    mmu.flush_local();
    grows(&mmu);
    mmu.set_paging(Paging { wp: false, ..paging(0x1000) });
    grows(&mmu);
}

#[test]
fn a_hit_allows_what_a_walk_allows() {
    for shape in SHAPES {
        for rights in [P, P | W, P | U, P | W | U, P | W | U | NX, P | W | G, P | W | U | D] {
            for bits in 0..8 {
                let (wp, smep, smap) = (bits & 1 != 0, bits & 2 != 0, bits & 4 != 0);
                check_hits(shape, rights, Paging { wp, smep, smap, ..shape.paging() });
            }
        }
    }
}

/// After any walk has filled the TLB, nothing hits that a walk would refuse.
fn check_hits(shape: Shape, rights: u64, paging: Paging) {
    const ACCESSES: [Access; 3] = [Access::Read, Access::Write, Access::Execute];
    const PRIVILEGES: [Privilege; 3] =
        [Privilege::User, Privilege::SupervisorAc, Privilege::Supervisor];
    let rights = if shape.format == Format::Bits32 { rights & !NX } else { rights };
    let linear = shape.linear();
    for first in ACCESSES.into_iter().flat_map(|a| PRIVILEGES.map(|p| (a, p))) {
        let mut memory = Memory::default();
        shape.map(&mut memory, P | W | U, rights);
        let Ok(found) = walk(&mut memory, &paging, linear, first.0, first.1) else { continue };
        let mut mmu = Mmu::default();
        mmu.set_paging(paging);
        fill(&mut mmu, linear, found);
        for (access, privilege) in ACCESSES.into_iter().flat_map(|a| PRIVILEGES.map(|p| (a, p))) {
            mmu.set_privilege(privilege);
            let hit = match access {
                Access::Read => mmu.hit_read(linear, 1),
                Access::Write => mmu.hit_write(linear, 1),
                Access::Execute => mmu.hit_fetch(linear, 1),
            };
            let other = mmu.hit_as(linear, 1, access, privilege);
            let allowed = walk(&mut memory.clone(), &paging, linear, access, privilege).is_ok();
            let what =
                format!("{shape:?} {rights:x} {paging:?} {first:?} {access:?} {privilege:?}");
            assert_eq!(hit, other, "{what}");
            assert!(hit.is_none() || allowed, "{what}");
            if access == Access::Read && allowed {
                assert!(hit.is_some(), "{what}");
            }
        }
    }
}
