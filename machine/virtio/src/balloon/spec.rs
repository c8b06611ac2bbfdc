//! Memory balloon device (5.5).

/// There is a queue of statistics.
pub(super) const F_STATS_VQ: u64 = 1 << 1;
/// A guest that runs out of memory takes pages back by itself.
pub(super) const F_DEFLATE_ON_OOM: u64 = 1 << 2;
/// The guest can be asked for all its free pages.
pub(super) const F_FREE_PAGE_HINT: u64 = 1 << 3;
/// The guest reports free pages as they become free.
pub(super) const F_PAGE_REPORTING: u64 = 1 << 5;

/// Queues. Without a feature its queue has no number; drivers accept all or the first of them.
pub(super) const INFLATE: usize = 0;
pub(super) const DEFLATE: usize = 1;
pub(super) const STATS: usize = 2;
pub(super) const FREE_PAGES: usize = 3;
pub(super) const REPORTING: usize = 4;

/// Device configuration (5.5.4): le32 num_pages, actual, free_page_hint_cmd_id, poison_val.
pub(super) const ACTUAL: u64 = 4;
pub(super) const CONFIG_SIZE: usize = 16;

/// Page numbers count pages of this size, whatever the guest's.
pub(super) const PAGE_SIZE: u64 = 4096;

/// Command IDs of free page hinting (5.5.6.6).
pub(super) const HINT_STOP: u32 = 0;
pub(super) const HINT_DONE: u32 = 1;
/// The first that is a command's own.
pub(super) const HINT_FIRST: u32 = 2;

/// Bytes of a statistic: le16 tag, le64 value (5.5.6.4).
pub(super) const STAT_SIZE: usize = 10;
