//! What the host's kernel says of this process and of itself, in files that are opened once: later, the process can
//! open none.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::LazyLock;

/// As long as they are read.
const LEN_MAX: usize = 16 << 10;

static STATUS: LazyLock<Option<File>> = LazyLock::new(|| File::open("/proc/self/status").ok());
static MEMINFO: LazyLock<Option<File>> = LazyLock::new(|| File::open("/proc/meminfo").ok());

/// Opens them.
pub(crate) fn open() {
    LazyLock::force(&STATUS);
    LazyLock::force(&MEMINFO);
}

fn field(file: Option<&File>, name: &str) -> Option<u64> {
    let mut bytes = [0; LEN_MAX];
    let size = file?.read_at(&mut bytes, 0).ok()?;
    let text = String::from_utf8_lossy(&bytes[..size]);
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

/// A number of `/proc/self/status`, in KiB.
pub(crate) fn own_kib(name: &str) -> Option<u64> {
    field(STATUS.as_ref(), name)
}

/// A number of `/proc/meminfo`, in KiB.
pub(crate) fn host_kib(name: &str) -> Option<u64> {
    field(MEMINFO.as_ref(), name)
}
