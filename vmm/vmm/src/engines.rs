//! Which engine.

use std::str::FromStr;
use std::sync::Arc;

use engine::{Engine, EngineKind, UnknownEngine};
use x86_state::CpuProfile;

use crate::VmError;

/// What the operator asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EngineChoice {
    /// The best one that works here.
    Auto,
    /// This one or none.
    Fixed(EngineKind),
}

impl FromStr for EngineChoice {
    type Err = UnknownEngine;

    fn from_str(name: &str) -> Result<Self, UnknownEngine> {
        if name == "auto" { Ok(Self::Auto) } else { name.parse().map(Self::Fixed) }
    }
}

/// A chosen engine.
#[derive(Clone)]
pub struct Chosen {
    /// It.
    pub engine: Arc<dyn Engine>,
    /// Why it and no other, in one line.
    pub reason: String,
}

/// Says whether an engine is worth choosing here, beyond that it works: `Ok` with what was
/// measured, `Err` with why not.
type Worth = Box<dyn Fn() -> Result<String, String> + Send + Sync>;

/// The engines of this program, the best first.
#[derive(Default)]
pub struct Engines {
    known: Vec<(Arc<dyn Engine>, Worth)>,
}

impl Engines {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next best engine. `worth` is asked only when [`EngineChoice::Auto`] gets to it,
    /// because measuring takes time.
    pub fn add(
        &mut self,
        engine: Arc<dyn Engine>,
        worth: impl Fn() -> Result<String, String> + Send + Sync + 'static,
    ) {
        self.known.push((engine, Box::new(worth)));
    }

    /// The engine of this kind.
    ///
    /// # Errors
    /// When it is not part of this program.
    pub fn get(&self, kind: EngineKind) -> Result<Arc<dyn Engine>, VmError> {
        let found = self.known.iter().find(|(engine, _)| engine.kind() == kind);
        found.map(|(engine, _)| engine.clone()).ok_or_else(|| {
            let names: Vec<_> = self.known.iter().map(|(e, _)| e.kind().name()).collect();
            VmError::NotBuilt(kind, names.join(", "))
        })
    }

    /// Chooses for a VM of this profile.
    ///
    /// # Errors
    /// When the engine asked for does not work here, or, for `auto`, none does.
    pub fn choose(&self, choice: EngineChoice, profile: &CpuProfile) -> Result<Chosen, VmError> {
        let kind = match choice {
            EngineChoice::Auto => return self.best(profile),
            EngineChoice::Fixed(kind) => kind,
        };
        let engine = self.get(kind)?;
        engine.check(profile).map_err(VmError::Unsupported)?;
        Ok(Chosen { engine, reason: "asked for".to_owned() })
    }

    fn best(&self, profile: &CpuProfile) -> Result<Chosen, VmError> {
        let mut passed_over = Vec::new();
        let mut unsupported = None;
        for (engine, worth) in &self.known {
            let fits = match engine.check(profile) {
                Ok(()) => worth(),
                Err(error) => {
                    let reason = error.reason.clone();
                    unsupported = Some(error);
                    Err(reason)
                }
            };
            match fits {
                Ok(measured) => {
                    passed_over.insert(0, measured);
                    return Ok(Chosen { engine: engine.clone(), reason: passed_over.join("; ") });
                }
                Err(why) => passed_over.push(format!("not {}: {why}", engine.kind())),
            }
        }
        Err(unsupported.map_or_else(
            || VmError::NotBuilt(EngineKind::Emu, "another version".to_owned()),
            VmError::Unsupported,
        ))
    }
}
