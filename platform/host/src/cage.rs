//! What of a VM's cage its process cannot make itself: who it becomes, and the control group it joins.

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use model::{Network, Vm, VmId};

use crate::folder::Folder;

/// User IDs of VMs: above those that Linux distributions and systemd give away, below the negative ones.
const USER_FIRST: u32 = 0x7000_0000;
const USERS: u128 = 0x0fff_ff00;
/// Where version 2 of control groups is.
const GROUPS: &str = "/sys/fs/cgroup";
/// What of them is used.
const CONTROLLERS: &str = "+memory +cpu +pids";
/// A VM's process has a thread for each CPU, and some for its disks: far fewer.
const THREADS_MAX: u32 = 1024;
/// What a VM's process may have besides the guest's memory: translated code above all.
const OVERHEAD_BYTES: u64 = 1 << 30;
/// The kernel's weight of a process that nobody has thought of, which a guest's CPU gets.
const WEIGHT: u32 = 100;
const WEIGHT_MAX: u32 = 10_000;

/// The user a VM's process becomes. Two VMs of thousands might get the same one; even then they see nothing of each other.
fn user(id: VmId) -> u32 {
    USER_FIRST + (id.0.as_u128() % USERS) as u32 // less than USERS, which fits
}

/// Words for the VM's process about its cage.
pub(crate) fn arguments(vm: &Vm, folder: &Folder) -> io::Result<Vec<OsString>> {
    let mut words: Vec<OsString> = Vec::new();
    if !rustix::process::geteuid().is_root() {
        let lacks = "a user, namespaces and limits of its own: the daemon is not root";
        return Ok(vec!["--cage-lacks".into(), lacks.into()]);
    }
    match DirBuilder::new().mode(0o555).create(folder.root()) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made?,
    }
    words.extend(["--cage-user".into(), user(vm.meta.id).to_string().into()]);
    words.extend(["--cage-root".into(), folder.root().into()]);
    if vm.spec.network == Network::None && vm.spec.networks.is_empty() {
        words.push("--cage-no-network".into());
    }
    match make_group(Path::new(GROUPS), vm) {
        Ok(group) => words.extend(["--cgroup".into(), group.into()]),
        Err(lacks) => words.extend(["--cage-lacks".into(), lacks.into()]),
    }
    Ok(words)
}

fn group(groups: &Path, id: VmId) -> PathBuf {
    groups.join("trine").join(id.to_string())
}

/// Makes a VM's control group and sets its limits. `Err`: why there is none, in words for people.
fn make_group(groups: &Path, vm: &Vm) -> Result<PathBuf, String> {
    if !groups.join("cgroup.controllers").exists() {
        return Err(
            "limits of memory, CPU and threads: this host has no control groups of version 2 \
                    (boot it with systemd.unified_cgroup_hierarchy=1)"
                .to_owned(),
        );
    }
    let path = group(groups, vm.meta.id);
    let limits = || {
        fs::create_dir_all(&path)?;
        for above in [groups, &groups.join("trine")] {
            fs::write(above.join("cgroup.subtree_control"), CONTROLLERS)?;
        }
        let spec = &vm.spec;
        let memory = spec.memory_max_bytes.unwrap_or(0).max(spec.memory_bytes);
        let memory = memory.saturating_add(OVERHEAD_BYTES);
        fs::write(path.join("memory.max"), memory.to_string())?;
        fs::write(path.join("pids.max"), THREADS_MAX.to_string())?;
        set_weight(&path, spec.cpus)
    };
    let refused = |error: io::Error| format!("limits of memory, CPU and threads: {error}");
    limits().map(|()| path.clone()).map_err(refused)
}

fn set_weight(group: &Path, cpus: u32) -> io::Result<()> {
    let weight = cpus.saturating_mul(WEIGHT).min(WEIGHT_MAX);
    fs::write(group.join("cpu.weight"), weight.to_string())
}

/// A VM has so many CPUs now. Without a group there is nothing to set.
pub(crate) fn grown(id: VmId, cpus: u32) -> io::Result<()> {
    let group = group(Path::new(GROUPS), id);
    if group.exists() { set_weight(&group, cpus) } else { Ok(()) }
}

/// The VM is gone, and its group goes.
///
/// # Errors
/// When a process is in it, if only for the moment between its files and its end.
pub(crate) fn forget(id: VmId) -> io::Result<()> {
    match fs::remove_dir(group(Path::new(GROUPS), id)) {
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Err(error),
        // There is none, or none of ours.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm() -> Vm {
        let spec = model::VmSpec { cpus: 3, memory_bytes: 1 << 30, ..model::VmSpec::default() };
        let name: model::Name = "a".parse().unwrap();
        let meta = model::VmMeta {
            id: VmId::new(),
            project: name.clone(),
            name,
            created: jiff::Timestamp::UNIX_EPOCH,
            deleting: false,
        };
        Vm { meta, spec, status: model::VmStatus::default() }
    }

    #[test]
    fn each_vm_has_a_user_in_the_range_of_vms() {
        let (a, b) = (user(VmId::new()), user(VmId::new()));
        assert_ne!(a, b);
        assert!(a >= USER_FIRST && a < USER_FIRST + USERS as u32);
    }

    #[test]
    fn a_host_without_control_groups_of_version_2_is_told_so() {
        let folder = tempfile::tempdir().unwrap();
        assert!(make_group(folder.path(), &vm()).unwrap_err().contains("version 2"));
    }

    #[test]
    fn a_group_has_limits_that_follow_from_the_spec() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("cgroup.controllers"), "cpu memory pids").unwrap();
        let group = make_group(folder.path(), &vm()).unwrap();
        let limit = |name: &str| fs::read_to_string(group.join(name)).unwrap();
        assert_eq!(limit("memory.max"), (2u64 << 30).to_string());
        assert_eq!((limit("cpu.weight"), limit("pids.max")), ("300".into(), "1024".into()));
        let above = folder.path().join("trine/cgroup.subtree_control");
        assert_eq!(fs::read_to_string(above).unwrap(), CONTROLLERS);
    }
}
