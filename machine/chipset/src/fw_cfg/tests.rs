//! Register scripts.

use super::*;
use crate::fakes::{inb, outl};
use guest_memory::{Backing, FlatRange, FlatView, RamOffset};

const RAM_SIZE: u64 = 0x4_0000;
const REQUEST: u64 = 0x1000;
const BUFFER: u64 = 0x2000;

struct Rig {
    memory: Arc<GuestMemory>,
    device: Arc<FwCfg>,
}

fn rig() -> Rig {
    let memory = GuestMemory::new(&[("ram", RAM_SIZE)]).unwrap();
    let mut view = FlatView::new();
    let range = FlatRange { gpa: 0, size: RAM_SIZE, at: RamOffset(0), backing: Backing::Ram };
    view.insert(range).unwrap();
    memory.set_view(view);
    let mut items = FwCfgItems::new(3, 0x1234_5678);
    items.add_file("etc/second", b"two".to_vec()).unwrap();
    items.add_file("etc/first", vec![7; 300]).unwrap();
    items.set(0x8003, b"e820".to_vec());
    let device = FwCfg::new(memory.clone(), items);
    Rig { memory, device }
}

impl Rig {
    fn select(&self, key: u16) {
        self.device.write(SELECTOR, &key.to_le_bytes());
    }

    fn item<const N: usize>(&self, key: u16) -> [u8; N] {
        self.select(key);
        [0; N].map(|_| inb(&*self.device, DATA))
    }

    /// Runs a request and returns its control field.
    fn dma(&self, control: u32, length: u32, address: u64) -> u32 {
        let dma = self.memory.dma();
        let request = [&control.to_be_bytes()[..], &length.to_be_bytes(), &address.to_be_bytes()];
        dma.write_slice(&request.concat(), GuestAddress(REQUEST)).unwrap();
        outl(&*self.device, DMA_HIGH, 0);
        outl(&*self.device, DMA_LOW, (REQUEST as u32).swap_bytes());
        let mut control = [0; 4];
        dma.read_slice(&mut control, GuestAddress(REQUEST)).unwrap();
        u32::from_be_bytes(control)
    }

    fn buffer<const N: usize>(&self) -> [u8; N] {
        let mut buffer = [0; N];
        self.memory.dma().read_slice(&mut buffer, GuestAddress(BUFFER)).unwrap();
        buffer
    }
}

fn selecting(key: u16) -> u32 {
    u32::from(key) << 16 | DMA_SELECT
}

#[test]
fn items_are_read_by_bytes_and_end_in_zeroes() {
    let rig = rig();
    assert_eq!(rig.item(KEY_SIGNATURE), *b"QEMU\0\0");
    assert_eq!(rig.item(KEY_ID), [3, 0, 0, 0]);
    assert_eq!(rig.item(KEY_NB_CPUS), [3, 0]);
    assert_eq!(rig.item(KEY_RAM_SIZE), 0x1234_5678u64.to_le_bytes());
    assert_eq!(rig.item(0x8003 | KEY_WRITE_CHANNEL), *b"e820\0");
    assert_eq!(rig.item(0x3fff), [0; 2]);
}

#[test]
fn the_directory_lists_files_by_name() {
    let rig = rig();
    let directory: [u8; 4 + 2 * 64] = rig.item(KEY_FILE_DIR);
    assert_eq!(directory[..4], [0, 0, 0, 2]);
    assert_eq!(directory[4..12], [0, 0, 1, 44, 0, 0x20, 0, 0]);
    assert_eq!(directory[12..22], *b"etc/first\0");
    assert_eq!(directory[68..76], [0, 0, 0, 3, 0, 0x21, 0, 0]);
    assert_eq!(rig.item(0x21), *b"two");
}

#[test]
fn the_dma_register_says_that_it_is_there() {
    let rig = rig();
    let mut signature = [0; 8];
    rig.device.read(DMA_HIGH, &mut signature[..4]);
    rig.device.read(DMA_LOW, &mut signature[4..]);
    assert_eq!(&signature, DMA_SIGNATURE);
}

#[test]
fn dma_reads_skips_and_pads() {
    let rig = rig();
    assert_eq!(rig.dma(selecting(0x21) | DMA_READ, 5, BUFFER), 0);
    assert_eq!(rig.buffer(), *b"two\0\0");
    assert_eq!(rig.dma(selecting(0x21) | DMA_SKIP, 1, 0), 0);
    assert_eq!(rig.dma(DMA_READ, 2, BUFFER), 0);
    assert_eq!(rig.buffer(), *b"wo");
    assert_eq!(rig.dma(selecting(KEY_SIGNATURE), 0, 0), 0);
    assert_eq!(inb(&*rig.device, DATA), b'Q');
}

#[test]
fn dma_mistakes_set_the_error_bit() {
    let rig = rig();
    assert_eq!(rig.dma(selecting(0x20) | DMA_READ, 300, RAM_SIZE - 100), DMA_ERROR);
    assert_eq!(rig.dma(selecting(0x20) | DMA_READ, 300, u64::MAX - 100), DMA_ERROR);
    assert_eq!(rig.dma(selecting(0x20) | DMA_READ, u32::MAX, 0), DMA_ERROR);
    assert_eq!(rig.dma(selecting(0x20) | DMA_WRITE, 3, BUFFER), DMA_ERROR);
    outl(&*rig.device, DMA_HIGH, u32::MAX);
    outl(&*rig.device, DMA_LOW, u32::MAX); // a request that is nowhere
}

#[test]
fn bad_files_are_refused() {
    let mut items = FwCfgItems::new(1, 0);
    items.add_file("a", Vec::new()).unwrap();
    assert!(matches!(items.add_file("a", Vec::new()), Err(FwCfgError::Duplicate { .. })));
    assert!(matches!(items.add_file("", Vec::new()), Err(FwCfgError::Name { .. })));
    items.add_file(&"x".repeat(NAME_MAX), Vec::new()).unwrap();
    let long = "x".repeat(NAME_MAX + 1);
    assert!(matches!(items.add_file(&long, Vec::new()), Err(FwCfgError::Name { .. })));
}

#[test]
fn restored_state_saves_equal_and_goes_on() {
    let old = rig();
    assert_eq!(old.item(0x21), *b"t");
    outl(&*old.device, DMA_HIGH, 0x0100_0000);
    let new = rig();
    new.device.restore(&old.device.save()).unwrap();
    assert_eq!(new.device.save(), old.device.save());
    assert_eq!(inb(&*new.device, DATA), b'w');
    new.device.reset();
    assert_eq!(new.device.save(), rig().device.save());
}

#[test]
fn a_built_file_is_made_anew_for_each_selection() {
    let made = Arc::new(std::sync::atomic::AtomicU8::new(0));
    let count = made.clone();
    let build = move || {
        let nth = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        vec![nth; 3 + usize::from(nth)]
    };
    let mut items = FwCfgItems::new(1, 0);
    items.add_built_file("etc/built", Arc::new(build)).unwrap();
    let rig = rig();
    let device = FwCfg::new(rig.memory.clone(), items);
    let rig = Rig { device, ..rig };
    // The first was for the length: 3 bytes, whatever comes later.
    assert_eq!(rig.item::<5>(KEY_FILE_FIRST), [1, 1, 1, 0, 0]);
    assert_eq!(rig.item::<2>(KEY_FILE_FIRST), [2, 2]);
    let saved = rig.device.save();
    rig.device.restore(&saved).unwrap();
    assert_eq!([0; 2].map(|_| inb(&*rig.device, DATA)), [3, 0]);
}
