//! The store of one host: an SQLite file, and a process that has it for itself.
//!
//! One connection writes, another reads; both see what is committed. History is kept until it is
//! compacted: watches from the past and reads of it are queries. Who waits to write while the medium is being written
//! to goes along with the next who does: transactions are many to one of SQLite's, and still one each to everybody else.
//!
//! *Locks*: `writer`, then `queue`, `reader` or a feed's own. Leases are in the writer's.

mod database;
mod leases;

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
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
    /// Who waits for the writer.
    queue: Mutex<Vec<Waiting>>,
    reader: Mutex<Connection>,
    /// Tells the thread that ends leases that there is another. It ends with the sender.
    granted: Sender<()>,
    /// Locked for as long as the store is open.
    _lock: File,
}

struct Waiting {
    txn: Txn,
    answer: SyncSender<Result<Commit, StoreError>>,
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
        let (queue, reader) = (Mutex::default(), Mutex::new(reader));
        Ok(Self { writer, queue, reader, granted, _lock: lock })
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
    /// Does each for itself, all with one write to the medium if that succeeds.
    fn write_each(&mut self, txns: &[&Txn]) -> Vec<Result<Commit, StoreError>> {
        match self.write_together(txns) {
            Ok(done) => done,
            Err(error) if txns.len() == 1 => vec![Err(error)],
            // Whose fault it is, is seen when each is alone.
            Err(_) => txns.iter().flat_map(|txn| self.write_each(&[txn])).collect(),
        }
    }

    /// Does the writes in one transaction of the database and tells the watches; all or, when that fails, none.
    fn write_together(
        &mut self,
        txns: &[&Txn],
    ) -> Result<Vec<Result<Commit, StoreError>>, StoreError> {
        let transaction = self.database.transaction()?;
        let begin = database::last(&transaction)?;
        let mut last = begin;
        let (mut done, mut batches) = (Vec::new(), Vec::new());
        for txn in txns {
            if let Err(ended) = self.leases.check(txn) {
                done.push(Err(ended));
                continue;
            }
            if !database::holds(&transaction, &txn.when)? {
                done.push(Ok(Commit::Conflict));
                continue;
            }
            let revision = last.next();
            let mut changes = Vec::new();
            for op in &txn.then {
                changes.extend(database::apply(&transaction, op, revision, changes.len())?);
            }
            if !changes.is_empty() {
                last = revision;
                batches.push(Batch { revision, changes });
            }
            done.push(Ok(Commit::Done(last)));
        }
        if last > begin {
            database::set_last(&transaction, last)?;
            transaction.commit()?;
        } else {
            drop(transaction);
        }
        for batch in batches {
            self.tell(&batch);
        }
        Ok(done)
    }

    fn tell(&mut self, batch: &Batch) {
        let Batch { revision, changes } = batch;
        self.watches.retain(|(prefix, feed)| {
            let of_prefix = changes.iter().filter(|change| change.key().starts_with(prefix));
            let changes: Vec<_> = of_prefix.cloned().collect();
            if changes.is_empty() {
                feed.is_read()
            } else {
                feed.tell(Batch { revision: *revision, changes })
            }
        });
    }

    fn end_lease(&mut self, lease: LeaseId) -> Result<(), StoreError> {
        let keys = database::keys_of(&self.database, lease)?;
        // However many there are, they go together, as in etcd.
        let then = keys.into_iter().map(Op::Delete).collect();
        self.write_together(&[&Txn { when: Vec::new(), then }])?;
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
        let (answer, answered) = sync_channel(1);
        lock(&self.queue).push(Waiting { txn: txn.clone(), answer });
        let mut writer = self.write();
        // Who had the writer before may have done it.
        if let Ok(done) = answered.try_recv() {
            return done;
        }
        let waiting = std::mem::take(&mut *lock(&self.queue));
        let txns: Vec<&Txn> = waiting.iter().map(|of| &of.txn).collect();
        let done = writer.write_each(&txns);
        for (of, done) in waiting.iter().zip(done) {
            // There is room for one, and nobody gives up waiting.
            let _ = of.answer.send(done);
        }
        drop(writer);
        answered.recv().unwrap_or(Err(StoreError::Closed))
    }

    fn commit_each(&self, txns: &[Txn]) -> Result<Vec<Commit>, StoreError> {
        txns.iter().try_for_each(check)?;
        self.write().write_each(&txns.iter().collect::<Vec<_>>()).into_iter().collect()
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
