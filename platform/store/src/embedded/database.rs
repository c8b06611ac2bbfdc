//! The file: tables and queries, no locks and no time.
//!
//! `history` has every write since the last compaction, and of each key at least the last; `current`
//! what each key has now. `PRAGMA user_version` is the format.

use std::fs;
use std::io;
use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Row, Transaction, named_params, params};

use crate::{Batch, Change, Compare, Entry, LeaseId, Op, Page, Range, Revision, StoreError};

/// Goes up when an older program would misunderstand the tables.
const FORMAT: i64 = 1;

const TABLES: &str = "
    CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
    INSERT INTO meta VALUES ('last', 0), ('compacted', 0);
    CREATE TABLE current (
        key TEXT PRIMARY KEY, value BLOB NOT NULL, created INTEGER NOT NULL,
        modified INTEGER NOT NULL, version INTEGER NOT NULL, lease INTEGER
    ) WITHOUT ROWID;
    CREATE INDEX current_lease ON current (lease) WHERE lease IS NOT NULL;
    CREATE TABLE history (
        modified INTEGER NOT NULL, place INTEGER NOT NULL, key TEXT NOT NULL, value BLOB,
        created INTEGER NOT NULL, version INTEGER NOT NULL, lease INTEGER,
        PRIMARY KEY (modified, place)
    ) WITHOUT ROWID;
    CREATE INDEX history_key ON history (key, modified);
    CREATE TABLE leases (id INTEGER PRIMARY KEY AUTOINCREMENT, ttl_s INTEGER NOT NULL);
";

/// Makes the file: it is there with its tables, or not at all.
fn make(path: &Path) -> Result<(), StoreError> {
    let host = |source| StoreError::Host { doing: "make", path: path.to_owned(), source };
    let new = path.with_extension("new");
    // What a process that was killed here has left.
    match fs::remove_file(&new) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        removed => removed.map_err(host)?,
    }
    let mut database = Connection::open(&new)?;
    let transaction = database.transaction()?;
    transaction.execute_batch(TABLES)?;
    transaction.execute_batch(&format!("PRAGMA user_version = {FORMAT}"))?;
    transaction.commit()?;
    database.close().map_err(|(_, error)| error)?;
    fs::rename(&new, path).map_err(host)
}

/// Opens the file, or makes it, for the connection that writes.
pub(crate) fn open(path: &Path) -> Result<Connection, StoreError> {
    let damaged = |how: String| StoreError::Damaged { path: path.to_owned(), how };
    match fs::metadata(path) {
        // To SQLite that is a new database. To us, all that it had is lost.
        Ok(metadata) if metadata.len() == 0 => return Err(damaged("it is empty".to_owned())),
        Ok(_) => {}
        // Its log would be read into a new one.
        Err(_) if path.with_extension("sqlite-wal").exists() => {
            return Err(damaged("it is gone, and its log is there".to_owned()));
        }
        Err(_) => make(path)?,
    }
    let database = Connection::open(path)?;
    // Of a file that is none of SQLite's, this is the first look.
    let found = database
        .query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))
        .map_err(|error| damaged(error.to_string()))?;
    if found != "ok" {
        return Err(damaged(found));
    }
    database.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")?;
    match database.query_row("PRAGMA user_version", [], |row| row.get(0))? {
        FORMAT => Ok(database),
        // Files of a few bytes are new databases to SQLite, too.
        0 => Err(damaged("it has no tables".to_owned())),
        found => Err(StoreError::Format { path: path.to_owned(), found, known: FORMAT }),
    }
}

/// A second connection, which only reads.
pub(crate) fn reader(path: &Path) -> Result<Connection, StoreError> {
    let reader = Connection::open(path)?;
    reader.execute_batch("PRAGMA query_only = ON")?;
    Ok(reader)
}

fn meta(database: &Connection, name: &str) -> Result<Revision, StoreError> {
    let value = database
        .prepare_cached("SELECT value FROM meta WHERE name = ?")?
        .query_row([name], |row| row.get::<_, u64>(0))?;
    Ok(Revision(value))
}

fn set_meta(database: &Connection, name: &str, value: Revision) -> Result<(), StoreError> {
    database
        .prepare_cached("UPDATE meta SET value = ? WHERE name = ?")?
        .execute(params![value.0, name])?;
    Ok(())
}

pub(crate) fn last(database: &Connection) -> Result<Revision, StoreError> {
    meta(database, "last")
}

pub(crate) fn set_last(database: &Connection, revision: Revision) -> Result<(), StoreError> {
    set_meta(database, "last", revision)
}

/// From columns `key, value, created, modified, version, lease`.
fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        key: row.get(0)?,
        value: row.get(1)?,
        created: Revision(row.get(2)?),
        modified: Revision(row.get(3)?),
        version: row.get(4)?,
        lease: row.get::<_, Option<i64>>(5)?.map(LeaseId),
    })
}

pub(crate) fn get(database: &Connection, key: &str) -> Result<Option<Entry>, StoreError> {
    let mut query = database.prepare_cached(
        "SELECT key, value, created, modified, version, lease FROM current WHERE key = ?",
    )?;
    Ok(query.query_row([key], entry).optional()?)
}

/// The least string that is more than all that begin with `prefix`; `None` when there is none.
fn end_of(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // Over the surrogates, which no string has.
        let next =
            if last == '\u{d7ff}' { Some('\u{e000}') } else { char::from_u32(last as u32 + 1) };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

const RANGE: &str = "
    SELECT key, value, created, modified, version, lease FROM current
    WHERE key >= :from AND key > :after AND (:end IS NULL OR key < :end)
    ORDER BY key LIMIT :limit";

const RANGE_AT: &str = "
    SELECT key, value, created, modified, version, lease FROM history AS h
    WHERE key >= :from AND key > :after AND (:end IS NULL OR key < :end)
        AND value IS NOT NULL AND modified = (
            SELECT MAX(modified) FROM history WHERE key = h.key AND modified <= :at)
    ORDER BY key LIMIT :limit";

pub(crate) fn range(database: &Transaction<'_>, range: &Range) -> Result<Page, StoreError> {
    let last = last(database)?;
    let at = range.at.unwrap_or(last);
    let compacted = meta(database, "compacted")?;
    if at < compacted {
        return Err(StoreError::Compacted { asked: at, compacted });
    }
    if at > last {
        return Err(StoreError::Future { asked: at, last });
    }
    let limit = range.limit.unwrap_or(usize::MAX - 1);
    let mut entries = {
        let mut query = database.prepare_cached(if at == last { RANGE } else { RANGE_AT })?;
        // No key is empty.
        let after = range.after.as_deref().unwrap_or_default();
        let (end, most) = (end_of(&range.prefix), i64::try_from(limit + 1).unwrap_or(i64::MAX));
        let from = &range.prefix;
        let mut bound: Vec<(&str, &dyn rusqlite::ToSql)> =
            vec![(":from", from), (":after", &after), (":end", &end), (":limit", &most)];
        if at != last {
            bound.push((":at", &at.0));
        }
        let rows = query.query_map(&bound[..], entry)?;
        rows.collect::<Result<Vec<_>, _>>()?
    };
    let has_more = entries.len() > limit;
    entries.truncate(limit);
    Ok(Page { entries, has_more, revision: at })
}

/// Whether everything is as it is compared to be.
pub(crate) fn holds(database: &Connection, when: &[Compare]) -> Result<bool, StoreError> {
    for compare in when {
        let is_so = match compare {
            Compare::Modified(key, revision) => {
                get(database, key)?.map_or(Revision::NONE, |entry| entry.modified) == *revision
            }
            Compare::Value(key, value) => {
                get(database, key)?.is_some_and(|entry| entry.value == *value)
            }
        };
        if !is_so {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Does one write, the `place`th of its transaction; `None` when it changes nothing.
pub(crate) fn apply(
    database: &Connection,
    op: &Op,
    revision: Revision,
    place: usize,
) -> Result<Option<Change>, StoreError> {
    let before = get(database, op.key())?;
    let change = match op {
        Op::Put(key, value, lease) => {
            let (created, version) =
                before.map_or((revision, 0), |entry| (entry.created, entry.version));
            let entry = Entry {
                key: key.clone(),
                value: value.clone(),
                created,
                modified: revision,
                version: version + 1,
                lease: *lease,
            };
            database
                .prepare_cached("INSERT OR REPLACE INTO current VALUES (?, ?, ?, ?, ?, ?)")?
                .execute(params![
                    key,
                    value,
                    created.0,
                    revision.0,
                    entry.version,
                    lease.map(|lease| lease.0)
                ])?;
            remember(database, place, &entry, true)?;
            Change::Put(entry)
        }
        Op::Delete(key) => {
            let Some(before) = before else { return Ok(None) };
            database.prepare_cached("DELETE FROM current WHERE key = ?")?.execute([key])?;
            remember(database, place, &Entry { modified: revision, ..before }, false)?;
            Change::Delete(key.clone())
        }
    };
    Ok(Some(change))
}

fn remember(
    database: &Connection,
    place: usize,
    entry: &Entry,
    is_there: bool,
) -> Result<(), StoreError> {
    let value = is_there.then_some(&entry.value);
    let lease = entry.lease.map(|lease| lease.0);
    database.prepare_cached("INSERT INTO history VALUES (?, ?, ?, ?, ?, ?, ?)")?.execute(
        params![entry.modified.0, place, entry.key, value, entry.created.0, entry.version, lease],
    )?;
    Ok(())
}

/// What has been changed of a prefix from a revision on.
pub(crate) fn history(
    database: &Connection,
    prefix: &str,
    from: Revision,
) -> Result<Vec<Batch>, StoreError> {
    let compacted = meta(database, "compacted")?;
    if from <= compacted && compacted > Revision::NONE {
        return Err(StoreError::Compacted { asked: from, compacted });
    }
    let mut query = database.prepare_cached(
        "SELECT key, COALESCE(value, x''), created, modified, version, lease, value IS NULL
         FROM history WHERE modified >= ? ORDER BY modified, place",
    )?;
    let mut rows = query.query([from.0])?;
    let mut batches: Vec<Batch> = Vec::new();
    while let Some(row) = rows.next()? {
        let (entry, is_deleted) = (entry(row)?, row.get(6)?);
        if !entry.key.starts_with(prefix) {
            continue;
        }
        let revision = entry.modified;
        let change = if is_deleted { Change::Delete(entry.key) } else { Change::Put(entry) };
        match batches.last_mut() {
            Some(batch) if batch.revision == revision => batch.changes.push(change),
            _ => batches.push(Batch { revision, changes: vec![change] }),
        }
    }
    Ok(batches)
}

pub(crate) fn compact(database: &mut Connection, revision: Revision) -> Result<(), StoreError> {
    let transaction = database.transaction()?;
    let (last, compacted) = (last(&transaction)?, meta(&transaction, "compacted")?);
    if revision <= compacted {
        return Err(StoreError::Compacted { asked: revision, compacted });
    }
    if revision > last {
        return Err(StoreError::Future { asked: revision, last });
    }
    transaction.execute(
        "DELETE FROM history AS h WHERE modified <= :at AND (value IS NULL OR modified < (
            SELECT MAX(modified) FROM history WHERE key = h.key AND modified <= :at))",
        named_params! { ":at": revision.0 },
    )?;
    set_meta(&transaction, "compacted", revision)?;
    Ok(transaction.commit()?)
}

pub(crate) fn leases(database: &Connection) -> Result<Vec<(LeaseId, u64)>, StoreError> {
    let mut query = database.prepare("SELECT id, ttl_s FROM leases")?;
    let rows = query.query_map([], |row| Ok((LeaseId(row.get(0)?), row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

pub(crate) fn grant(database: &Connection, ttl_s: u64) -> Result<LeaseId, StoreError> {
    database.execute("INSERT INTO leases (ttl_s) VALUES (?)", [ttl_s])?;
    Ok(LeaseId(database.last_insert_rowid()))
}

pub(crate) fn forget_lease(database: &Connection, lease: LeaseId) -> Result<(), StoreError> {
    database.execute("DELETE FROM leases WHERE id = ?", [lease.0])?;
    Ok(())
}

pub(crate) fn keys_of(database: &Connection, lease: LeaseId) -> Result<Vec<String>, StoreError> {
    let mut query = database.prepare("SELECT key FROM current WHERE lease = ? ORDER BY key")?;
    let rows = query.query_map([lease.0], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_the_next_string_begins() {
        assert_eq!(end_of("a/").as_deref(), Some("a0"));
        assert_eq!(end_of("a\u{d7ff}").as_deref(), Some("a\u{e000}"));
        assert_eq!(end_of("a\u{10ffff}").as_deref(), Some("b"));
        assert_eq!(end_of("\u{10ffff}"), None);
        assert_eq!(end_of(""), None);
    }
}
