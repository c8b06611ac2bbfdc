//! Tables of forms, by family.

mod integer;

pub use integer::{CONDITIONAL, INTEGER, LEGACY, LONG, STRING};
