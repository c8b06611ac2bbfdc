//! What every implementation of [`store::Store`] must do, whatever is behind it.
//!
//! Each case gets an empty store, or one in which nobody else writes and whose keys begin with something
//! of its own: revisions are compared to each other, never to numbers.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use store::{
    Batch, Change, Commit, Compare, Entry, KEY_LEN_MAX, LeaseId, OPS_MAX, Op, Range, Revision,
    Store, StoreError, Txn, VALUE_LEN_MAX, Watch,
};

/// Longer than any store takes to tell a change.
const SOON: Duration = Duration::from_secs(60);
/// Long enough for a change that must not come to come.
const A_MOMENT: Duration = Duration::from_millis(200);

type Shared = Arc<dyn Store>;

/// A test for each case, of the stores that `$make` makes.
#[macro_export]
macro_rules! contract {
    ($make:expr) => {
        $crate::contract!(@ $make,
            a_key_has_its_last_value_and_its_history_in_numbers
            a_transaction_happens_if_all_is_as_compared
            a_transaction_that_changes_nothing_has_no_revision
            limits_are_refused_and_change_nothing
            a_range_is_in_order_and_goes_on_after_a_key
            pages_of_one_revision_are_of_one_time
            a_watch_tells_past_and_future_once_and_in_order
            a_watch_tells_a_transaction_at_a_time
            a_watch_can_wait_for_a_revision
            what_is_compacted_is_refused_and_what_is_left_is_whole
            a_lease_takes_its_keys_with_it
            a_lease_lives_for_as_long_as_it_is_kept
            of_writers_at_once_one_wins
            each_of_many_is_a_transaction_of_its_own
        );
    };
    (@ $make:expr, $($case:ident)*) => {
        $(#[test] fn $case() { let (store, _guard) = $make; $crate::$case(&store); })*
    };
}

fn done(store: &Shared, txn: Txn) -> Revision {
    store.commit(&txn).unwrap().done().expect("nothing stands against it")
}

fn put(store: &Shared, key: &str, value: &str) -> Revision {
    done(store, Txn::new().put(key, value))
}

fn get(store: &Shared, key: &str) -> Option<Entry> {
    store.get(key).unwrap().0
}

fn next(watch: &mut Watch) -> Batch {
    watch.next_within(SOON).unwrap().expect("a change is told soon")
}

fn keys(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.key.as_str()).collect()
}

#[expect(missing_docs, reason = "names of tests are sentences")]
mod cases {
    use super::*;

    pub fn a_key_has_its_last_value_and_its_history_in_numbers(store: &Shared) {
        assert_eq!(get(store, "k"), None);
        let first = put(store, "k", "1");
        let second = put(store, "k", "2");
        assert_eq!(second, first.next());
        let entry = get(store, "k").unwrap();
        assert_eq!((entry.value.as_slice(), entry.lease), (&b"2"[..], None));
        assert_eq!((entry.created, entry.modified, entry.version), (first, second, 2));
        done(store, Txn::new().delete("k"));
        assert_eq!(get(store, "k"), None);
        let anew = put(store, "k", "3");
        let entry = get(store, "k").unwrap();
        assert_eq!((entry.created, entry.modified, entry.version), (anew, anew, 1));
        assert_eq!(store.get("other").unwrap(), (None, anew));
    }

    pub fn a_transaction_happens_if_all_is_as_compared(store: &Shared) {
        let both = Txn::new().if_absent("a").if_absent("b").put("a", "1").put("b", "1");
        let revision = done(store, both.clone());
        assert_eq!(store.commit(&both).unwrap(), Commit::Conflict);
        let half = Txn::new().if_modified("a", revision).if_absent("b").put("a", "2");
        assert_eq!(store.commit(&half).unwrap(), Commit::Conflict);
        assert_eq!(get(store, "a").unwrap().value, b"1");
        let value = |value: &str| Compare::Value("a".into(), value.into());
        let mut by_value = Txn { when: vec![value("2")], ..Txn::new().delete("b") };
        assert_eq!(store.commit(&by_value).unwrap(), Commit::Conflict);
        by_value.when = vec![value("1")];
        assert_eq!(done(store, by_value), revision.next());
        assert_eq!(get(store, "b"), None);
        let absent = Compare::Value("b".into(), Vec::new());
        let absent = Txn { when: vec![absent], ..Txn::new().put("a", "") };
        assert_eq!(store.commit(&absent).unwrap(), Commit::Conflict);
    }

    pub fn a_transaction_that_changes_nothing_has_no_revision(store: &Shared) {
        let revision = put(store, "k", "1");
        assert_eq!(done(store, Txn::new().delete("absent")), revision);
        assert_eq!(done(store, Txn::new().if_modified("k", revision)), revision);
        assert_eq!(put(store, "k", "1"), revision.next());
    }

    pub fn limits_are_refused_and_change_nothing(store: &Shared) {
        let revision = put(store, "k", "1");
        let refused = |txn: Txn| store.commit(&txn).unwrap_err();
        let twice = refused(Txn::new().put("k", "2").delete("k"));
        assert!(matches!(twice, StoreError::Twice(key) if key == "k"));
        let value = vec![0; VALUE_LEN_MAX + 1];
        assert!(matches!(refused(Txn::new().put("k", value)), StoreError::TooLarge));
        let key = "k".repeat(KEY_LEN_MAX + 1);
        assert!(matches!(refused(Txn::new().put(key, "")), StoreError::TooLarge));
        let many = (0..=OPS_MAX).fold(Txn::new(), |txn, n| txn.put(format!("k{n}"), ""));
        assert!(matches!(refused(many), StoreError::TooLarge));
        let lease = LeaseId(i64::MAX);
        let leased = Txn { then: vec![Op::Put("k".into(), vec![], Some(lease))], ..Txn::new() };
        assert!(matches!(refused(leased), StoreError::NoLease(_)));
        assert_eq!(store.get("k").unwrap().1, revision);
        let largest = "k".repeat(KEY_LEN_MAX);
        done(store, Txn::new().put(largest.clone(), vec![7; VALUE_LEN_MAX]));
        assert_eq!(get(store, &largest).unwrap().value.len(), VALUE_LEN_MAX);
    }

    pub fn a_range_is_in_order_and_goes_on_after_a_key(store: &Shared) {
        for key in ["r/b", "r/a", "r0", "r/c", "r", "r/a/x", "r/\u{10ffff}", "q"] {
            put(store, key, key);
        }
        let all = store.range(&Range::prefix("r/")).unwrap();
        assert_eq!(keys(&all.entries), ["r/a", "r/a/x", "r/b", "r/c", "r/\u{10ffff}"]);
        assert!(!all.has_more);
        assert_eq!(all.revision, store.get("r").unwrap().1);
        let page = |after: Option<&str>, limit| {
            let after = after.map(str::to_owned);
            let limit = Some(limit);
            store.range(&Range { after, limit, ..Range::prefix("r/") }).unwrap()
        };
        let first = page(None, 2);
        assert_eq!((keys(&first.entries), first.has_more), (vec!["r/a", "r/a/x"], true));
        let rest = page(Some("r/a/x"), 3);
        assert_eq!((rest.entries.len(), rest.has_more), (3, false));
        assert!(page(Some("r/\u{10ffff}"), 1).entries.is_empty());
    }

    pub fn pages_of_one_revision_are_of_one_time(store: &Shared) {
        for key in ["p/a", "p/b", "p/c"] {
            put(store, key, "old");
        }
        let first = store.range(&Range { limit: Some(1), ..Range::prefix("p/") }).unwrap();
        done(store, Txn::new().delete("p/b").put("p/c", "new").put("p/bb", "new"));
        let at = Some(first.revision);
        let rest = Range { at, after: Some("p/a".into()), ..Range::prefix("p/") };
        let rest = store.range(&rest).unwrap();
        assert_eq!(keys(&rest.entries), ["p/b", "p/c"]);
        assert!(rest.entries.iter().all(|entry| entry.value == b"old"));
        assert_eq!(rest.revision, first.revision);
        let asked = Revision(first.revision.0 + 2);
        let future = store.range(&Range { at: Some(asked), ..Range::prefix("p/") });
        assert!(matches!(future, Err(StoreError::Future { .. })));
    }

    pub fn a_watch_tells_past_and_future_once_and_in_order(store: &Shared) {
        let first = put(store, "w/a", "1");
        put(store, "v", "elsewhere");
        let gone = done(store, Txn::new().delete("w/a"));
        let mut watch = store.watch("w/", first).unwrap();
        let last = put(store, "w/b", "2");
        put(store, "w", "elsewhere");
        let past = next(&mut watch);
        assert_eq!(past.revision, first);
        assert!(
            matches!(&past.changes[..], [Change::Put(e)] if e.value == b"1" && e.created == first)
        );
        let expected = Batch { revision: gone, changes: vec![Change::Delete("w/a".into())] };
        assert_eq!(next(&mut watch), expected);
        let future = next(&mut watch);
        assert!(
            matches!(&future.changes[..], [Change::Put(e)] if *e == get(store, "w/b").unwrap())
        );
        assert_eq!(future.revision, last);
        assert_eq!(watch.next_within(A_MOMENT), Ok(None));
    }

    pub fn a_watch_tells_a_transaction_at_a_time(store: &Shared) {
        let now = store.get("t").unwrap().1;
        let mut watch = store.watch("t/", now.next()).unwrap();
        put(store, "t/a", "1");
        next(&mut watch);
        done(store, Txn::new().put("t/b", "2").put("other", "").delete("t/a").put("t/c", "3"));
        let batch = next(&mut watch);
        let told: Vec<&str> = batch.changes.iter().map(Change::key).collect();
        assert_eq!(told, ["t/b", "t/a", "t/c"]);
    }

    pub fn a_watch_can_wait_for_a_revision(store: &Shared) {
        let now = put(store, "f", "1");
        let mut watch = store.watch("f", Revision(now.0 + 2)).unwrap();
        put(store, "f", "2");
        let told = put(store, "f", "3");
        assert_eq!(next(&mut watch).revision, told);
    }

    pub fn what_is_compacted_is_refused_and_what_is_left_is_whole(store: &Shared) {
        put(store, "c/kept", "1");
        put(store, "c/gone", "1");
        let old = put(store, "c/kept", "2");
        done(store, Txn::new().delete("c/gone"));
        let at = put(store, "c/other", "1");
        let later = put(store, "c/kept", "3");
        store.compact(at).unwrap();
        assert!(matches!(store.watch("c/", old), Err(StoreError::Compacted { .. })));
        let read = |at| store.range(&Range { at: Some(at), ..Range::prefix("c/") });
        assert!(matches!(read(old), Err(StoreError::Compacted { .. })));
        let then = read(at).unwrap();
        assert_eq!(keys(&then.entries), ["c/kept", "c/other"]);
        assert_eq!(then.entries[0].value, b"2");
        let mut watch = store.watch("c/", at.next()).unwrap();
        assert_eq!(next(&mut watch).revision, later);
        assert!(matches!(store.compact(at), Err(StoreError::Compacted { .. })));
        assert!(matches!(store.compact(Revision(later.0 + 5)), Err(StoreError::Future { .. })));
    }

    pub fn a_lease_takes_its_keys_with_it(store: &Shared) {
        let lease = store.grant(Duration::from_secs(60)).unwrap();
        let leased = |key: &str| Op::Put(key.into(), b"1".to_vec(), Some(lease));
        let then = vec![leased("l/a"), leased("l/b"), leased("l/c")];
        let revision = done(store, Txn { then, ..Txn::new() });
        assert_eq!(get(store, "l/a").unwrap().lease, Some(lease));
        // Written without the lease, a key stays.
        put(store, "l/b", "2");
        let mut watch = store.watch("l/", Revision(revision.0 + 2)).unwrap();
        store.revoke(lease).unwrap();
        let mut told: Vec<String> = Vec::new();
        while told.len() < 2 {
            told.extend(next(&mut watch).changes.iter().map(|change| change.key().to_owned()));
        }
        assert_eq!(told, ["l/a", "l/c"]);
        assert_eq!(keys(&store.range(&Range::prefix("l/")).unwrap().entries), ["l/b"]);
        assert!(matches!(store.revoke(lease), Err(StoreError::NoLease(_))));
        assert!(matches!(store.keep_alive(lease), Err(StoreError::NoLease(_))));
    }

    pub fn a_lease_lives_for_as_long_as_it_is_kept(store: &Shared) {
        let time = Duration::from_secs(3);
        let lease = store.grant(time).unwrap();
        let put = Op::Put("kept".into(), Vec::new(), Some(lease));
        done(store, Txn { then: vec![put], ..Txn::new() });
        let begin = Instant::now();
        let mut kept = begin;
        while begin.elapsed() < time + Duration::from_secs(1) {
            kept = Instant::now();
            store.keep_alive(lease).unwrap();
            assert!(get(store, "kept").is_some());
            thread::sleep(A_MOMENT);
        }
        let begin = Instant::now();
        while get(store, "kept").is_some() {
            assert!(begin.elapsed() < SOON, "the lease does not end");
            thread::sleep(Duration::from_millis(50));
        }
        assert!(kept.elapsed() >= time, "it ended too early");
        assert!(matches!(store.keep_alive(lease), Err(StoreError::NoLease(_))));
    }

    pub fn each_of_many_is_a_transaction_of_its_own(store: &Shared) {
        let old = put(store, "m/old", "1");
        let mut watch = store.watch("m/", old.next()).unwrap();
        let refused = Txn::new().if_absent("m/old").put("m/a", "1");
        let txns =
            [Txn::new().put("m/b", "1"), refused, Txn::new().put("m/c", "1").put("m/d", "1")];
        let done = store.commit_each(&txns).unwrap();
        assert_eq!(done[1], Commit::Conflict);
        let mut revisions = [done[0].done().unwrap(), done[2].done().unwrap()];
        for (key, revision) in ["m/b", "m/c"].into_iter().zip(revisions) {
            assert_eq!(get(store, key).unwrap().modified, revision);
        }
        revisions.sort();
        assert_eq!(revisions, [old.next(), old.next().next()]);
        assert_eq!([next(&mut watch).revision, next(&mut watch).revision], revisions);
        assert_eq!(get(store, "m/a"), None);
    }

    pub fn of_writers_at_once_one_wins(store: &Shared) {
        const WRITERS: u64 = 4;
        const ROUNDS: u64 = 10;
        put(store, "n", "0");
        let count = |store: &Shared| {
            for _ in 0..ROUNDS {
                loop {
                    let entry = get(store, "n").unwrap();
                    let n: u64 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
                    let txn = Txn::new().if_modified("n", entry.modified);
                    let txn = txn.put("n", (n + 1).to_string());
                    if store.commit(&txn).unwrap() != Commit::Conflict {
                        break;
                    }
                }
            }
        };
        thread::scope(|scope| {
            for _ in 0..WRITERS {
                scope.spawn(|| count(store));
            }
        });
        let entry = get(store, "n").unwrap();
        assert_eq!(entry.value, (WRITERS * ROUNDS).to_string().as_bytes());
        assert_eq!(entry.version, WRITERS * ROUNDS + 1);
    }
}

pub use cases::*;
