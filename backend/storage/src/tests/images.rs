//! qcow2 images made by the library and bent by hand; what is refused, and what is thrown away.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use imago::qcow2::Qcow2;
use imago::{FormatCreateBuilder, Storage, StorageCreateOptions};

use super::*;

const CLUSTER: u64 = 64 << 10;

fn create(path: &Path, backing: Option<&str>) {
    let options = StorageCreateOptions::new().filename(path).size(0);
    let file = imago::file::File::create_open(options).unwrap();
    let mut builder =
        Qcow2::<imago::file::File>::create_builder(file).size(SIZE).cluster_size(CLUSTER as usize);
    if let Some(name) = backing {
        builder = builder.backing(name.to_owned(), "qcow2".to_owned());
    }
    builder.create().unwrap();
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn qcow2(dir: &tempfile::TempDir, name: &str, backing: Option<&str>) -> PathBuf {
    let path = dir.path().join(name);
    create(&path, backing);
    path
}

pub(super) fn fill(disk: &dyn Disk, offset: u64, size: usize, byte: u8) {
    let mut data = vec![byte; size];
    disk.write(offset, &[VolatileSlice::from(data.as_mut_slice())]).unwrap();
}

pub(super) fn look(disk: &dyn Disk, offset: u64, size: usize) -> Vec<u8> {
    let mut data = vec![0xaa; size];
    disk.read(offset, &[VolatileSlice::from(data.as_mut_slice())]).unwrap();
    data
}

fn refused(options: &DiskOptions) -> String {
    let error = options.open().map(drop).unwrap_err();
    let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    format!("{error}: {source}")
}

#[test]
fn what_is_flushed_to_an_image_is_there_when_it_is_opened_again() {
    let dir = directory();
    for cache in [Cache::Writeback, Cache::Writethrough, Cache::Unsafe] {
        let path = qcow2(&dir, &format!("{cache:?}.qcow2"), None);
        let options = DiskOptions { cache, ..DiskOptions::new(&path) };
        let disk = options.open().unwrap();
        assert_eq!((disk.info().size_bytes, disk.info().read_only), (SIZE, false));
        fill(&*disk, CLUSTER - 512, 2048, 7);
        fill(&*disk, SIZE - 512, 512, 8);
        disk.flush().unwrap();
        assert!(matches!(options.open(), Err(OpenError::Locked { .. })));
        drop(disk);
        let disk = DiskOptions { read_only: true, ..options }.open().unwrap();
        assert_eq!(look(&*disk, CLUSTER - 512, 2048), vec![7; 2048]);
        assert_eq!(look(&*disk, SIZE - 512, 512), vec![8; 512]);
        assert_eq!(look(&*disk, 0, 512), vec![0; 512]);
        let kind = disk.write_zeroes(0, 512, true).unwrap_err().kind();
        assert_eq!(kind, ErrorKind::ReadOnlyFilesystem);
        let kind = disk.discard(SIZE, 1).unwrap_err().kind();
        assert_eq!(kind, ErrorKind::ReadOnlyFilesystem);
    }
}

#[test]
fn discards_and_zeroes_of_an_image_read_as_zero() {
    let dir = directory();
    let path = qcow2(&dir, "a.qcow2", None);
    let disk = DiskOptions::new(&path).open().unwrap();
    fill(&*disk, 0, 3 * CLUSTER as usize, 7);
    disk.discard(0, CLUSTER).unwrap();
    disk.write_zeroes(CLUSTER + 512, CLUSTER, true).unwrap();
    disk.write_zeroes(2 * CLUSTER + 1024, 512, false).unwrap();
    assert_eq!(look(&*disk, CLUSTER, 1024), [[7; 512], [0; 512]].concat());
    assert_eq!(look(&*disk, 2 * CLUSTER, 2048), [[0; 512], [7; 512], [0; 512], [7; 512]].concat());
    assert_eq!(disk.discard(SIZE, 512).unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn only_layers_the_operator_names_are_opened_and_they_are_not_written() {
    let dir = directory();
    let base = qcow2(&dir, "base.qcow2", None);
    fill(&*DiskOptions::new(&base).open().unwrap(), 0, 1024, 1);
    let before = fs::read(&base).unwrap();
    let top = qcow2(&dir, "top.qcow2", Some("base.qcow2"));
    let alone = DiskOptions::new(&top);
    assert!(refused(&alone).contains("backing=base.qcow2"), "{}", refused(&alone));
    let layered = DiskOptions { backing: vec![(base.clone(), None)], ..alone };
    let disk = layered.open().unwrap();
    fill(&*disk, 512, 512, 2);
    assert_eq!(look(&*disk, 0, 1024), [[1; 512], [2; 512]].concat());
    // The base is in use, but not alone.
    assert!(matches!(DiskOptions::new(&base).open(), Err(OpenError::Locked { .. })));
    drop(disk);
    assert_eq!(fs::read(&base).unwrap(), before);
    let needless = DiskOptions { backing: vec![(top.clone(), None)], ..DiskOptions::new(&base) };
    assert!(refused(&needless).contains("stands alone"));
    let looped = DiskOptions { backing: vec![(top.clone(), None)], ..DiskOptions::new(&top) };
    assert!(matches!(looped.open(), Err(OpenError::Loop { .. })));
}

#[test]
fn a_raw_disk_that_begins_as_an_image_is_opened_only_as_what_the_operator_says() {
    let dir = directory();
    let path = qcow2(&dir, "disk.img", None);
    let options = DiskOptions::new(&path);
    assert!(matches!(options.open(), Err(OpenError::Unclear { found: "qcow2", .. })));
    let size = |format| {
        DiskOptions { format: Some(format), ..options.clone() }.open().unwrap().info().size_bytes
    };
    assert_eq!(size(Format::Qcow2), SIZE);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(1 << 20).unwrap();
    assert_eq!(size(Format::Raw), 1 << 20);
    file.write_all_at(b"vhdxfile", 0).unwrap();
    assert!(refused(&options).contains("qemu-img convert"));
    let named = DiskOptions { backing: vec![(path, None)], ..DiskOptions::new(image().path) };
    assert!(named.open().is_err());
}

#[test]
fn headers_that_lie_are_refused() {
    let dir = directory();
    let bends: [(&str, u64, &[u8]); 14] = [
        ("encryption", 35, &[2]),
        ("another version", 7, &[4]),
        ("cluster size", 23, &[40]),
        ("refcount width", 99, &[7]),
        ("size", 24, &[0xff]),
        ("L1 table", 36, &[0, 0, 0, 0]),
        ("L1 table", 40, &[0, 0, 0, 1]),
        ("L1 table", 36, &[0x7f, 0xff, 0xff, 0xff]),
        ("refcount table", 48, &[0x10, 0, 0, 0]),
        ("refcount table", 56, &[0xff, 0xff, 0xff, 0xff]),
        ("not closed", 79, &[1]),
        ("external data file", 79, &[4]),
        ("extended L2", 79, &[16]),
        ("later version", 72, &[0x80]),
    ];
    for (what, at, bytes) in bends {
        let path = qcow2(&dir, "bent.qcow2", None);
        OpenOptions::new().write(true).open(&path).unwrap().write_all_at(bytes, at).unwrap();
        let told = refused(&DiskOptions::new(&path));
        assert!(told.contains(what), "{what}: {told}");
        fs::remove_file(path).unwrap();
    }
}

/// The library calls itself without end on images cut inside their refcount tables.
#[test]
fn images_cut_anywhere_are_refused_or_work_and_never_overflow() {
    let dir = directory();
    let whole = qcow2(&dir, "whole.qcow2", None);
    fill(&*DiskOptions::new(&whole).open().unwrap(), 0, 1 << 20, 7);
    let bytes = fs::read(&whole).unwrap();
    let path = dir.path().join("cut.qcow2");
    for size in (0..bytes.len()).step_by(20_000).chain([65_536, 131_072, 131_080, 200_000]) {
        fs::write(&path, &bytes[..size]).unwrap();
        if let Ok(disk) = DiskOptions::new(&path).open() {
            let mut data = vec![3; 4096];
            let buffers = [VolatileSlice::from(data.as_mut_slice())];
            for at in (0..SIZE).step_by(CLUSTER as usize) {
                let _ = disk.read(at, &buffers);
                let _ = disk.write(at, &buffers);
            }
            let _ = disk.flush();
        }
    }
}

#[test]
fn a_snapshot_reads_what_it_wrote_over_what_is_below_and_leaves_that_alone() {
    let dir = directory();
    let path = dir.path().join("base.img");
    let base: Vec<u8> = (0..SIZE).map(|at| (at / 512) as u8).collect();
    fs::write(&path, &base).unwrap();
    let disk = DiskOptions { snapshot: true, ..DiskOptions::new(&path) }.open().unwrap();
    let mut expected = base.clone();
    let mut random = 1u64;
    for round in 0..400u32 {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let at = (random >> 33) % (SIZE / 512) * 512;
        let size = (1 + (random >> 20) % 40 * 512).next_multiple_of(512).min(SIZE - at);
        let range = at as usize..(at + size) as usize;
        if round % 4 == 0 {
            disk.write_zeroes(at, size, true).unwrap();
            expected[range].fill(0);
        } else {
            fill(&*disk, at, size as usize, round as u8);
            expected[range].fill(round as u8);
        }
    }
    assert_eq!(look(&*disk, 0, SIZE as usize), expected);
    assert_eq!(fs::read(&path).unwrap(), base);
    // Others may read what is below meanwhile.
    assert!(RawDisk::open(&path, true).is_ok());
}

#[test]
fn direct_disks_take_requests_of_any_alignment() {
    let image = image();
    let options = DiskOptions { cache: Cache::None, ..DiskOptions::new(&image.path) };
    let disk = match options.open() {
        Err(OpenError::NoDirect { .. }) => return, // not on this file system
        disk => disk.unwrap(),
    };
    fill(&*disk, 512, 8192, 5);
    assert_eq!(look(&*disk, 0, 1024), [[0; 512], [5; 512]].concat());
    assert_eq!(look(&*disk, 4096, 4096), vec![5; 4096]);
}

#[test]
fn a_limit_holds_back_what_is_too_fast_until_somebody_is_in_a_hurry() {
    let image = image();
    let text = format!("{},iops=100,bps-wr=1G", image.path.display());
    let disk = text.parse::<DiskOptions>().unwrap().open().unwrap();
    let start = Instant::now();
    for _ in 0..30 {
        look(&*disk, 0, 512);
    }
    // A tenth of a second's worth passes at once.
    assert!(start.elapsed() >= Duration::from_millis(180), "{:?}", start.elapsed());
    drop(disk);
    let text = format!("{},iops=1", image.path.display());
    let disk = text.parse::<DiskOptions>().unwrap().open().unwrap();
    disk.hurry(true);
    let start = Instant::now();
    for _ in 0..100 {
        look(&*disk, 0, 512);
    }
    assert!(start.elapsed() < Duration::from_secs(60));
}

/// Where the count of a cluster is, in an image whose counts have 16 bits.
fn count_at(file: &File, cluster: u64) -> u64 {
    let word = |at| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, at).unwrap();
        u64::from_be_bytes(bytes)
    };
    word(word(48)) + cluster * 2
}

#[test]
fn clusters_that_belong_to_nobody_are_given_back_when_an_image_is_written_again() {
    let dir = directory();
    let path = qcow2(&dir, "a.qcow2", None);
    let options = DiskOptions::new(&path);
    let disk = options.open().unwrap();
    fill(&*disk, 0, 512, 1);
    disk.flush().unwrap();
    drop(disk);
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let clusters = file.metadata().unwrap().len().div_ceil(CLUSTER);
    let count = |cluster| {
        let mut bytes = [0; 2];
        file.read_exact_at(&mut bytes, count_at(&file, cluster)).unwrap();
        u16::from_be_bytes(bytes)
    };
    let before: Vec<_> = (0..clusters + 3).map(count).collect();
    let lose = |cluster| file.write_all_at(&9u16.to_be_bytes(), count_at(&file, cluster)).unwrap();
    lose(clusters + 2);
    lose(clusters - 1);
    drop(DiskOptions { read_only: true, ..options.clone() }.open().unwrap());
    assert_eq!(count(clusters + 2), 9);
    let disk = options.open().unwrap();
    assert_eq!((0..clusters + 3).map(count).collect::<Vec<_>>(), before);
    assert_eq!(look(&*disk, 0, 512), vec![1; 512]);
}

#[test]
fn an_image_whose_clusters_have_more_owners_than_are_counted_is_not_written() {
    let dir = directory();
    let path = qcow2(&dir, "a.qcow2", None);
    let options = DiskOptions::new(&path);
    let disk = options.open().unwrap();
    fill(&*disk, 0, 512, 1);
    disk.flush().unwrap();
    drop(disk);
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    file.write_all_at(&[0; 2], count_at(&file, 1)).unwrap();
    assert!(
        refused(&options).contains("reference count table is damaged"),
        "{}",
        refused(&options)
    );
    assert!(DiskOptions { read_only: true, ..options }.open().is_ok());
}

#[test]
fn disks_of_both_formats_grow_and_what_is_new_is_zero() {
    let dir = directory();
    let raw = dir.path().join("a.raw");
    File::create(&raw).unwrap().set_len(SIZE).unwrap();
    for path in [raw, qcow2(&dir, "a.qcow2", None)] {
        let options = DiskOptions { snapshot: false, ..DiskOptions::new(&path) };
        let disk = options.open().unwrap();
        fill(&*disk, SIZE - 512, 512, 3);
        assert_eq!(disk.grow(SIZE - 512).unwrap_err().kind(), ErrorKind::InvalidInput);
        disk.grow(1 << 30).unwrap();
        assert_eq!(disk.info().size_bytes, 1 << 30);
        assert_eq!(look(&*disk, (1 << 30) - 512, 512), vec![0; 512]);
        fill(&*disk, (1 << 30) - 512, 512, 4);
        disk.flush().unwrap();
        drop(disk);
        let disk = DiskOptions { read_only: true, ..options.clone() }.open().unwrap();
        assert_eq!(look(&*disk, SIZE - 512, 512), vec![3; 512]);
        assert_eq!(look(&*disk, (1 << 30) - 512, 512), vec![4; 512]);
        assert_eq!(disk.grow(2 << 30).unwrap_err().kind(), ErrorKind::ReadOnlyFilesystem);
        drop(disk);
        let disk = DiskOptions { snapshot: true, ..options }.open().unwrap();
        assert_eq!(disk.grow(2 << 30).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
