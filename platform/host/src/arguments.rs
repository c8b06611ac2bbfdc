//! The command line of a VM's process.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use model::{Boot, CardModel, Display, Firmware, Forward, Network, Protocol, Vm};

use crate::folder::Folder;

/// What `trinevm` is told. What it reads from files is written into the VM's folder.
pub(crate) fn of(vm: &Vm, disks: &[String], folder: &Folder) -> io::Result<Vec<OsString>> {
    let spec = &vm.spec;
    let mut words: Vec<OsString> = Vec::new();
    let mut say = |option: &str, value: OsString| words.extend([option.into(), value]);
    say("--engine", spec.engine.as_str().into());
    let most = spec.cpus_max.map(|most| format!(",max={most}")).unwrap_or_default();
    say("--cpus", format!("{}{most}", spec.cpus).into());
    let most = spec.memory_max_bytes.map(|most| format!(",max={}K", most / 1024));
    say("--memory", format!("{}K{}", spec.memory_bytes / 1024, most.unwrap_or_default()).into());
    say("--serial", "stdio".into());
    say("--on-reset", "restart".into());
    say("--control", folder.control().into());
    say("--record", folder.end().into());
    match &spec.boot_from {
        Boot::Firmware(Firmware::Bios) => say("--firmware", "bios".into()),
        Boot::Firmware(Firmware::Uefi) => {
            say("--firmware", "uefi".into());
            say("--uefi-vars", folder.uefi_vars().into());
        }
        Boot::Kernel(boot) => {
            say("--kernel", boot.kernel.clone().into());
            if let Some(initrd) = &boot.initrd {
                say("--initrd", initrd.clone().into());
            }
            say("--cmdline", boot.cmdline.clone().into());
        }
    }
    for disk in disks {
        say("--disk", disk.into());
    }
    for (card, has) in spec.networks.iter().zip(&vm.status.networks) {
        let model = match card.model {
            CardModel::Virtio => "virtio",
            CardModel::E1000 => "e1000",
        };
        say("--net", format!("tap={},mac={},model={model}", has.interface, has.mac).into());
    }
    match &spec.network {
        _ if !spec.networks.is_empty() => {}
        Network::None => {}
        Network::Outbound => say("--net", network(&[]).into()),
        Network::User(forwards) => say("--net", network(forwards).into()),
    }
    if let Some(seed) = seed(vm, folder)? {
        say("--cloud-init", seed);
    }
    if spec.display == Display::Vga {
        let mut place = OsString::from("unix=");
        place.push(folder.screen());
        words.extend(["--vnc".into(), place]);
    }
    words.push("--agent".into());
    Ok(words)
}

fn network(forwards: &[Forward]) -> String {
    let mut text = "user".to_owned();
    for forward in forwards {
        let protocol = match forward.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        let address = forward.host_address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        let (host, guest) = (forward.host_port, forward.guest_port);
        text.push_str(&format!(",hostfwd={protocol}:{address}:{host}-:{guest}"));
    }
    text
}

/// What cloud-init is told; the guest's name is the VM's.
fn seed(vm: &Vm, folder: &Folder) -> io::Result<Option<OsString>> {
    let Some(wishes) = &vm.spec.cloud_init else { return Ok(None) };
    let mut seed = OsString::from(format!("hostname={}", vm.meta.name));
    if let Some(user) = &wishes.user {
        seed.push(format!(",user={user}"));
    }
    let mut file = |key: &str, name: &str, text: &str| {
        let path = folder.file(name);
        fs::write(&path, text)?;
        seed.push(format!(",{key}="));
        seed.push(path);
        io::Result::Ok(())
    };
    if !wishes.ssh_keys.is_empty() {
        file("ssh-key", "ssh-keys", &(wishes.ssh_keys.join("\n") + "\n"))?;
    }
    if let Some(data) = &wishes.user_data {
        file("user-data", "user-data", data)?;
    }
    Ok(Some(seed))
}
