//! Command scripts.

use std::sync::Mutex;

use super::*;
use crate::fakes::{inb, outb};

const SIZE: u64 = 0x4000;
const BLOCK: usize = BLOCK_SIZE as usize;

#[derive(Default)]
struct Told {
    shown: Mutex<Vec<bool>>,
    file: Mutex<Vec<u8>>,
}

impl FlashSink for Told {
    fn show(&self, shown: bool) {
        self.shown.lock().unwrap().push(shown);
    }

    fn change(&self, offset: u64, bytes: &[u8]) -> Result<(), NotKept> {
        let mut file = self.file.lock().unwrap();
        let at = offset as usize..offset as usize + bytes.len();
        file.get_mut(at).map(|old| old.copy_from_slice(bytes)).ok_or(NotKept)
    }
}

struct Rig {
    memory: Arc<GuestMemory>,
    told: Arc<Told>,
    flash: Arc<Flash>,
}

/// Flash in the middle of memory, whose bytes are all 0xf0.
fn rig() -> Rig {
    let memory = GuestMemory::new(&[("before", 0x1000), ("flash", SIZE), ("after", 0x1000)]);
    let (memory, told) = (memory.unwrap(), Arc::new(Told::default()));
    memory.fill(RamOffset(0), SIZE as usize + 0x2000, 0xf0);
    *told.file.lock().unwrap() = vec![0xf0; SIZE as usize];
    let array = FlashArray { at: RamOffset(0x1000), size_bytes: SIZE };
    let flash = Flash::new(memory.clone(), array, told.clone());
    flash.reset();
    Rig { memory, told, flash }
}

impl Rig {
    fn out(&self, offset: u64, bytes: &[u8]) {
        bytes.iter().for_each(|byte| outb(&*self.flash, offset, *byte));
    }

    fn array(&self) -> Vec<u8> {
        let mut bytes = vec![0; SIZE as usize];
        self.memory.read(RamOffset(0x1000), &mut bytes);
        assert_eq!(bytes, *self.told.file.lock().unwrap(), "memory and file");
        bytes
    }

    fn shown(&self) -> bool {
        *self.told.shown.lock().unwrap().last().unwrap()
    }
}

#[test]
fn ovmf_takes_it_for_flash() {
    let r = rig();
    assert_eq!(inb(&*r.flash, 8), 0xf0);
    outb(&*r.flash, 8, CLEAR_STATUS);
    assert_eq!(inb(&*r.flash, 8), 0xf0);
    outb(&*r.flash, 8, READ_STATUS);
    assert_eq!(inb(&*r.flash, 8), 0);
    outb(&*r.flash, 8, READ_ARRAY);
    assert_eq!(inb(&*r.flash, 8), 0xf0);
}

#[test]
fn programming_clears_bits_and_erasing_sets_those_of_a_block() {
    let r = rig();
    r.out(0x1234, &[PROGRAM_ALTERNATE, 0x3c]);
    assert_eq!(inb(&*r.flash, 0x1234), SR_READY);
    r.out(0x1235, &[PROGRAM, 0xff, READ_ARRAY]);
    assert_eq!((inb(&*r.flash, 0x1234), inb(&*r.flash, 0x1235)), (0x30, 0xf0));
    r.out(0x1fff, &[BLOCK_ERASE, CONFIRM]);
    assert_eq!(inb(&*r.flash, 0), SR_READY);
    let array = r.array();
    assert!(array[BLOCK..2 * BLOCK].iter().all(|byte| *byte == 0xff));
    let rest = array[..BLOCK].iter().chain(&array[2 * BLOCK..]);
    assert!(rest.clone().all(|byte| *byte == 0xf0));
}

#[test]
fn a_buffer_is_programmed_when_it_is_confirmed() {
    let r = rig();
    r.out(0x40, &[BLOCK_ERASE, CONFIRM]);
    r.out(0x44, &[BUFFERED_PROGRAM, 2]);
    for (offset, byte) in [(0x44, 1), (0x45, 2), (0x46, 3)] {
        outb(&*r.flash, offset, byte);
    }
    assert_eq!(r.array()[0x44], 0xff);
    r.out(0x44, &[CONFIRM]);
    assert_eq!(r.array()[0x40..0x48], [0xff, 0xff, 0xff, 0xff, 1, 2, 3, 0xff]);
    assert_eq!(inb(&*r.flash, 0), SR_READY);
}

#[test]
fn wrong_sequences_set_both_errors_and_change_nothing() {
    let before = rig().array();
    let scripts: [&[(u64, u8)]; 5] = [
        &[(0, BLOCK_ERASE), (0, 0x11)],
        &[(0, LOCK_SETUP), (0, 0x11)],
        &[(0, BUFFERED_PROGRAM), (0, BUFFER_SIZE as u8)],
        &[(0, BUFFERED_PROGRAM), (0, 3), (0, 0), (0x40, 0)],
        &[(0, BUFFERED_PROGRAM), (0, 0), (0, 0), (0, 0x11)],
    ];
    for script in scripts {
        let r = rig();
        script.iter().for_each(|(offset, byte)| outb(&*r.flash, *offset, *byte));
        let errors = SR_READY | SR_ERASE_ERROR | SR_PROGRAM_ERROR;
        assert_eq!((inb(&*r.flash, 0), r.array()), (errors, before.clone()), "{script:x?}");
        r.out(0, &[CLEAR_STATUS, READ_STATUS]);
        assert_eq!(inb(&*r.flash, 0), 0);
    }
}

#[test]
fn what_cannot_be_kept_fails_and_changes_nothing() {
    let r = rig();
    r.told.file.lock().unwrap().clear(); // the disk is full
    r.out(0x10, &[PROGRAM, 0]);
    assert_eq!(inb(&*r.flash, 0), SR_READY | SR_PROGRAM_ERROR);
    r.out(0, &[CLEAR_STATUS, BLOCK_ERASE, CONFIRM]);
    assert_eq!(inb(&*r.flash, 0), SR_READY | SR_ERASE_ERROR);
    outb(&*r.flash, 0, READ_ARRAY);
    assert_eq!(inb(&*r.flash, 0x10), 0xf0);
}

#[test]
fn a_command_can_be_taken_back() {
    let r = rig();
    for command in [BLOCK_ERASE, LOCK_SETUP, BUFFERED_PROGRAM] {
        r.out(0, &[command, READ_ARRAY]);
        assert_eq!(inb(&*r.flash, 0), 0xf0, "{command:x}");
    }
}

#[test]
fn identifiers_and_cfi_say_what_it_is() {
    let r = rig();
    outb(&*r.flash, 0, READ_ID);
    assert_eq!([0, 1, 2].map(|at| inb(&*r.flash, at)), [0x89, 0x18, 0]);
    outb(&*r.flash, 0x55, READ_QUERY);
    let query =
        |range: std::ops::Range<u64>| range.map(|at| inb(&*r.flash, at)).collect::<Vec<_>>();
    assert_eq!(query(0x10..0x15), *b"QRY\x01\0");
    assert_eq!(query(0x27..0x28), [14]); // 16 KiB
    assert_eq!(query(0x2c..0x31), [1, 3, 0, 0x10, 0]); // one region: 4 blocks of 16 * 256 bytes
    assert_eq!(query(0x31..0x36), *b"PRI10");
    assert_eq!(query(0x40..0x42), [0, 0]);
}

#[test]
fn it_is_mapped_again_when_the_array_is_read_for_long() {
    let r = rig();
    assert!(r.shown());
    outb(&*r.flash, 0, READ_STATUS);
    assert!(!r.shown());
    outb(&*r.flash, 0, READ_ARRAY);
    for _ in 1..READS_BEFORE_SHOWN {
        assert_eq!(inb(&*r.flash, 0), 0xf0);
    }
    r.out(0, &[PROGRAM, 0xff, READ_ARRAY]);
    for _ in 1..READS_BEFORE_SHOWN {
        inb(&*r.flash, 0);
    }
    assert!(!r.shown());
    inb(&*r.flash, 0);
    assert!(r.shown());
    assert_eq!(r.told.shown.lock().unwrap().len(), 3);
}

#[test]
fn accesses_that_run_past_the_end_stop_there() {
    let r = rig();
    r.flash.write(SIZE - 2, &[PROGRAM, 0, PROGRAM, 0]);
    r.out(0, &[READ_ARRAY]);
    let mut data = [0x11; 4];
    r.flash.read(SIZE - 2, &mut data);
    assert_eq!(data, [0xf0, 0, 0x11, 0x11]);
    r.out(SIZE - 1, &[BUFFERED_PROGRAM, 0, 0, CONFIRM]);
    assert_eq!(r.array()[SIZE as usize - 1], 0);
    let mut after = [0];
    r.memory.read(RamOffset(0x1000 + SIZE), &mut after);
    assert_eq!(after, [0xf0]);
}

#[test]
fn state_survives_in_the_middle_of_a_command() {
    let r = rig();
    r.out(0x40, &[BUFFERED_PROGRAM, 1, 0]);
    let new = rig();
    new.flash.restore(&r.flash.save()).unwrap();
    assert!(!new.shown());
    assert_eq!(new.flash.save(), r.flash.save());
    outb(&*new.flash, 0x41, 0x10);
    outb(&*new.flash, 0x41, CONFIRM);
    assert_eq!(new.array()[0x40..0x42], [0, 0x10]);
    new.flash.reset();
    assert!(new.shown());
    assert_eq!(new.flash.save(), rig().flash.save());
}
