//! What the store has, in memory: read once, and from then on as it changes.
//!
//! *Invariants*: what one registry has written it reads at once; what another process has written it reads as soon as
//! it is told. A transaction compares what it was decided by, so what is out of date costs a try and nothing
//! else. When the watch ends, all is read anew.

mod changed;
mod operations;
mod table;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::{
    Disk, Kind, Object, OperationId, ScaleSet, SecurityGroup, Snapshot, SshKey, VirtualNetwork, Vm,
};
use store::{Batch, Change, Entry, Range, Revision, Store, StoreError, Watch};
use uuid::Uuid;

pub use changed::{Changed, Changes};
pub(crate) use operations::Operations;
pub(crate) use table::{Row, Table};

use crate::RegistryError;

/// So long what was written may take to be told.
const PATIENCE: Duration = Duration::from_secs(10);

/// A kind of objects that is in memory.
pub trait Mirrored: Object {
    /// Those of the kind.
    #[doc(hidden)]
    fn table(tables: &Tables) -> &Table<Self>;
}

macro_rules! tables {
    ($($name:ident: $object:ident),* $(,)?) => {
        /// All of it.
        #[doc(hidden)]
        #[derive(Default)]
        pub struct Tables {
            $($name: Table<$object>,)*
            operations: Operations,
        }

        impl Tables {
            /// Notes a change of a key; whose it was.
            fn note(
                &mut self,
                key: &str,
                entry: Option<&Entry>,
                at: Revision,
            ) -> Result<Option<(Kind, Uuid)>, RegistryError> {
                let mut parts = key.splitn(4, '/').skip(1);
                let (Some(kind), Some(id)) = (parts.next(), parts.next()) else { return Ok(None) };
                let facet = parts.next().unwrap_or_default();
                $(if kind == $object::KIND.plural() {
                    let Ok(id) = id.parse::<<$object as Object>::Id>() else { return Ok(None) };
                    self.$name.note(id, facet, entry, at)?;
                    return Ok(Some(($object::KIND, id.into())));
                })*
                if kind == Kind::Operation.plural() {
                    let Ok(id) = id.parse::<OperationId>() else { return Ok(None) };
                    self.operations.note(id, entry, at)?;
                    return Ok(Some((Kind::Operation, id.into())));
                }
                Ok(None)
            }
        }

        $(impl Mirrored for $object {
            fn table(tables: &Tables) -> &Table<Self> {
                &tables.$name
            }
        })*

        /// What keys of all that is in memory begin with.
        const KINDS: &[Kind] = &[$($object::KIND,)* Kind::Operation];
    };
}

tables! {
    vms: Vm,
    disks: Disk,
    snapshots: Snapshot,
    networks: VirtualNetwork,
    security_groups: SecurityGroup,
    scale_sets: ScaleSet,
    ssh_keys: SshKey,
}

/// The mirror of a store.
pub(crate) struct Mirror {
    store: Arc<dyn Store>,
    state: Mutex<State>,
    /// The last revision that was written from here.
    written: AtomicU64,
}

#[derive(Default)]
struct State {
    tables: Tables,
    /// All up to it is in `tables`.
    revision: Revision,
    /// `None`: all is to be read anew.
    watch: Option<Watch>,
    changes: Vec<Changes>,
}

impl Mirror {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store, state: Mutex::default(), written: AtomicU64::new(0) }
    }

    /// What was written here is read from now on.
    pub fn wrote(&self, revision: Revision) {
        self.written.fetch_max(revision.0, Ordering::AcqRel);
    }

    /// Something was not as it is here: what others wrote by now is read from now on.
    pub fn catch_up(&self) -> Result<(), RegistryError> {
        self.wrote(self.store.get("/")?.1);
        Ok(())
    }

    /// Tells what changes, and that all has so far.
    pub fn changes(&self) -> Changes {
        let changes = Changes::default();
        self.lock().changes.push(changes.clone());
        changes
    }

    /// Reads what there is, and the revision that it is of.
    pub fn read<R>(&self, read: impl FnOnce(&Tables, Revision) -> R) -> Result<R, RegistryError> {
        let mut state = self.lock();
        let written = Revision(self.written.load(Ordering::Acquire));
        state.refresh(&*self.store, written)?;
        Ok(read(&state.tables, state.revision))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tables {
    pub(crate) fn operations(&self) -> &Operations {
        &self.operations
    }
}

impl State {
    fn refresh(&mut self, store: &dyn Store, written: Revision) -> Result<(), RegistryError> {
        let until = Instant::now() + PATIENCE;
        loop {
            let Some(watch) = &mut self.watch else {
                self.load(store)?;
                continue;
            };
            let behind = self.revision < written;
            let wait = if behind {
                until.saturating_duration_since(Instant::now())
            } else {
                Duration::ZERO
            };
            match watch.next_within(wait) {
                Ok(Some(batch)) => {
                    if let Err(error) = self.apply(&batch) {
                        self.watch = None;
                        return Err(error);
                    }
                }
                Ok(None) if behind => {
                    self.watch = None;
                    return Err(RegistryError::Store(StoreError::Closed));
                }
                Ok(None) => return Ok(()),
                Err(store::Ended) => self.watch = None,
            }
        }
    }

    /// Reads all, and watches from there on.
    fn load(&mut self, store: &dyn Store) -> Result<(), RegistryError> {
        let mut tables = Tables::default();
        let mut at = None;
        for kind in KINDS {
            let range = Range { at, ..Range::prefix(format!("/{}/", kind.plural())) };
            let page = store.range(&range)?;
            at = Some(page.revision);
            for entry in &page.entries {
                tables.note(&entry.key, Some(entry), page.revision)?;
            }
        }
        self.revision = at.unwrap_or_default();
        self.watch = Some(store.watch("/", self.revision.next())?);
        self.tables = tables;
        self.tell(Changes::note_all);
        Ok(())
    }

    fn apply(&mut self, batch: &Batch) -> Result<(), RegistryError> {
        for change in &batch.changes {
            let entry = if let Change::Put(entry) = change { Some(entry) } else { None };
            if let Some((kind, id)) = self.tables.note(change.key(), entry, batch.revision)? {
                self.tell(|changes| changes.note(kind, id));
            }
        }
        self.revision = batch.revision;
        Ok(())
    }

    fn tell(&mut self, tell: impl Fn(&Changes)) {
        self.changes.retain(Changes::is_heard);
        self.changes.iter().for_each(tell);
    }
}
