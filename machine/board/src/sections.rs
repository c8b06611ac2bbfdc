//! Saving and restoring every part of a machine, by instance path.

use std::sync::{Arc, PoisonError, RwLock};

use bus::{Device, SectionError};
use statecodec::NamedSection;

/// Saved state that is not this machine's.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A part of the machine has no section.
    #[error("the saved state has nothing for '{0}': it is of a machine with other devices")]
    Missing(String),
    /// A section belongs to no part of the machine, or a part has two.
    #[error("the saved state has '{0}', which this machine has not: it has other devices")]
    Leftover(String),
    /// A section is wrong.
    #[error("the saved state of '{path}' cannot be used")]
    Section {
        /// Which part.
        path: String,
        /// What is wrong.
        source: SectionError,
    },
}

/// The first of the interrupt controllers, as the board calls it.
pub(crate) const INTERRUPT_CONTROLLER: &str = "pic";

/// A part, and what it is called.
type Part = (String, Arc<dyn Device>);

/// The parts that have state, in the order they are saved and restored. Some come and go.
///
/// *Lock*: never held while a part is called.
#[derive(Default)]
pub(crate) struct Parts {
    list: RwLock<Vec<Part>>,
}

impl Parts {
    /// Adds a part, after those there are.
    pub(crate) fn push(&self, path: impl Into<String>, device: Arc<dyn Device>) {
        self.edit(|list| add(list, list.len(), path.into(), device));
    }

    /// Adds one that has come later: before the interrupt controllers, which are the last.
    pub(crate) fn insert(&self, path: String, device: Arc<dyn Device>) {
        self.edit(|list| {
            let controllers = list.iter().position(|(path, _)| path == INTERRUPT_CONTROLLER);
            add(list, controllers.unwrap_or(list.len()), path, device);
        });
    }

    pub(crate) fn remove(&self, path: &str) {
        self.edit(|list| list.retain(|(other, _)| other != path));
    }

    fn edit(&self, edit: impl FnOnce(&mut Vec<Part>)) {
        edit(&mut self.list.write().unwrap_or_else(PoisonError::into_inner));
    }

    fn list(&self) -> Vec<Part> {
        self.list.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn reset(&self) {
        self.list().iter().for_each(|(_, device)| device.reset());
    }

    pub(crate) fn save(&self) -> Vec<NamedSection> {
        let save = |(path, device): &(String, Arc<dyn Device>)| NamedSection {
            path: path.clone(),
            section: device.save(),
        };
        self.list().iter().map(save).collect()
    }

    /// Wants exactly one section for each part, in any order.
    pub(crate) fn restore(&self, sections: &[NamedSection]) -> Result<(), RestoreError> {
        let mut left: Vec<&NamedSection> = sections.iter().collect();
        let list = self.list();
        let mut found = Vec::with_capacity(list.len());
        for (path, device) in &list {
            let at = left
                .iter()
                .position(|named| named.path == *path)
                .ok_or_else(|| RestoreError::Missing(path.clone()))?;
            found.push((path, device, &left.remove(at).section));
        }
        if let Some(named) = left.first() {
            return Err(RestoreError::Leftover(named.path.clone()));
        }
        for (path, device, section) in found {
            device
                .restore(section)
                .map_err(|source| RestoreError::Section { path: path.clone(), source })?;
        }
        Ok(())
    }
}

fn add(list: &mut Vec<Part>, at: usize, path: String, device: Arc<dyn Device>) {
    assert!(list.iter().all(|(other, _)| *other != path), "two parts are called {path}");
    list.insert(at, (path, device));
}
