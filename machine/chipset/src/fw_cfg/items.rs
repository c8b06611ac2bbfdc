//! What firmware is told.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::spec::*;

/// What makes an item's bytes, always of one length. Called under the interface's lock.
pub type Build = dyn Fn() -> Vec<u8> + Send + Sync;

/// An item's bytes.
#[derive(Clone)]
pub(super) enum Item {
    /// Always the same.
    Fixed(Vec<u8>),
    /// Made when the item is selected.
    Built {
        /// How many there will be.
        size_bytes: usize,
        /// What makes them.
        build: Arc<Build>,
    },
}

impl Item {
    fn size_bytes(&self) -> usize {
        match self {
            Self::Fixed(bytes) => bytes.len(),
            Self::Built { size_bytes, .. } => *size_bytes,
        }
    }
}

/// The items of a machine: fixed when it is built.
#[derive(Clone)]
pub struct FwCfgItems {
    by_key: BTreeMap<u16, Item>,
    files: BTreeMap<String, Item>,
}

/// Why a file is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FwCfgError {
    /// The name does not fit.
    #[error("the name '{name}' is empty, not ASCII or longer than {NAME_MAX} bytes: shorten it")]
    Name {
        /// The name.
        name: String,
    },
    /// There is one of this name.
    #[error("there is a file '{name}' already: names are given once")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// Sizes have 32 bits.
    #[error("'{name}' has {size_bytes} bytes: at most 4 GiB fit")]
    Size {
        /// The name.
        name: String,
        /// Its size.
        size_bytes: usize,
    },
    /// Keys are used up.
    #[error("there are {max} files already: remove some before adding '{name}'")]
    Full {
        /// The name.
        name: String,
        /// How many there may be.
        max: usize,
    },
}

/// Files there may be: as many as there are keys below the selector's flag bits.
const FILES_MAX: usize = (KEY_WRITE_CHANNEL - KEY_FILE_FIRST) as usize;

impl FwCfgItems {
    /// Signature, features, CPUs and RAM.
    pub fn new(cpus: u16, ram_size_bytes: u64) -> Self {
        let by_key = BTreeMap::from([
            (KEY_SIGNATURE, SIGNATURE.to_vec()),
            (KEY_ID, ID.to_le_bytes().to_vec()),
            (KEY_RAM_SIZE, ram_size_bytes.to_le_bytes().to_vec()),
            (KEY_NB_CPUS, cpus.to_le_bytes().to_vec()),
            (KEY_MAX_CPUS, cpus.to_le_bytes().to_vec()),
        ]);
        let fixed = |(key, bytes)| (key, Item::Fixed(bytes));
        Self { by_key: by_key.into_iter().map(fixed).collect(), files: BTreeMap::new() }
    }

    /// Sets an item that is not a file.
    ///
    /// # Panics
    /// When the key is the directory's or a file's: the caller's mistake.
    pub fn set(&mut self, key: u16, bytes: Vec<u8>) {
        assert!(key < KEY_FILE_DIR || key & KEY_ARCH_LOCAL != 0, "key {key:#x} is a file's");
        self.by_key.insert(key & !KEY_WRITE_CHANNEL, Item::Fixed(bytes));
    }

    /// How many CPUs there are follows from this, whenever firmware asks.
    pub fn set_cpus(&mut self, count: impl Fn() -> u16 + Send + Sync + 'static) {
        let build = Arc::new(move || count().to_le_bytes().to_vec());
        self.by_key.insert(KEY_NB_CPUS, Item::Built { size_bytes: 2, build });
    }

    /// Adds a file.
    ///
    /// # Errors
    /// When its name or its size do not fit, or there is one of this name.
    pub fn add_file(&mut self, name: &str, bytes: Vec<u8>) -> Result<(), FwCfgError> {
        self.add(name, Item::Fixed(bytes))
    }

    /// Adds a file whose bytes depend on what firmware has done: they are made when it selects the
    /// file, and are always as many as now.
    ///
    /// # Errors
    /// As for [`FwCfgItems::add_file`].
    pub fn add_built_file(&mut self, name: &str, build: Arc<Build>) -> Result<(), FwCfgError> {
        self.add(name, Item::Built { size_bytes: build().len(), build })
    }

    fn add(&mut self, name: &str, item: Item) -> Result<(), FwCfgError> {
        let size_bytes = item.size_bytes();
        let name = name.to_owned();
        let printable = name.bytes().all(|byte| byte.is_ascii_graphic());
        if name.is_empty() || name.len() > NAME_MAX || !printable {
            return Err(FwCfgError::Name { name });
        }
        if u32::try_from(size_bytes).is_err() {
            return Err(FwCfgError::Size { name, size_bytes });
        }
        if self.files.contains_key(&name) {
            return Err(FwCfgError::Duplicate { name });
        }
        if self.files.len() == FILES_MAX {
            return Err(FwCfgError::Full { name, max: FILES_MAX });
        }
        self.files.insert(name, item);
        Ok(())
    }

    /// All items by key, files by name and the directory among them.
    pub(super) fn into_items(self) -> BTreeMap<u16, Item> {
        let Self { by_key: mut items, files } = self;
        let mut directory = (files.len() as u32).to_be_bytes().to_vec();
        for (key, (name, item)) in (KEY_FILE_FIRST..).zip(files) {
            directory.extend((item.size_bytes() as u32).to_be_bytes());
            directory.extend(key.to_be_bytes());
            directory.extend([0; 2]);
            directory.extend(name.as_bytes());
            directory.resize(directory.len() + NAME_MAX + 1 - name.len(), 0);
            items.insert(key, item);
        }
        items.insert(KEY_FILE_DIR, Item::Fixed(directory));
        items
    }
}
