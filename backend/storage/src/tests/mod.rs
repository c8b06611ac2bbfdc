//! Raw disks on real files.

mod images;
mod layers;

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::*;

const SIZE: u64 = 4 << 20;

struct Image {
    dir: tempfile::TempDir,
    path: PathBuf,
}

fn image() -> Image {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.raw");
    File::create(&path).unwrap().set_len(SIZE).unwrap();
    Image { dir, path }
}

impl Image {
    fn open(&self) -> RawDisk {
        RawDisk::open(&self.path, false).unwrap()
    }
}

fn write(disk: &RawDisk, offset: u64, parts: &mut [Vec<u8>]) -> io::Result<()> {
    let slices: Vec<_> = parts.iter_mut().map(|p| VolatileSlice::from(p.as_mut_slice())).collect();
    disk.write(offset, &slices)
}

fn read(disk: &RawDisk, offset: u64, sizes: &[usize]) -> io::Result<Vec<u8>> {
    let mut parts: Vec<_> = sizes.iter().map(|size| vec![0xaa; *size]).collect();
    let slices: Vec<_> = parts.iter_mut().map(|p| VolatileSlice::from(p.as_mut_slice())).collect();
    disk.read(offset, &slices)?;
    Ok(parts.concat())
}

#[test]
fn what_is_written_in_parts_is_read_in_other_parts() {
    let image = image();
    let disk = image.open();
    // More buffers than one system call takes, with empty ones among them.
    let mut parts: Vec<Vec<u8>> = (0..2500usize).map(|i| vec![i as u8; i % 4]).collect();
    let all = parts.concat();
    write(&disk, 512, &mut parts).unwrap();
    disk.flush().unwrap();
    assert_eq!(read(&disk, 512, &[0, 1000, 0, all.len() - 1000]).unwrap(), all);
    assert_eq!(fs::read(&image.path).unwrap()[512..512 + all.len()], all);
}

#[test]
fn ranges_past_the_end_are_refused_and_the_file_does_not_grow() {
    let image = image();
    let disk = image.open();
    let kind = |result: io::Result<()>| result.unwrap_err().kind();
    for offset in [SIZE - 511, SIZE, u64::MAX, u64::MAX - 511, i64::MAX as u64] {
        let mut data = [vec![1; 512]];
        assert_eq!(kind(write(&disk, offset, &mut data)), ErrorKind::InvalidInput);
        assert_eq!(kind(read(&disk, offset, &[512]).map(drop)), ErrorKind::InvalidInput);
        assert_eq!(kind(disk.discard(offset, 512)), ErrorKind::InvalidInput);
        assert_eq!(kind(disk.write_zeroes(offset, 512, true)), ErrorKind::InvalidInput);
    }
    assert_eq!(fs::metadata(&image.path).unwrap().len(), SIZE);
}

#[test]
fn a_file_that_shrank_is_an_error_not_a_hang() {
    let image = image();
    let disk = image.open();
    OpenOptions::new().write(true).open(&image.path).unwrap().set_len(512).unwrap();
    assert_eq!(read(&disk, 512, &[512]).unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

#[test]
fn discards_give_space_back_and_zeroes_read_as_zero() {
    let image = image();
    let disk = image.open();
    write(&disk, 0, &mut [vec![7; 1 << 20]]).unwrap();
    let used = |i: &Image| fs::metadata(&i.path).unwrap().blocks();
    let before = used(&image);
    disk.discard(0, 1 << 19).unwrap();
    let holes = !disk.no_holes().load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(used(&image) < before, holes);
    for (unmap, no_holes) in [(true, false), (false, false), (true, true)] {
        write(&disk, 0, &mut [vec![7; 300_000]]).unwrap();
        disk.set_no_holes(no_holes);
        disk.write_zeroes(512, 200_192, unmap).unwrap();
        let data = read(&disk, 0, &[300_000]).unwrap();
        assert!(data[512..200_704].iter().all(|b| *b == 0));
        assert_eq!((data[511], data[200_704]), (7, 7));
    }
    disk.discard(0, 0).unwrap();
    disk.write_zeroes(SIZE, 0, false).unwrap();
}

impl RawDisk {
    fn set_no_holes(&self, value: bool) {
        self.no_holes().store(value, std::sync::atomic::Ordering::Relaxed);
    }
}

#[test]
fn a_read_only_disk_refuses_to_change() {
    let image = image();
    let disk = RawDisk::open(&image.path, true).unwrap();
    assert!(disk.info().read_only);
    let kind = |result: io::Result<()>| result.unwrap_err().kind();
    assert_eq!(kind(write(&disk, 0, &mut [vec![1]])), ErrorKind::ReadOnlyFilesystem);
    assert_eq!(kind(disk.discard(0, 512)), ErrorKind::ReadOnlyFilesystem);
    assert_eq!(kind(disk.write_zeroes(0, 512, false)), ErrorKind::ReadOnlyFilesystem);
    assert_eq!(read(&disk, 0, &[2]).unwrap(), [0, 0]);
}

#[test]
fn a_writer_is_alone_and_readers_share() {
    let image = image();
    let writer = image.open();
    for read_only in [false, true] {
        let error = RawDisk::open(&image.path, read_only).unwrap_err();
        assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    }
    drop(writer);
    let _readers = [(); 2].map(|()| RawDisk::open(&image.path, true).unwrap());
    assert!(matches!(RawDisk::open(&image.path, false), Err(OpenError::Locked { .. })));
}

#[test]
fn what_is_no_disk_is_refused_with_its_reason() {
    let image = image();
    let open = |path: &Path| RawDisk::open(path, true).unwrap_err();
    assert!(matches!(open(&image.dir.path().join("none")), OpenError::Missing { .. }));
    assert!(matches!(open(&image.path.join("below")), OpenError::Missing { .. }));
    assert!(matches!(open(image.dir.path()), OpenError::Directory { .. }));
    assert!(matches!(RawDisk::open(image.dir.path(), false), Err(OpenError::Directory { .. })));
    assert!(matches!(open(Path::new("/dev/null")), OpenError::Kind { .. }));
    for size in [0, 511, 513] {
        let path = image.dir.path().join("odd");
        File::create(&path).unwrap().set_len(size).unwrap();
        assert!(matches!(open(&path), OpenError::Size { size_bytes, .. } if size_bytes == size));
    }
}

#[test]
fn a_pipe_is_refused_without_waiting_for_its_other_end() {
    let image = image();
    let path = image.dir.path().join("pipe");
    let made = rustix::fs::mknodat(
        rustix::fs::CWD,
        &path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    );
    made.unwrap();
    assert!(matches!(RawDisk::open(&path, true), Err(OpenError::Kind { .. })));
}

#[test]
fn missing_permission_is_named() {
    let image = image();
    fs::set_permissions(&image.path, Permissions::from_mode(0o400)).unwrap();
    // Root may write all the same.
    if let Err(error) = RawDisk::open(&image.path, false) {
        assert!(matches!(error, OpenError::Permission { write: true, .. }), "{error}");
        assert!(error.to_string().contains("',ro'"));
    }
}
