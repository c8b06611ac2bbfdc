//! The store of one host: an SQLite file, and a process that has it for itself.
//!
//! One connection writes, another reads; both see what is committed. History is kept until it is
//! compacted: watches from the past and reads of it are queries.
//!
//! *Locks*: `writer`, then `reader` or a feed's own. Leases are in the writer's.

mod database;
mod leases;

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rustix::fs::{FlockOperation, flock};

use crate::{
    Batch, Commit, Entry, Feed, KEY_LEN_MAX, LeaseId, OPS_MAX, Op, Page, Range, Revision, Store,
    StoreError, Txn, VALUE_LEN_MAX, Watch,
};
use leases::Leases;

/// How long the thread that ends leases sleeps when there are none.
const IDLE: Duration = Duration::from_secs(3600);
/// So long another process may have the folder before it is said to: one that was just started by a daemon that
/// was killed has all the daemon had, until it runs its own program.
const PATIENCE: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(10);
/// When a database that fails is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// The store of one host.
pub struct Embedded {
    writer: Arc<Mutex<Writer>>,
    reader: Mutex<Connection>,
    /// Tells the thread that ends leases that there is another. It ends with the sender.
    granted: Sender<()>,
    /// Locked for as long as the store is open.
    _lock: File,
}

struct Writer {
    database: Connection,
    leases: Leases,
    watches: Vec<(String, Feed)>,
}

impl Embedded {
    /// Opens the store in this folder; both are made if they are not there.
    ///
    /// # Errors
    /// When another process has it, it is damaged or of another version, or the host refuses.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let host = |doing, path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| StoreError::Host { doing, path, source }
        };
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(host("make the folder", folder))?;
        let path = folder.join("lock");
        let lock = File::create(&path).map_err(host("make", &path))?;
        let begin = Instant::now();
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Err(rustix::io::Errno::WOULDBLOCK) if begin.elapsed() < PATIENCE => {
                    thread::sleep(LOOK);
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(StoreError::InUse(folder.to_owned()));
                }
                result => break result.map_err(|error| host("lock", &path)(error.into()))?,
            }
        }
        let path = folder.join("store.sqlite");
        let database = database::open(&path)?;
        let reader = database::reader(&path)?;
        fs::File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(host("write", folder))?;
        let leases = Leases::new(database::leases(&database)?, Instant::now());
        let writer = Writer { database, leases, watches: Vec::new() };
        let writer = Arc::new(Mutex::new(writer));
        let (granted, heard) = channel();
        let weak = Arc::downgrade(&writer);
        thread::Builder::new()
            .name("leases".into())
            .spawn(move || end_leases(&weak, &heard))
            .map_err(host("start a thread for", folder))?;
        Ok(Self { writer, reader: Mutex::new(reader), granted, _lock: lock })
    }

    fn write(&self) -> MutexGuard<'_, Writer> {
        lock(&self.writer)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends leases whose time is over, until the store is closed.
fn end_leases(writer: &Weak<Mutex<Writer>>, granted: &Receiver<()>) {
    let mut wait = IDLE;
    loop {
        match granted.recv_timeout(wait) {
            Err(RecvTimeoutError::Disconnected) => return,
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
        }
        let Some(writer) = writer.upgrade() else { return };
        let mut writer = lock(&writer);
        let over = writer.leases.over(Instant::now());
        let failed = over.into_iter().filter(|lease| writer.end_lease(*lease).is_err()).count();
        let next = writer.leases.next_end();
        wait = next.map_or(IDLE, |end| end.saturating_duration_since(Instant::now()));
        if failed > 0 {
            // Those leases stay over.
            wait = AGAIN;
        }
    }
}

impl Writer {
    /// Does the writes in one transaction and tells the watches.
    fn write(&mut self, txn: &Txn) -> Result<Commit, StoreError> {
        let transaction = self.database.transaction()?;
        if !database::holds(&transaction, &txn.when)? {
            return Ok(Commit::Conflict);
        }
        let revision = database::last(&transaction)?.next();
        let mut changes = Vec::new();
        for op in &txn.then {
            changes.extend(database::apply(&transaction, op, revision, changes.len())?);
        }
        if changes.is_empty() {
            return Ok(Commit::Done(Revision(revision.0 - 1)));
        }
        database::set_last(&transaction, revision)?;
        transaction.commit()?;
        self.watches.retain(|(prefix, feed)| {
            let of_prefix = changes.iter().filter(|change| change.key().starts_with(prefix));
            let changes: Vec<_> = of_prefix.cloned().collect();
            if changes.is_empty() { feed.is_read() } else { feed.tell(Batch { revision, changes }) }
        });
        Ok(Commit::Done(revision))
    }

    fn end_lease(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        let keys = database::keys_of(&self.database, lease)?;
        // However many there are, they go together, as in etcd.
        let then = keys.into_iter().map(Op::Delete).collect();
        self.write(&Txn { when: Vec::new(), then })?;
        database::forget_lease(&self.database, lease)?;
        self.leases.remove(lease);
        Ok(())
    }
}

fn check(txn: &Txn) -> Result<(), StoreError> {
    let is_large = |op: &Op| {
        let value_len = if let Op::Put(_, value, _) = op { value.len() } else { 0 };
        op.key().len() > KEY_LEN_MAX || value_len > VALUE_LEN_MAX
    };
    if txn.then.len() > OPS_MAX || txn.when.len() > OPS_MAX || txn.then.iter().any(is_large) {
        return Err(StoreError::TooLarge);
    }
    let mut keys: Vec<&str> = txn.then.iter().map(Op::key).collect();
    keys.sort_unstable();
    match keys.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(StoreError::Twice(pair[0].to_owned())),
        None => Ok(()),
    }
}

impl Store for Embedded {
    fn get(&self, key: &str) -> Result<(Option<Entry>, Revision), StoreError> {
        let mut reader = lock(&self.reader);
        let transaction = reader.transaction()?;
        Ok((database::get(&transaction, key)?, database::last(&transaction)?))
    }

    fn range(&self, range: &Range) -> Result<Page, StoreError> {
        let mut reader = lock(&self.reader);
        database::range(&reader.transaction()?, range)
    }

    fn commit(&self, txn: &Txn) -> Result<Commit, StoreError> {
        check(txn)?;
        let mut writer = self.write();
        let leases = txn.then.iter().filter_map(|op| match op {
            Op::Put(_, _, lease) => *lease,
            Op::Delete(_) => None,
        });
        for lease in leases {
            writer.leases.find(lease)?;
        }
        writer.write(txn)
    }

    fn watch(&self, prefix: &str, from: Revision) -> Result<Watch, StoreError> {
        // No transaction comes between the past and the future.
        let mut writer = self.write();
        let past = database::history(&writer.database, prefix, from)?;
        let (watch, feed) = Watch::new(from, past);
        writer.watches.push((prefix.to_owned(), feed));
        Ok(watch)
    }

    fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        database::compact(&mut self.write().database, revision)
    }

    fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let ttl_s = ttl.as_millis().div_ceil(1000).max(1) as u64;
        let mut writer = self.write();
        let lease = database::grant(&writer.database, ttl_s)?;
        writer.leases.add(lease, ttl_s, Instant::now());
        drop(writer);
        // The thread is there for as long as the store is.
        let _ = self.granted.send(());
        Ok(lease)
    }

    fn keep_alive(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.write().leases.keep_alive(lease, Instant::now())
    }

    fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        let mut writer = self.write();
        writer.leases.find(lease)?;
        writer.end_lease(lease)
    }
}

#[cfg(test)]
mod tests;
