//! The store with real files, and files that lie.

use std::fs::{self, File};
use std::io::Cursor;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

use crate::probe::probe;
use crate::*;

struct Rig {
    folder: TempDir,
    store: Store,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("images")).unwrap();
        Self { folder, store }
    }

    /// A file of so many MiB with this text at its second.
    fn disk(&self, name: &str, mib: u64, text: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        let file = File::create(&path).unwrap();
        file.set_len(mib << 20).unwrap();
        file.write_all_at(text, 1 << 20).unwrap();
        path
    }

    fn import(&self, path: &Path, name: &str) -> Result<Image, ImageError> {
        import(&self.store, Source::Path(path), &named(name), None, false, &mut |_, _| ())
    }

    fn files(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path().join("images").join(folder)).unwrap();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn named(name: &str) -> Name {
    name.parse().unwrap()
}

#[test]
fn a_disk_that_came_in_is_there_with_its_bytes_and_holes() {
    let rig = Rig::new();
    let image = rig.import(&rig.disk("a.img", 64, b"hello"), "a").unwrap();
    assert_eq!(rig.store.find(&named("a")).unwrap().id, image.id);
    assert_eq!(image.size_bytes, 64 << 20);
    let mut text = [0; 5];
    let disk = File::open(&image.path).unwrap();
    disk.read_exact_at(&mut text, 1 << 20).unwrap();
    assert_eq!(&text, b"hello");
    assert!(image.used_bytes <= 2 << 20);
    assert_eq!(disk.metadata().unwrap().mode() & 0o777, 0o444);
    assert_eq!(rig.files("partial"), [""; 0]);
    rig.store.verify(&image, &mut |_, _| ()).unwrap();
}

#[test]
fn one_disk_under_two_names_is_kept_once_and_goes_with_the_last() {
    let rig = Rig::new();
    let path = rig.disk("a.img", 8, b"hello");
    let first = rig.import(&path, "a").unwrap();
    let mut bytes = Cursor::new(fs::read(&path).unwrap());
    let source = Source::Stream(&mut bytes);
    let second = import(&rig.store, source, &named("b"), None, false, &mut |_, _| ()).unwrap();
    assert_eq!(first.id, second.id);
    assert_eq!(rig.files("disks").len(), 1);
    rig.store.remove(&named("a")).unwrap();
    assert_eq!(rig.files("disks").len(), 1);
    rig.store.remove(&named("b")).unwrap();
    assert_eq!((rig.files("disks").len(), rig.store.list().unwrap().len()), (0, 0));
    assert!(matches!(rig.store.remove(&named("b")), Err(ImageError::Missing(_))));
}

#[test]
fn disks_differ_by_size_place_and_bytes() {
    let rig = Rig::new();
    let ids = [(8, &b"hello"[..]), (9, b"hello"), (8, b"hallo")];
    let mut ids = ids.map(|(mib, text)| {
        let path = rig.disk("a.img", mib, text);
        let file = File::open(path).unwrap();
        digest::of(&file, &mut |_, _| ()).unwrap().to_string()
    });
    ids.sort();
    assert!(ids[0] != ids[1] && ids[1] != ids[2]);
}

#[test]
fn a_name_is_taken_until_it_is_to_be_replaced() {
    let rig = Rig::new();
    let (old, new) = (rig.disk("old", 1, b""), rig.disk("new", 2, b"2"));
    rig.import(&old, "a").unwrap();
    assert!(matches!(rig.import(&new, "a"), Err(ImageError::Exists(_))));
    let replaced =
        import(&rig.store, Source::Path(&new), &named("a"), None, true, &mut |_, _| ()).unwrap();
    assert_eq!(replaced.size_bytes, 2 << 20);
    assert_eq!(rig.files("disks"), [replaced.id.to_string()]);
}

#[test]
fn a_disk_in_use_is_not_removed() {
    let rig = Rig::new();
    let image = rig.import(&rig.disk("a.img", 2, b"hello"), "a").unwrap();
    let vm = File::open(&image.path).unwrap();
    flock(&vm, FlockOperation::LockShared).unwrap();
    assert!(matches!(rig.store.remove(&named("a")), Err(ImageError::InUse(_))));
    drop(vm);
    // A child that another test starts just then has the lock, too, until its exec.
    let removed = (0..6000).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(10));
        rig.store.remove(&named("a")).is_ok()
    });
    assert!(removed);
}

#[test]
fn what_killed_processes_left_is_removed_and_what_others_make_is_not() {
    let rig = Rig::new();
    fs::write(rig.folder.path().join("images/partial/left"), b"half").unwrap();
    let mine = rig.store.partial().unwrap();
    let other = rig.store.partial().unwrap();
    assert!(mine.path().exists() && other.path().exists());
    assert_eq!(rig.files("partial").len(), 2);
}

#[test]
fn a_damaged_disk_or_record_is_told() {
    let rig = Rig::new();
    let image = rig.import(&rig.disk("a.img", 2, b"hello"), "a").unwrap();
    fs::remove_file(&image.path).unwrap();
    fs::write(&image.path, vec![1; 2 << 20]).unwrap();
    let verified = rig.store.verify(&image, &mut |_, _| ());
    assert!(matches!(verified, Err(ImageError::Damaged { .. })));
    fs::write(rig.folder.path().join("images/names/a"), "{}").unwrap();
    assert!(matches!(rig.store.find(&named("a")), Err(ImageError::Record { .. })));
}

#[test]
fn what_fails_leaves_nothing() {
    let rig = Rig::new();
    let odd = rig.folder.path().join("odd");
    for content in [&b""[..], b"no whole sector"] {
        fs::write(&odd, content).unwrap();
        assert!(matches!(rig.import(&odd, "a"), Err(ImageError::Size { .. })));
    }
    assert!(rig.import(Path::new("/dev/null"), "a").is_err());
    assert!(rig.import(rig.folder.path(), "a").is_err());
    for folder in ["disks", "names", "partial"] {
        assert_eq!(rig.files(folder), [""; 0], "{folder}");
    }
}

/// A qcow2 header with these fields changed.
fn qcow2(fields: &[(usize, u8)]) -> Vec<u8> {
    let mut header = vec![0; 512];
    header[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    for (at, value) in fields {
        header[*at] = *value;
    }
    header
}

fn vmdk(capacity: u8, descriptor: &[u8]) -> Vec<u8> {
    let mut file = vec![0; 512];
    file[..4].copy_from_slice(b"KDMV");
    (file[12], file[28], file[36]) = (capacity, 1, 1);
    file.extend(descriptor);
    file.resize(1024, 0);
    file
}

#[test]
fn formats_are_told_by_bytes_and_files_that_name_others_are_refused() {
    let probed = |bytes: &[u8], wanted| {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        probe(&file, "it", wanted)
    };
    let told = |bytes: &[u8]| probed(bytes, None).unwrap();
    assert_eq!(told(&qcow2(&[])), Format::Qcow2);
    assert_eq!(told(&vmdk(1, b"parentCID=ffffffff")), Format::Vmdk);
    assert_eq!(told(b"vhdxfile"), Format::Vhdx);
    assert_eq!(told(&[0; 512]), Format::Raw);
    assert_eq!(told(b""), Format::Raw);

    let backing = qcow2(&[(15, 1)]);
    for (bytes, what) in [
        (&backing[..], "backing file"),
        (&qcow2(&[(79, 4)]), "data file"),
        (&vmdk(0, b""), "no capacity"),
        (&vmdk(1, b"x\nParentFileNameHint=\"/etc/passwd\""), "parent"),
        (b"# Disk DescriptorFile\nRW 1 FLAT \"/etc/passwd\" 0", "flat"),
    ] {
        assert!(matches!(probed(bytes, None), Err(ImageError::Depends { .. })), "{what}");
    }
    for (bytes, what) in [
        (&qcow2(&[(7, 9)])[..], "version"),
        (&qcow2(&[(35, 1)]), "encrypted"),
        (&qcow2(&[])[..20], "cut"),
        (b"\x1f\x8b\x08", "gzip"),
    ] {
        assert!(probed(bytes, None).is_err(), "{what}");
    }
    // Who says that it is raw gets those bytes, and no program looks into them.
    assert_eq!(probed(&backing, Some(Format::Raw)).unwrap(), Format::Raw);
    assert!(matches!(probed(b"vhdxfile", Some(Format::Qcow2)), Err(ImageError::Format { .. })));
}

/// Whether the converter is here, as a test that needs it has to say.
fn has_converter() -> bool {
    let has = std::process::Command::new("qemu-img").arg("--version").output().is_ok();
    if !has {
        eprintln!("not run: qemu-img is missing");
    }
    has
}

#[test]
fn a_disk_has_one_id_in_all_formats_there_and_back() {
    if !has_converter() {
        return;
    }
    let rig = Rig::new();
    let image = rig.import(&rig.disk("a.img", 8, b"hello"), "raw").unwrap();
    for format in [Format::Qcow2, Format::Vmdk, Format::Vhdx] {
        let path = rig.folder.path().join("named.wrongly");
        export(&image, &path, format, &mut |_, _| ()).unwrap();
        let back = rig.import(&path, &format.to_string()).unwrap();
        assert_eq!(back.id, image.id, "{format}");
        assert!(export(&image, &path, format, &mut |_, _| ()).is_err(), "it is there");
        let mut bytes = File::open(&path).unwrap();
        let again = format!("{format}-stream").parse().unwrap();
        let source = Source::Stream(&mut bytes);
        let streamed = import(&rig.store, source, &again, None, false, &mut |_, _| ()).unwrap();
        assert_eq!(streamed.id, image.id, "{format}");
        fs::remove_file(&path).unwrap();
    }
    assert_eq!((rig.files("disks").len(), rig.files("partial").len()), (1, 0));
}

#[test]
fn the_disk_of_an_archive_comes_in_and_two_are_too_many() {
    if !has_converter() {
        return;
    }
    let rig = Rig::new();
    let image = rig.import(&rig.disk("a.img", 8, b"hello"), "raw").unwrap();
    let vmdk = rig.folder.path().join("disk.vmdk");
    export(&image, &vmdk, Format::Vmdk, &mut |_, _| ()).unwrap();
    let archive = |disks: usize| {
        let path = rig.folder.path().join(format!("{disks}.ova"));
        let mut archive = tar::Builder::new(File::create(&path).unwrap());
        let mut header = tar::Header::new_ustar();
        header.set_size(0);
        archive.append_data(&mut header, "vm.ovf", std::io::empty()).unwrap();
        for n in 0..disks {
            archive.append_path_with_name(&vmdk, format!("{n}.vmdk")).unwrap();
        }
        archive.finish().unwrap();
        path
    };
    assert_eq!(rig.import(&archive(1), "ova").unwrap().id, image.id);
    for disks in [0, 2] {
        assert!(rig.import(&archive(disks), "not").is_err(), "{disks}");
    }
    assert_eq!(rig.files("partial").len(), 0);
}

#[test]
fn a_file_that_the_converter_refuses_leaves_nothing() {
    if !has_converter() {
        return;
    }
    let rig = Rig::new();
    let path = rig.folder.path().join("bad.qcow2");
    fs::write(&path, qcow2(&[])).unwrap();
    assert!(matches!(rig.import(&path, "bad"), Err(ImageError::Converter { .. })));
    assert_eq!((rig.files("names").len(), rig.files("partial").len()), (0, 0));
}
