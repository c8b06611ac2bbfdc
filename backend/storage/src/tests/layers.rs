//! Layers that come while a disk is used, and that are merged.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use super::images::{fill, look};
use super::*;

/// A disk's files, the oldest first.
struct Chain {
    dir: tempfile::TempDir,
    files: Vec<PathBuf>,
}

impl Chain {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let first = dir.path().join("0");
        create_layer(&first, SIZE, None).unwrap();
        Self { dir, files: vec![first] }
    }

    fn add(&mut self) {
        let path = self.dir.path().join(self.files.len().to_string());
        create_layer(&path, SIZE, Some(Format::Qcow2)).unwrap();
        self.files.push(path);
    }

    /// The disk as of the first so many layers.
    fn options(&self, count: usize) -> DiskOptions {
        let mut files = self.files[..count].iter().rev().cloned();
        let format = Some(Format::Qcow2);
        let path = files.next().unwrap();
        let backing = files.map(|path| (path, format)).collect();
        DiskOptions { format, backing, ..DiskOptions::new(path) }
    }
}

fn lay(disk: &dyn Disk, over: &DiskOptions) -> Result<(), OpenError> {
    disk.lay(over, over.open_files().unwrap())
}

#[test]
fn a_disk_goes_on_in_a_new_layer_while_it_is_used() {
    let mut chain = Chain::new();
    let disk = chain.options(1).open().unwrap();
    fill(&*disk, 0, 8192, 1);
    chain.add();
    let stops = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stops.load(Ordering::Relaxed) {
                assert!(look(&*disk, 0, 4096).iter().all(|byte| *byte == 1));
            }
        });
        lay(&*disk, &chain.options(2)).unwrap();
        fill(&*disk, 4096, 4096, 2);
        stops.store(true, Ordering::Relaxed);
    });
    // Asked for again, nothing happens.
    lay(&*disk, &chain.options(2)).unwrap();
    disk.flush().unwrap();
    assert_eq!([look(&*disk, 0, 1)[0], look(&*disk, 4096, 1)[0]], [1, 2]);
    // What is below is as it was, and others may read it; the top is this disk's alone.
    let below = DiskOptions { read_only: true, ..chain.options(1) };
    assert_eq!(look(&*below.open().unwrap(), 4096, 1), [1]);
    assert!(matches!(chain.options(2).open(), Err(OpenError::Locked { .. })));
    drop(disk);
    assert_eq!(look(&*chain.options(2).open().unwrap(), 4096, 1), [2]);
}

#[test]
fn a_layer_that_is_not_above_is_refused_and_the_disk_goes_on() {
    let mut chain = Chain::new();
    let disk = chain.options(1).open().unwrap();
    let mut other = Chain::new();
    other.add();
    assert!(matches!(lay(&*disk, &other.options(2)), Err(OpenError::NoLayers { .. })));
    chain.add();
    std::fs::write(&chain.files[1], "no layer").unwrap();
    assert!(lay(&*disk, &chain.options(2)).is_err());
    fill(&*disk, 0, 512, 7);
    assert_eq!(look(&*disk, 0, 1), [7]);
    let raw = chain.dir.path().join("raw");
    std::fs::write(&raw, [0; 512]).unwrap();
    assert!(lay(&*DiskOptions::new(raw).open().unwrap(), &chain.options(2)).is_err());
}

#[test]
fn two_layers_become_one_that_stands_in_their_place() {
    let mut chain = Chain::new();
    for byte in 1..=4 {
        let disk = chain.options(usize::from(byte)).open().unwrap();
        // Each covers half of the one before, and a place of its own.
        fill(&*disk, u64::from(byte) << 16, 2 << 16, byte);
        fill(&*disk, (10 + u64::from(byte)) << 16, 1 << 16, byte);
        if byte == 3 {
            disk.write_zeroes(1 << 16, 1 << 16, false).unwrap();
        }
        disk.flush().unwrap();
        drop(disk);
        chain.add();
    }
    let all = |chain: &Chain| {
        let count = chain.files.len();
        look(&*chain.options(count).open().unwrap(), 0, SIZE as usize)
    };
    let before = all(&chain);
    assert_eq!([before[1 << 16], before[3 << 16], before[4 << 16]], [0, 3, 4]);
    let merged = chain.dir.path().join("merged");
    let half = chain.options(3);
    merge_layers(&half, &merged, &mut |_| true).unwrap();
    chain.files.splice(1..3, [merged]);
    assert!(all(&chain) == before);
    // Down to the one at the bottom.
    let bottom = chain.dir.path().join("bottom");
    merge_layers(&chain.options(2), &bottom, &mut |_| true).unwrap();
    chain.files.splice(0..2, [bottom]);
    assert!(all(&chain) == before);
    let cut = chain.dir.path().join("cut");
    assert!(merge_layers(&chain.options(2), &cut, &mut |_| false).is_err());
}
