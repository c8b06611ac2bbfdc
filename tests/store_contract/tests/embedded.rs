//! The store of one host.

#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::sync::Arc;

use store::{Embedded, Store};

fn make() -> (Arc<dyn Store>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Arc::new(Embedded::open(folder.path()).unwrap()), folder)
}

store_contract::contract!(make());
