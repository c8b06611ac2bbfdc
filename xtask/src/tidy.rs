//! `cargo xtask tidy`: rules about the code that compilers do not check.
//!
//! Layers come from `cargo metadata`, not from hope. Limits ratchet: the lists of what may exceed
//! them may only shrink.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::Value;

use guests::host;

/// Which of our crates may be named by those of a folder, by folder or by name.
const LAYERS: &[(&str, &[&str])] = &[
    ("support", &[]),
    ("x86", &["support", "x86"]),
    ("machine/guest_memory", &["support"]),
    ("machine/machine_clock", &["support"]),
    ("machine/bus", &["support", "x86_state"]),
    ("machine/chipset", &["support", "x86_state", "bus", "machine_clock", "guest_memory"]),
    ("machine/pci", &["support", "x86_state", "bus"]),
    ("machine/display", &["support", "bus", "pci", "machine_clock", "guest_memory"]),
    (
        "machine/virtio",
        &[
            "support",
            "x86_state",
            "bus",
            "pci",
            "machine_clock",
            "guest_memory",
            "storage",
            "net",
            "vsock",
        ],
    ),
    ("machine/ahci", &["support", "x86_state", "bus", "pci", "guest_memory", "storage"]),
    ("machine/nvme", &["support", "x86_state", "bus", "pci", "guest_memory", "storage"]),
    ("machine/e1000", &["support", "x86_state", "bus", "pci", "guest_memory", "net"]),
    ("machine/boot", &["support", "x86_state", "guest_memory"]),
    ("machine/board", &["support", "machine", "x86_state", "engine", "storage", "net", "vsock"]),
    ("engine/engine", &["support", "x86_state", "guest_memory", "machine_clock"]),
    ("engine/engine_hw", &["support", "x86", "engine", "guest_memory", "machine_clock"]),
    ("engine/engine_soft", &["support", "x86", "engine", "guest_memory", "machine_clock"]),
    ("engine", &["support", "x86", "engine", "engine_soft", "guest_memory", "machine_clock"]),
    ("backend", &["support"]),
    ("vmm/cage", &[]),
    ("vmm/vmm_rpc", &["support"]),
    ("vmm/guest_agent", &["support", "vmm_rpc"]),
    (
        "vmm",
        &[
            "support",
            "x86_state",
            "machine",
            "engine",
            "engine_hw",
            "engine_emu",
            "engine_full",
            "backend",
            "guest_agent",
            "cage",
            "vmm_rpc",
        ],
    ),
    ("platform/store", &["support"]),
    ("platform/model", &[]),
    ("platform/registry", &["model", "store"]),
    ("platform/reconcile", &["model", "registry"]),
    ("platform/scaling", &["model", "registry"]),
    ("platform/host", &["support", "model", "reconcile", "images", "storage", "vmm_rpc"]),
    (
        "platform/api",
        &["support", "model", "oidc", "registry", "reconcile", "host", "images", "store"],
    ),
    ("platform/oidc", &["model"]),
    ("platform/web", &[]),
    (
        "bin/trined",
        &[
            "support",
            "api",
            "host",
            "images",
            "model",
            "oidc",
            "reconcile",
            "registry",
            "scaling",
            "store",
            "web",
        ],
    ),
    ("bin/trinevm", &["support", "cage", "vmm", "vmm_rpc", "rfb"]),
    ("bin/trine", &["support", "vmm_rpc", "images", "image_build", "model", "storage", "net"]),
    ("tests/isa", &["x86", "engine", "engine_emu", "engine_hw", "harness"]),
    ("xtask", &["basket", "guests", "nested"]),
];

/// Only these crates may name these dependencies: each is wrapped once.
const WRAPPED: &[(&str, &[&str])] = &[
    ("kvm-ioctls", &["engine_hw"]),
    ("kvm-bindings", &["engine_hw"]),
    ("iced-x86", &["x86_decode", "isa", "lockstep", "system"]),
    ("imago", &["storage"]),
    ("io-uring", &["storage"]),
    ("fatfs", &["fatimage"]),
    ("gpt", &["image_build"]),
    ("yaml-rust2", &["cloud_seed"]),
    ("indicatif", &["trine"]),
    ("rusqlite", &["store"]),
    ("anyhow", &["trine", "trined", "trinevm", "xtask"]),
    ("prometheus-client", &["api"]),
    ("axum", &["api", "trined", "web"]),
    ("seccompiler", &["cage"]),
];

const LINES_MAX: usize = 800;
const NAMES_BANNED: &[&str] =
    &["common", "util", "utils", "base", "core", "helpers", "manager", "misc"];

/// Checks everything; prints every violation.
pub fn run() -> anyhow::Result<()> {
    let mut found = Vec::new();
    layers(&mut found)?;
    for file in sources(&host::root())? {
        source(&file, &mut found)?;
    }
    for line in &found {
        eprintln!("tidy: {line}");
    }
    if !found.is_empty() {
        bail!("{} violations of the rules in CONTRIBUTING.md", found.len());
    }
    Ok(())
}

fn layers(found: &mut Vec<String>) -> anyhow::Result<()> {
    let metadata =
        host::output(&mut host::cargo(&["metadata", "--no-deps", "--format-version=1"]))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let folders: BTreeMap<&str, String> =
        packages.iter().filter_map(|p| Some((p["name"].as_str()?, folder(p)?))).collect();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let Some(own) = folders.get(name) else { continue };
        if own.starts_with("tests") {
            continue;
        }
        if name.split('_').any(|word| NAMES_BANNED.contains(&word)) {
            found.push(format!("{own}: a crate's name says what it is, not '{name}'"));
        }
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let to = dependency["name"].as_str().unwrap_or_default();
            let dev = dependency["kind"].as_str() == Some("dev");
            if !dev && WRAPPED.iter().any(|(wrapped, by)| *wrapped == to && !by.contains(&name)) {
                found.push(format!("{own}: names {to}, which another crate wraps"));
            }
            let Some(to_folder) = folders.get(to).filter(|_| !dev) else { continue };
            if !may_name(own, to, to_folder) {
                found.push(format!("{own}: names {to}, which its layer may not"));
            }
        }
    }
    Ok(())
}

fn folder(package: &Value) -> Option<String> {
    let manifest = Path::new(package["manifest_path"].as_str()?).parent()?;
    Some(manifest.strip_prefix(host::root()).ok()?.to_string_lossy().into_owned())
}

fn may_name(own: &str, to: &str, to_folder: &str) -> bool {
    let rule =
        LAYERS.iter().find(|(folder, _)| own == *folder || own.starts_with(&format!("{folder}/")));
    let top = to_folder.split('/').next().unwrap_or_default();
    // 'engine' names the crate of the traits; the engines themselves are named one by one.
    rule.is_some_and(|(_, may)| may.iter().any(|m| *m == to || (*m == top && *m != "engine")))
}

fn sources(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listed = host::output(
        std::process::Command::new("git").args(["ls-files", "*.rs"]).current_dir(dir),
    )?;
    Ok(listed.lines().map(|line| dir.join(line)).filter(|path| path.exists()).collect())
}

fn source(path: &Path, found: &mut Vec<String>) -> anyhow::Result<()> {
    let text = fs::read_to_string(path)?;
    let shown = path.strip_prefix(host::root()).unwrap_or(path).display();
    let lines = text.lines().count();
    if lines > LINES_MAX {
        found.push(format!(
            "{shown}: {lines} lines; split it by reason to change ({LINES_MAX} at most)"
        ));
    }
    let is_root = path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
    if is_root && !text.starts_with("//!") && !text.starts_with("#!") {
        found.push(format!("{shown}: a crate begins with what it is and may not know (//!)"));
    }
    if text.contains("allow(unsafe_code") && !text.contains("UNSAFETY:") {
        found.push(format!("{shown}: a module with unsafe code says why (UNSAFETY:)"));
    }
    for (number, line) in text.lines().enumerate() {
        let mark = ["TO", "FIX"]
            .iter()
            .any(|m| line.contains(&format!("{m}{}", if *m == "TO" { "DO" } else { "ME" })));
        if mark {
            found.push(format!(
                "{shown}:{}: file an issue instead of a mark in the code",
                number + 1
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_let_through_what_they_name_and_nothing_else() {
        assert!(may_name("x86/x86_exec", "x86_mmu", "x86/x86_mmu"));
        assert!(may_name("machine/board", "engine", "engine/engine"));
        assert!(!may_name("machine/board", "engine_hw", "engine/engine_hw"));
        assert!(!may_name("x86/x86_exec", "guest_memory", "machine/guest_memory"));
        assert!(!may_name("machine/pci", "virtio", "machine/virtio"));
        assert!(!may_name("nowhere", "x86_state", "x86/x86_state"));
    }

    #[test]
    fn the_tree_is_tidy() {
        run().unwrap();
    }
}
