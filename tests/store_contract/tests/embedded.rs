//! The store of one host.

use std::sync::Arc;

use store::{Embedded, Store};

fn make() -> (Arc<dyn Store>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (Arc::new(Embedded::open(folder.path()).unwrap()), folder)
}

store_contract::contract!(make());
