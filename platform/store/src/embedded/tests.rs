//! What is the file's own: locks, damage, formats.

use super::*;

fn put(store: &Embedded, key: &str, value: &str) -> Revision {
    store.commit(&Txn::new().put(key, value)).unwrap().done().unwrap()
}

#[test]
fn what_was_written_is_there_when_it_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path()).unwrap();
    let revision = put(&store, "a", "1");
    let lease = store.grant(Duration::from_secs(60)).unwrap();
    drop(store);
    let store = Embedded::open(folder.path()).unwrap();
    let (entry, last) = store.get("a").unwrap();
    assert_eq!((entry.unwrap().value, last), (b"1".to_vec(), revision));
    store.keep_alive(lease).unwrap();
}

#[test]
fn only_one_process_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path()).unwrap();
    assert!(matches!(Embedded::open(folder.path()), Err(StoreError::InUse(_))));
    drop(store);
    Embedded::open(folder.path()).unwrap();
}

#[test]
fn a_folder_that_somebody_is_about_to_leave_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path()).unwrap();
    let leaving = thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        drop(store);
    });
    Embedded::open(folder.path()).unwrap();
    leaving.join().unwrap();
}

#[test]
fn a_file_that_is_cut_off_or_another_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path()).unwrap();
    for n in 0..200 {
        put(&store, &format!("key{n}"), &"x".repeat(500));
    }
    drop(store);
    let path = folder.path().join("store.sqlite");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(matches!(Embedded::open(folder.path()), Err(StoreError::Damaged { .. })));
    fs::write(&path, "a letter, and no database at all".repeat(40)).unwrap();
    assert!(matches!(Embedded::open(folder.path()), Err(StoreError::Damaged { .. })));
    fs::write(&path, &whole).unwrap();
    Embedded::open(folder.path()).unwrap();
}

#[test]
fn a_file_that_is_emptied_or_gone_is_no_new_store() {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path()).unwrap();
    put(&store, "key", "value");
    let path = folder.path().join("store.sqlite");
    let log = path.with_extension("sqlite-wal");
    let (whole, rest) = (fs::read(&path).unwrap(), fs::read(&log).unwrap());
    drop(store);
    for left in [&b""[..], &whole[..1], &whole[..100]] {
        fs::write(&path, left).unwrap();
        assert!(matches!(Embedded::open(folder.path()), Err(StoreError::Damaged { .. })));
    }
    // As a process that was killed leaves it.
    fs::write(&log, &rest).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(matches!(Embedded::open(folder.path()), Err(StoreError::Damaged { .. })));
    fs::write(&path, &whole).unwrap();
    assert_eq!(
        Embedded::open(folder.path()).unwrap().get("key").unwrap().0.unwrap().value,
        b"value"
    );
}

#[test]
fn a_later_format_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    drop(Embedded::open(folder.path()).unwrap());
    let path = folder.path().join("store.sqlite");
    Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 7").unwrap();
    let error = Embedded::open(folder.path()).err().unwrap();
    assert!(matches!(error, StoreError::Format { found: 7, known: 1, .. }), "{error}");
}
