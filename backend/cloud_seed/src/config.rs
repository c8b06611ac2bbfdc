//! The seed's files.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde_json::{Map, Value, json};
use yaml_rust2::{Yaml, YamlLoader};

use crate::{SeedError, SeedSpec};

/// Larger files are a mistake; clouds take 16 KiB to 64 KiB.
const FILE_LEN_MAX: u64 = 1 << 20;
/// First words of the formats that cloud-init knows besides its own ("User data formats").
const OTHER_FORMATS: [&str; 7] = [
    "#!",
    "#include",
    "#cloud-boothook",
    "#cloud-config-archive",
    "#part-handler",
    "## template: jinja",
    "Content-Type:",
];
const OWN_FORMAT: &str = "#cloud-config";

/// Two of the seed's files.
pub(crate) struct Files {
    pub user_data: String,
    pub vendor_data: String,
}

/// What the operator wrote is user data, which has the last word over vendor data; without it, what
/// follows from the other options is.
pub(crate) fn files(spec: &SeedSpec) -> Result<Files, SeedError> {
    let own = format!("{OWN_FORMAT}\n{:#}\n", own_config(spec)?);
    Ok(match &spec.user_data {
        None => Files { user_data: own, vendor_data: String::new() },
        Some(path) => Files { user_data: user_data(path)?, vendor_data: own },
    })
}

pub(crate) fn meta_data(id: &str, hostname: Option<&str>) -> String {
    let mut data = Map::new();
    data.insert("instance-id".to_owned(), json!(format!("trine-{id}")));
    if let Some(hostname) = hostname {
        data.insert("local-hostname".to_owned(), json!(hostname));
    }
    format!("{:#}\n", Value::Object(data))
}

fn own_config(spec: &SeedSpec) -> Result<Value, SeedError> {
    let mut keys = Vec::new();
    for path in &spec.ssh_keys {
        keys.extend(public_keys(path)?);
    }
    let Some(name) = &spec.user else {
        // The image's own user.
        let config =
            if keys.is_empty() { json!({}) } else { json!({ "ssh_authorized_keys": keys }) };
        return Ok(config);
    };
    let mut user = json!({
        "name": name,
        "shell": "/bin/bash",
        "sudo": "ALL=(ALL) NOPASSWD:ALL",
        "ssh_authorized_keys": keys,
        "lock_passwd": true,
    });
    if let Some(path) = &spec.password_file {
        let password = password(path)?;
        let key = if is_hash(&password) { "hashed_passwd" } else { "plain_text_passwd" };
        user[key] = json!(password);
        user["lock_passwd"] = json!(false);
    }
    Ok(json!({ "users": [user] }))
}

/// The keys in a file, as OpenSSH writes them: a type and a key in a line.
fn public_keys(path: &Path) -> Result<Vec<String>, SeedError> {
    let what = "file of public keys";
    let text = read(path, what)?;
    let content = |why: &str| SeedError::Content { what, path: path.into(), why: why.to_owned() };
    if text.contains("PRIVATE KEY") {
        return Err(content("it is a private key; give the file that ends in .pub"));
    }
    let lines =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Vec<String> = lines.map(str::to_owned).collect();
    let is_key = |line: &String| {
        let kinds = ["ssh-", "ecdsa-", "sk-"];
        let mut words = line.split_whitespace();
        words.any(|word| kinds.iter().any(|kind| word.starts_with(kind)))
            && words.next().is_some_and(|key| key.starts_with("AAAA"))
            && line.chars().all(|c| !c.is_control())
    };
    if keys.is_empty() || !keys.iter().all(is_key) {
        return Err(content("a line in it is no public key like 'ssh-ed25519 AAAA…'"));
    }
    Ok(keys)
}

fn password(path: &Path) -> Result<String, SeedError> {
    let what = "password file";
    let text = read(path, what)?;
    let line = text.lines().next().unwrap_or_default();
    let why = if line.is_empty() {
        "its first line is empty"
    } else if line.chars().any(char::is_control) {
        "a password has no control characters"
    } else {
        return Ok(line.to_owned());
    };
    Err(SeedError::Content { what, path: path.into(), why: why.to_owned() })
}

/// A hash of crypt(5): `$id$`, perhaps parameters, a salt, the hash.
fn is_hash(password: &str) -> bool {
    let parts: Vec<&str> = password.split('$').collect();
    let plain = |part: &&str| part.chars().all(|c| c.is_ascii_alphanumeric() || "./=,".contains(c));
    parts.len() >= 4 && parts[0].is_empty() && parts[1..].iter().all(plain) && parts[3].len() >= 20
        || parts.len() >= 5 && parts[0].is_empty() && parts[1..].iter().all(plain)
}

/// A guest would say of a mistake here in its log only, where nobody looks who cannot log in.
fn user_data(path: &Path) -> Result<String, SeedError> {
    let what = "user data";
    let text = read(path, what)?;
    let content = |why: String| SeedError::Content { what, path: path.into(), why };
    let first = text.lines().next().unwrap_or_default();
    if first.trim_end() != OWN_FORMAT {
        let is_known = OTHER_FORMATS.iter().any(|format| first.starts_with(format))
            || first.to_ascii_lowercase().starts_with("mime-version:");
        let why = if first.trim() == OWN_FORMAT || first.starts_with("\u{feff}") {
            "there is something before the '#' of its first line".to_owned()
        } else {
            format!("its first line must be '{OWN_FORMAT}', or '#!' and an interpreter")
        };
        return if is_known { Ok(text) } else { Err(content(why)) };
    }
    // Not every reader of YAML takes it; the guest's does not.
    if let Some(at) = text.lines().position(|line| line.starts_with('\t')) {
        return Err(content(format!("it is not YAML: line {} is indented with a tab", at + 1)));
    }
    let documents = YamlLoader::load_from_str(&text)
        .map_err(|error| content(format!("it is not YAML: {error}")))?;
    match &documents[..] {
        [] | [Yaml::Hash(_) | Yaml::Null] => Ok(text),
        [_] => Err(content("it is not a mapping of 'key: value' at its top".to_owned())),
        _ => Err(content("it has several YAML documents; only one counts".to_owned())),
    }
}

fn read(path: &Path, what: &'static str) -> Result<String, SeedError> {
    let failed = |source| SeedError::File { what, path: path.into(), source };
    // Looked at before it is opened: opening a FIFO would wait for a writer.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("it is not a file")));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    let content = |why: &str| SeedError::Content { what, path: path.into(), why: why.to_owned() };
    if bytes.len() as u64 > FILE_LEN_MAX {
        return Err(content("it is larger than 1 MiB"));
    }
    String::from_utf8(bytes).map_err(|_| content("it is not UTF-8 text"))
}
