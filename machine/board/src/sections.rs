//! Saving and restoring every part of a machine, by instance path.

use std::sync::Arc;

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

/// The parts that have state, in the order they are saved and restored.
#[derive(Default)]
pub(crate) struct Parts(Vec<(String, Arc<dyn Device>)>);

impl Parts {
    /// Adds a part, after those there are.
    pub(crate) fn push(&mut self, path: impl Into<String>, device: Arc<dyn Device>) {
        let path = path.into();
        assert!(self.0.iter().all(|(other, _)| *other != path), "two parts are called {path}");
        self.0.push((path, device));
    }

    pub(crate) fn reset(&self) {
        self.0.iter().for_each(|(_, device)| device.reset());
    }

    pub(crate) fn save(&self) -> Vec<NamedSection> {
        let save = |(path, device): &(String, Arc<dyn Device>)| NamedSection {
            path: path.clone(),
            section: device.save(),
        };
        self.0.iter().map(save).collect()
    }

    /// Wants exactly one section for each part, in any order.
    pub(crate) fn restore(&self, sections: &[NamedSection]) -> Result<(), RestoreError> {
        let mut left: Vec<&NamedSection> = sections.iter().collect();
        let mut found = Vec::with_capacity(self.0.len());
        for (path, device) in &self.0 {
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
