//! What has changed since one has looked.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::Kind;
use uuid::Uuid;

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Everything may have, as nothing is known from before.
    pub is_all: bool,
    /// These have come to be, changed or gone.
    pub objects: BTreeSet<(Kind, Uuid)>,
}

/// Notes what changes, for who looks from time to time.
#[derive(Clone)]
pub struct Changes(Arc<Mutex<Changed>>);

impl Default for Changes {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Changed { is_all: true, objects: BTreeSet::new() })))
    }
}

impl Changes {
    /// What has changed since this was called last.
    pub fn take(&self) -> Changed {
        let nothing = Changed { is_all: false, objects: BTreeSet::new() };
        std::mem::replace(&mut *self.lock(), nothing)
    }

    pub(crate) fn note(&self, kind: Kind, id: Uuid) {
        let mut changed = self.lock();
        if !changed.is_all {
            changed.objects.insert((kind, id));
        }
    }

    pub(crate) fn note_all(&self) {
        *self.lock() = Changed { is_all: true, objects: BTreeSet::new() };
    }

    /// Somebody will look.
    pub(crate) fn is_heard(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    fn lock(&self) -> MutexGuard<'_, Changed> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
