//! The programs this work is left to.

use std::fs;
use std::path::Path;

use crate::BuildError;

/// Where programs are; a user's `PATH` lacks the second half.
pub(crate) const PATHS: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

const ALWAYS: [(&str, &str); 2] = [("mmdebstrap", "mmdebstrap"), ("mke2fs", "e2fsprogs")];
/// Who is not root acts as many users within a namespace of them.
const NOT_ROOT: [(&str, &str); 1] = [("newuidmap", "uidmap")];
/// IDs that a Debian needs, and the first that are given to users.
const IDS: u64 = 65536;
const FIRST_ID: u64 = 100_000;

/// # Errors
/// When one is missing: how to get it.
pub(crate) fn check() -> Result<(), BuildError> {
    let is_there =
        |program: &str| PATHS.split(':').any(|folder| Path::new(folder).join(program).is_file());
    let needed = ALWAYS.iter().chain(if is_root() { &[][..] } else { &NOT_ROOT });
    let (programs, packages): (Vec<_>, Vec<_>) =
        needed.filter(|(program, _)| !is_there(program)).copied().unzip();
    if !programs.is_empty() {
        return Err(BuildError::Tools { programs, packages });
    }
    if is_root() {
        return Ok(());
    }
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let uid = rustix::process::geteuid().as_raw();
    check_ids(uid, &read("/etc/passwd"), &[read("/etc/subuid"), read("/etc/subgid")])
}

/// Whether both tables (subuid(5), subgid(5)) give the user IDs. One that is not in the table of users
/// comes from elsewhere, and so may its IDs.
fn check_ids(uid: u32, users: &str, tables: &[String; 2]) -> Result<(), BuildError> {
    let uid = uid.to_string();
    let mut users = users.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then_some(name)
    });
    let Some(user) = users.next() else { return Ok(()) };
    let ranges = |table: &str| -> Vec<(String, u64, u64)> {
        let range = |line: &str| {
            let mut fields = line.split(':');
            let (of, first, count) = (fields.next()?, fields.next()?, fields.next()?);
            Some((of.to_owned(), first.parse().ok()?, count.trim().parse().ok()?))
        };
        table.lines().filter_map(range).collect()
    };
    let enough = |(of, _, count): &(String, u64, u64)| (of == user || *of == uid) && *count >= IDS;
    if tables.iter().all(|table| ranges(table).iter().any(enough)) {
        return Ok(());
    }
    let taken = tables.iter().flat_map(|table| ranges(table));
    let first = taken.map(|(_, first, count)| first.saturating_add(count)).max();
    let first = first.unwrap_or_default().max(FIRST_ID);
    let last = first.saturating_add(IDS - 1);
    Err(BuildError::SubordinateIds { user: user.to_owned(), first, last })
}

/// This process may do anything.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str = "root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/home/me:/bin/sh\n";

    #[test]
    fn who_has_no_ids_is_told_which_are_free() {
        let other = "other:100000:65536\n".to_owned();
        let mine = format!("{other}me:165536:65536\n");
        let refused = check_ids(1000, USERS, &[mine.clone(), other.clone()]).unwrap_err();
        let wanted = "as root: usermod --add-subuids 231072-296607 --add-subgids 231072-296607 me";
        assert!(refused.to_string().ends_with(wanted), "{refused}");
        assert!(check_ids(1000, USERS, &[mine.clone(), "1000:9:65536".to_owned()]).is_ok());
        assert!(check_ids(1000, USERS, &[mine, "me:9:1000".to_owned()]).is_err());
        assert!(check_ids(77, USERS, &[other.clone(), other]).is_ok());
    }
}
