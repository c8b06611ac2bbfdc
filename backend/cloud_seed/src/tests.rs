//! Seeds as a guest would read them.

use std::fs;

use serde_json::Value;
use tempfile::TempDir;
use yaml_rust2::YamlLoader;

use crate::{SeedError, SeedSpec, config, seed};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKfJ me@\"here\": #1";

fn file(folder: &TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn spec(text: &str) -> SeedSpec {
    text.parse().unwrap()
}

/// What follows from the options, as YAML has it.
fn own(text: &str) -> Value {
    let files = config::files(&spec(text)).unwrap();
    let yaml = files.user_data.strip_prefix("#cloud-config\n").unwrap();
    assert_eq!(YamlLoader::load_from_str(yaml).unwrap().len(), 1);
    serde_json::from_str(yaml).unwrap()
}

#[test]
fn a_user_has_keys_a_password_and_sudo() {
    let folder = tempfile::tempdir().unwrap();
    let key = file(&folder, "k.pub", &format!("# mine\n\n{KEY}\n"));
    let password = file(&folder, "p", "quote' \": # {}\n");
    let user = &own(&format!("user=me,ssh-key={key},password-file={password}"))["users"][0];
    assert_eq!(user["name"], "me");
    assert_eq!(user["ssh_authorized_keys"][0], KEY);
    assert_eq!(user["plain_text_passwd"], "quote' \": # {}");
    assert_eq!(user["lock_passwd"], false);
    let hash = file(&folder, "h", "$6$salt$IxDD3jeSOb5eB1CX5LBsqZFVkJdido3OUILO5Ifz5iwMuTS4XMS1");
    let user = &own(&format!("user=me,password-file={hash}"))["users"][0];
    assert!(user["hashed_passwd"].is_string() && user["plain_text_passwd"].is_null());
    assert_eq!(own(&format!("ssh-key={key}"))["ssh_authorized_keys"][0], KEY);
}

#[test]
fn names_are_values_and_nothing_else() {
    for good in ["me", "_x", "a-1"] {
        assert!(format!("user={good}").parse::<SeedSpec>().is_ok(), "{good}");
    }
    for bad in ["Me", "1a", "a b", "a:b", "a\nb", "ü", "-a", &"a".repeat(33)] {
        let parsed = format!("user={bad}").parse::<SeedSpec>();
        assert!(matches!(parsed, Err(SeedError::User(_))), "{bad}");
    }
    for good in ["vm1", "a.example.org", "1-2"] {
        assert!(format!("hostname={good}").parse::<SeedSpec>().is_ok(), "{good}");
    }
    for bad in ["-a", "a-", "a..b", "a_b", "a b", "a\nb", &"a".repeat(65)] {
        let parsed = format!("hostname={bad}").parse::<SeedSpec>();
        assert!(matches!(parsed, Err(SeedError::Hostname(_))), "{bad}");
    }
    for bad in ["user", "user=", "name=me", "user=a,user=b", "password-file=/x"] {
        assert!(bad.parse::<SeedSpec>().is_err(), "{bad}");
    }
}

#[test]
fn user_data_is_kept_as_it_is_and_the_options_go_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let text = "#cloud-config\nruncmd:\n  - [touch, /x]\n";
    let path = file(&folder, "u", text);
    let files = config::files(&spec(&format!("user=me,user-data={path}"))).unwrap();
    assert_eq!(files.user_data, text);
    assert!(files.vendor_data.starts_with("#cloud-config\n{"));
    let script = file(&folder, "s", "#!/bin/sh\ntrue\n");
    assert!(config::files(&spec(&format!("user-data={script}"))).is_ok());
}

#[test]
fn mistakes_in_files_are_told_before_a_guest_starts() {
    let folder = tempfile::tempdir().unwrap();
    for (text, told) in [
        ("packages: [vim]\n", "first line"),
        (" #cloud-config\n", "before the '#'"),
        ("#cloud-config\na: [1\n", "not YAML"),
        ("#cloud-config\n\ta: 1\n", "not YAML"),
        ("#cloud-config\n- a\n", "mapping"),
        ("#cloud-config\na: 1\n---\nb: 2\n", "several"),
        ("", "first line"),
        (&"#".repeat(2 << 20), "larger"),
    ] {
        let path = file(&folder, "u", text);
        let made = seed(&spec(&format!("user-data={path}")));
        let error = made.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(told) && error.contains(&path), "{told}: {error}");
    }
    for text in ["", "no key\n", "-----BEGIN OPENSSH PRIVATE KEY-----\n", "ssh-rsa\n"] {
        let path = file(&folder, "k", text);
        assert!(seed(&spec(&format!("ssh-key={path}"))).is_err(), "{text}");
    }
    assert!(seed(&spec("ssh-key=/nowhere")).is_err());
    assert!(seed(&SeedSpec { ssh_keys: vec![folder.path().into()], ..spec("") }).is_err());
}

#[test]
fn the_same_wishes_are_the_same_instance_and_others_another() {
    let folder = tempfile::tempdir().unwrap();
    let key = file(&folder, "k", KEY);
    let make = |text: &str| seed(&spec(text)).unwrap();
    let one = make(&format!("user=me,ssh-key={key}"));
    assert!(one == make(&format!("user=me,ssh-key={key}")));
    for other in ["user=me", "user=me,hostname=a", "user=you"] {
        assert!(one != make(other), "{other}");
    }
    let contains = |text: &[u8]| one.windows(text.len()).any(|part| part == text);
    assert!(contains(b"CIDATA     ") && contains(b"instance-id") && !contains(b"local"));
    assert!(one.len().is_multiple_of(512));
}
