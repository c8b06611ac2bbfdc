use super::*;
use crate::{Access, ErrorCode, Privilege, inspect, walk};

const ACCESSES: [Access; 3] = [Access::Read, Access::Write, Access::Execute];
const PRIVILEGES: [Privilege; 3] =
    [Privilege::User, Privilege::SupervisorAc, Privilege::Supervisor];

/// All ways to set these switches.
fn each<const N: usize>() -> impl Iterator<Item = [bool; N]> {
    (0..1 << N).map(|bits: u32| std::array::from_fn(|i| bits >> i & 1 != 0))
}

/// SDM vol. 3A, 4.6.1, sentence by sentence.
fn is_allowed(p: &Paging, rights: u64, access: Access, privilege: Privilege) -> bool {
    let (user, writable, nx) = (rights & U != 0, rights & W != 0, rights & NX != 0);
    match (privilege, access) {
        (Privilege::User, _) if !user => false,
        (_, Access::Execute) if nx => false,
        (Privilege::User, Access::Write) => writable,
        (Privilege::User, _) => true,
        (_, Access::Execute) => !(user && p.smep),
        (Privilege::Supervisor, _) if user && p.smap => false,
        (_, Access::Write) => writable || !p.wp,
        (_, Access::Read) => true,
    }
}

#[test]
fn every_permission_in_every_format_is_the_manuals() {
    for shape in SHAPES {
        for [upper_w, upper_u, leaf_w, leaf_u, nx, wp, smep, smap] in each() {
            let nx = nx && shape.format != Format::Bits32;
            let bits = |w: bool, u: bool| P | if w { W } else { 0 } | if u { U } else { 0 };
            let has_upper = shape.levels().len() > 1;
            let leaf = bits(leaf_w, leaf_u) | if nx { NX } else { 0 };
            let upper = bits(upper_w, upper_u);
            let mut memory = Memory::default();
            shape.map(&mut memory, upper, leaf);
            let paging = Paging { wp, smep, smap, ..shape.paging() };
            let rights = if has_upper { leaf & (upper | NX) } else { leaf };
            for access in ACCESSES {
                for privilege in PRIVILEGES {
                    let mut memory = memory.clone();
                    let found = walk(&mut memory, &paging, shape.linear(), access, privilege);
                    let fetch_bit = smep || shape.format != Format::Bits32;
                    let expected = is_allowed(&paging, rights, access, privilege)
                        .then_some(shape.target() | shape.linear() & ((1 << shape.shift) - 1));
                    let code = 1
                        | u32::from(access == Access::Write) << 1
                        | u32::from(privilege == Privilege::User) << 2
                        | u32::from(access == Access::Execute && fetch_bit) << 4;
                    assert_eq!(
                        found.map(|t| t.gpa),
                        expected.ok_or(ErrorCode(code)),
                        "{shape:?} upper {upper:x} leaf {leaf:x} {paging:?} {access:?} \
                         {privilege:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn an_absent_entry_at_any_level_is_a_fault_without_the_present_bit() {
    for shape in SHAPES {
        for depth in 0..shape.levels().len() {
            let mut memory = Memory::default();
            shape.map(&mut memory, P | W | U, P | W | U);
            let at = shape.entries()[depth];
            let entry = memory.read32(at);
            memory.put32(at, entry & !1);
            let (paging, linear) = (shape.paging(), shape.linear());
            let found = walk(&mut memory, &paging, linear, Access::Write, Privilege::User);
            assert_eq!(found, Err(ErrorCode(6)), "{shape:?} level {depth}");
        }
    }
}

#[test]
fn accessed_and_dirty_are_set_by_what_succeeds_only() {
    for shape in SHAPES {
        let mut memory = Memory::default();
        shape.map(&mut memory, P | W | U, P | U);
        let (paging, linear) = (shape.paging(), shape.linear());
        let before = memory.clone();
        assert!(walk(&mut memory, &paging, linear, Access::Write, Privilege::User).is_err());
        assert_eq!(memory.words, before.words, "{shape:?}");
        assert!(inspect(&mut memory, &paging, linear).is_some());
        assert_eq!(memory.words, before.words, "{shape:?}");

        shape.map(&mut memory, P | W | U, P | W | U);
        let last = shape.levels().len() - 1;
        let read = walk(&mut memory, &paging, linear, Access::Read, Privilege::User).unwrap();
        assert!(!read.dirty);
        for depth in 0..=last {
            assert_eq!(shape.entry(&mut memory, depth) & (A | D), A, "{shape:?} {depth}");
        }
        let write = walk(&mut memory, &paging, linear, Access::Write, Privilege::User).unwrap();
        assert!(write.dirty);
        for depth in 0..=last {
            let expected = if depth == last { A | D } else { A };
            assert_eq!(shape.entry(&mut memory, depth) & (A | D), expected, "{shape:?} {depth}");
        }
    }
}

/// Reserved bits of a leaf, or of an upper entry.
fn reserved(shape: Shape, leaf: bool) -> Vec<u32> {
    match (shape.format, shape.shift, leaf) {
        (Format::Bits32, 22, true) => vec![21],
        (Format::Bits32, ..) => vec![],
        (Format::Pae, 21, true) => (13..21).chain(40..63).collect(),
        (Format::Pae, ..) => (40..63).collect(),
        (_, 21, true) => (13..21).chain(40..52).collect(),
        (_, 30, true) => (13..30).chain(40..52).collect(),
        _ => (40..52).collect(),
    }
}

#[test]
fn reserved_bits_fault_and_the_others_do_not() {
    for shape in SHAPES {
        let last = shape.levels().len() - 1;
        for depth in 0..=last {
            let wrong = reserved(shape, depth == last);
            let top = shape.entry_size() as u32 * 8;
            for bit in (9..top).filter(|bit| *bit != 63) {
                let mut memory = Memory::default();
                shape.map(&mut memory, P | W | U, P | W | U);
                let value = shape.entry(&mut memory, depth) | 1 << bit;
                if top == 32 {
                    memory.put32(shape.entries()[depth], value as u32);
                } else {
                    memory.put(shape.entries()[depth], value);
                }
                let (paging, linear) = (shape.paging(), shape.linear());
                let found = walk(&mut memory, &paging, linear, Access::Read, Privilege::Supervisor);
                let faults = found == Err(ErrorCode(9));
                assert_eq!(faults, wrong.contains(&bit), "{shape:?} level {depth} bit {bit}");
            }
        }
    }
}

#[test]
fn no_execute_is_reserved_until_enabled_and_page_size_is_in_the_first_level() {
    for shape in SHAPES.into_iter().filter(|s| s.format != Format::Bits32) {
        let mut memory = Memory::default();
        shape.map(&mut memory, P | W | U, P | W | U | NX);
        let paging = Paging { nxe: false, ..shape.paging() };
        let found = walk(&mut memory, &paging, shape.linear(), Access::Execute, Privilege::User);
        // Without NXE and SMEP the fetch bit is not there either.
        assert_eq!(found, Err(ErrorCode(0b1101)), "{shape:?}");
    }
    let shape = Shape { format: Format::Level4, shift: 12 };
    let mut memory = Memory::default();
    shape.map(&mut memory, P | W | U, P | W | U);
    let first = shape.entry(&mut memory, 0);
    memory.put(shape.entries()[0], first | PS);
    let found =
        walk(&mut memory, &shape.paging(), shape.linear(), Access::Read, Privilege::Supervisor);
    assert_eq!(found, Err(ErrorCode(9)));
}

#[test]
fn a_page_of_1_gib_is_reserved_on_a_cpu_without_them() {
    let shape = Shape { format: Format::Level4, shift: 30 };
    let mut memory = Memory::default();
    shape.map(&mut memory, P | W | U, P | W | U);
    let paging = Paging { pages_2m_max: true, ..shape.paging() };
    let mut walk = |paging| {
        walk(&mut memory, &paging, shape.linear(), Access::Read, Privilege::Supervisor).map(drop)
    };
    assert_eq!(walk(paging), Err(ErrorCode(9)));
    assert_eq!(walk(shape.paging()), Ok(()));
}

#[test]
fn an_entry_that_changes_under_the_walk_is_read_again() {
    let shape = Shape { format: Format::Level4, shift: 12 };
    let mut memory = Memory::default();
    shape.map(&mut memory, P | W | U, P | W | U);
    let leaf = shape.entries()[3];
    memory.raced = Some((leaf, 0x7000 | P | W | U));
    let (paging, linear) = (shape.paging(), shape.linear());
    let found = walk(&mut memory, &paging, linear, Access::Write, Privilege::User).unwrap();
    assert_eq!(found.gpa, 0x7000 | linear & 0xfff);
    assert_eq!(memory.read64(leaf), 0x7000 | P | W | U | A | D);
}

#[test]
fn four_megabyte_pages_need_pse() {
    let shape = Shape { format: Format::Bits32, shift: 22 };
    let mut memory = Memory::default();
    shape.map(&mut memory, 0, P | W | U);
    let paging = Paging { pse: false, ..shape.paging() };
    let found = walk(&mut memory, &paging, shape.linear(), Access::Read, Privilege::User);
    // The entry names a page table, in which nothing is present.
    assert_eq!(found, Err(ErrorCode(4)));
}

#[test]
fn page_directory_pointers_with_reserved_bits_are_refused() {
    let shape = Shape { format: Format::Pae, shift: 12 };
    for (bit, fine) in [(0, true), (3, true), (9, true), (1, false), (5, false), (40, false)] {
        let mut memory = Memory::default();
        memory.put(ROOT + 16, 0x5000 | P | 1 << bit);
        let loaded = shape.paging().load_pdptes(&mut memory);
        assert_eq!(loaded.is_some(), fine, "bit {bit}");
    }
    let mut memory = Memory::default();
    memory.put(ROOT, u64::MAX - 1);
    assert!(shape.paging().load_pdptes(&mut memory).is_some(), "not present: nothing is reserved");
}

#[test]
fn without_paging_every_address_is_its_own() {
    let mut memory = Memory::default();
    let found =
        walk(&mut memory, &Paging::default(), 0x1234_5678, Access::Write, Privilege::User).unwrap();
    assert_eq!((found.gpa, found.writable, found.executable), (0x1234_5678, true, true));
}
