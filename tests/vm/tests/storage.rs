//! Disks of the daemon, with a real guest: they come, grow, are looked at from inside, go back in time, and leave
//! nothing.

#[path = "platform/daemon.rs"]
mod daemon;
#[path = "platform/shell.rs"]
mod shell;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use daemon::Daemon;
use guests::Init;
use serde_json::json;
use shell::Shell;
use vm_tests::text;

fn files_of(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

#[test]
fn disks_come_grow_go_back_in_time_and_leave_nothing() -> anyhow::Result<()> {
    let kernel = guests::kernel("cloud")?;
    let initrd = guests::initrd(&kernel, &["virtio_pci", "virtio_blk"], Init::Shell)?;
    let mut daemon = Daemon::start()?;
    let disks = daemon.home().join("disks");

    // An image that is sent: 16 MiB whose first bytes say so.
    let file = daemon.home().join("old.raw");
    let mut bytes = vec![0u8; 16 << 20];
    bytes[..8].copy_from_slice(b"original");
    fs::write(&file, &bytes)?;
    assert_eq!(daemon.ask(&["image", "upload", text(&file), "old"])?, "old\n");
    let back = daemon.home().join("back.raw");
    daemon.ask(&["image", "download", "old", text(&back)])?;
    ensure!(fs::read(&back)? == bytes, "what comes back is not what was sent");

    let cmdline = "console=ttyS0 quiet panic=-1";
    let (image, initrd) = (text(&kernel.image), text(&initrd));
    let launch = [
        "launch",
        "a",
        "--kernel",
        image,
        "--initrd",
        initrd,
        "--cmdline",
        cmdline,
        "--image",
        "old",
    ];
    daemon.ask(&launch)?;
    let refused = daemon.run(&["image", "download", "none", "-"])?;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("(not-found)"));
    daemon.refused("DELETE", "/v1/images/old", "image-in-use")?;

    let shell = Shell::of(&daemon, "a");
    shell.until_it_answers()?;
    assert_eq!(shell.run("dd if=/dev/vda bs=8 count=1 2>/dev/null")?, "original");

    // It grows, and the guest sees that.
    daemon.ask(&["disk", "resize", "a", "32M"])?;
    assert_eq!(shell.run("cat /sys/block/vda/size")?, (32 << 11).to_string());

    // Another one comes.
    daemon.ask(&["disk", "create", "data", "--size", "8M"])?;
    daemon.ask(&["disk", "attach", "data", "a"])?;
    let name = shell.run("for i in 1 2 3 4 5 6 7 8 9; do test -e /sys/block/vdb && break; sleep 1; done; cat /sys/block/vdb/serial")?;
    assert_eq!(name, "data");
    let refused = daemon.run(&["disk", "rm", "data"])?;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("(disk-attached)"));

    // A snapshot, and then other bytes.
    assert_eq!(daemon.ask(&["snapshot", "a", "--name", "before"])?, "before\n");
    let listed = daemon.ask(&["snapshot", "ls"])?;
    assert!(listed.contains("before") && listed.contains("a,data"), "{listed}");
    shell.run("printf changed! | dd of=/dev/vda conv=notrunc 2>/dev/null; sync")?;
    shell.run("printf too | dd of=/dev/vdb conv=notrunc 2>/dev/null; sync")?;
    let read = "dd if=/dev/vda bs=8 count=1 iflag=direct 2>/dev/null";
    assert_eq!(shell.run(read)?, "changed!");

    // The daemon dies, and finds all of it again.
    daemon.kill_and_start()?;
    let shell = Shell::of(&daemon, "a").after(100);
    shell.run("printf again! | dd of=/dev/vda bs=1 seek=8 conv=notrunc 2>/dev/null; sync")?;
    let refused = daemon.run(&["snapshot", "revert", "before"])?;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("(vm-running)"));
    daemon.ask(&["stop", "--force", "a"])?;
    daemon.ask(&["snapshot", "revert", "before"])?;
    let shell = Shell::of(&daemon, "a").after(200);
    let before = shell.prompts()?;
    daemon.ask(&["start", "a"])?;
    shell.until_more_prompts(before)?;
    assert_eq!(
        shell.run("dd if=/dev/vda bs=13 count=1 2>/dev/null | tr '\\0' .")?,
        "original....."
    );
    assert_eq!(shell.run("dd if=/dev/vdb bs=3 count=1 2>/dev/null | tr '\\0' .")?, "...");

    // What the snapshot took is given back, and all is as it was.
    daemon.ask(&["snapshot", "rm", "before"])?;
    daemon.ask(&["disk", "detach", "data"])?;
    assert_eq!(shell.run("ls -d /sys/block/vdb 2>/dev/null")?, "");
    daemon.ask(&["stop", "--force", "a"])?;
    let id = daemon.object("disk", "a")?["id"].as_str().context("no ID")?.to_owned();
    // The manifest, the image and one layer.
    daemon.until("the merge", || files_of(&disks.join(&id)) == 3)?;
    let layer = fs::read_dir(disks.join(&id))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_none() && !path.ends_with("layer-0"))
        .context("no layer")?;
    let alone = json!({
        "driver": "qcow2",
        "file": { "driver": "file", "filename": text(&layer) },
        "backing": null,
    });
    let check = Command::new("qemu-img").args(["check", &format!("json:{alone}")]).output();
    if let Ok(check) = check {
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
    }

    daemon.ask(&["rm", "a"])?;
    daemon.ask(&["disk", "rm", "data"])?;
    assert_eq!(daemon.ask(&["disk", "ls", "-o", "name"])?, "");
    assert_eq!(files_of(&disks), 0);
    daemon.http("DELETE", "/v1/images/old", b"")?;
    Ok(())
}

#[test]
fn a_disk_that_is_sent_is_a_disk_and_quotas_hold() -> anyhow::Result<()> {
    let daemon = Daemon::start()?;
    let file = daemon.home().join("disk.raw");
    fs::write(&file, vec![7u8; 1 << 20])?;
    daemon.ask(&["disk", "create", "sent", "--from", text(&file)])?;
    let disk = daemon.object("disk", "sent")?;
    assert_eq!(disk["status"]["size_bytes"], 1 << 20, "{disk}");
    // The image it came as is there for it alone.
    assert_eq!(files_of(&daemon.home().join("images/names")), 0);
    daemon.ask(&["pool", "quota", "default", "4M"])?;
    let refused = daemon.run(&["disk", "create", "big", "--size", "4M"])?;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("(quota-exceeded)"), "{said}");
    daemon.ask(&["disk", "create", "fits", "--size", "3M"])?;
    let second = daemon.home().join("second");
    daemon.ask(&["pool", "create", "second", text(&second)])?;
    daemon.ask(&["disk", "create", "big", "--size", "4M", "--pool", "second"])?;
    assert_eq!(files_of(&second), 1);
    daemon.ask(&["disk", "rm", "sent", "fits", "big"])?;
    daemon.ask(&["pool", "rm", "second"])?;
    assert_eq!((files_of(&second), files_of(&daemon.home().join("disks"))), (0, 0));
    Ok(())
}
