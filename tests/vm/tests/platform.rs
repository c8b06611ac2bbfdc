//! The daemon with real VMs: a VM outlives its daemon's death, and goes without a trace when it is deleted.

#[path = "platform/daemon.rs"]
mod daemon;

use std::fs;
use std::process::{Command, Output};

use anyhow::{Context, ensure};
use daemon::Daemon;
use guests::Init;
use vm_tests::text;

fn is_alive(pid: u64) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}

#[test]
fn a_vm_outlives_its_daemon_and_leaves_nothing_when_it_is_deleted() -> anyhow::Result<()> {
    let kernel = guests::kernel("cloud")?;
    let initrd = guests::initrd(&kernel, &[], Init::Shell)?;
    let mut daemon = Daemon::start()?;
    let (image, initrd) = (text(&kernel.image), text(&initrd));
    let cmdline = "console=ttyS0 quiet panic=-1";
    let launch = ["launch", "a", "--kernel", image, "--initrd", initrd, "--cmdline", cmdline];
    assert_eq!(daemon.ask(&launch)?, "a\n");
    assert_eq!(daemon.ask(&["ls", "-o", "name"])?, "a\n");
    let before = daemon.show("a")?;
    assert_eq!(before["status"]["phase"], "running", "{before}");
    let pid = before["status"]["pid"].as_u64().context("no process ID")?;

    daemon.kill_and_start()?;
    assert!(is_alive(pid), "the VM died with its daemon");
    let after = daemon.show("a")?;
    assert_eq!(after["status"]["pid"], pid);
    assert_eq!(after["status"]["phase"], "running", "{after}");
    assert_eq!(after["status"]["boot"], 1);

    // It still obeys: a clock that stands, and goes on.
    daemon.ask(&["vm", "pause", "a"])?;
    assert_eq!(daemon.show("a")?["status"]["phase"], "paused");
    daemon.ask(&["vm", "resume", "a"])?;
    let refused = daemon.run(&["rm", "a"])?;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("(vm-running)"));

    // Killed behind the daemon's back, it is seen to have failed, and can be started again.
    Command::new("kill").args(["-9", &pid.to_string()]).status()?;
    let failed = |phase: &str| daemon.show("a").is_ok_and(|vm| vm["status"]["phase"] == phase);
    daemon.until("the failure", || failed("failed"))?;
    daemon.ask(&["start", "a"])?;
    let again = daemon.show("a")?;
    assert_eq!(again["status"]["boot"], 2);
    let pid = again["status"]["pid"].as_u64().context("no process ID")?;

    daemon.ask(&["rm", "--force", "a"])?;
    assert_eq!(daemon.ask(&["ls", "-o", "name"])?, "");
    daemon.until("the process' end", || !is_alive(pid))?;
    assert_eq!(daemon.folders(), 0);
    Ok(())
}

#[test]
fn what_cannot_start_says_why_and_stays_to_be_looked_at() -> anyhow::Result<()> {
    let daemon = Daemon::start()?;
    let refused = daemon.run(&["launch", "a", "--kernel", "/nonexistent/vmlinuz"])?;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("/nonexistent/vmlinuz"), "{said}");
    assert_eq!(daemon.show("a")?["status"]["phase"], "failed");
    let refused = daemon.run(&["launch", "b", "--image", "missing"])?;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("no image 'missing'") && said.contains("(not-found)"), "{said}");
    daemon.ask(&["rm", "a"])?;
    assert_eq!(daemon.folders(), 0);
    Ok(())
}

#[test]
fn somebody_elsewhere_may_what_their_token_says() -> anyhow::Result<()> {
    let daemon = Daemon::start()?;
    let server = format!("https://{}", daemon.listens("address")?);
    let fingerprint = daemon.listens("fingerprint")?;
    let token =
        daemon.ask(&["token", "create", "looker", "--role", "viewer", "--expires", "1h"])?;
    let add = ["context", "add", "lab", &server];

    let refused = |output: &Output, why: &str| -> anyhow::Result<()> {
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && said.contains(why), "{said}");
        Ok(())
    };
    refused(&daemon.elsewhere(&add, &token)?, &format!("--fingerprint {fingerprint}"))?;
    let wrong = "00".repeat(32);
    let of_another = [&add[..], &["--fingerprint", &wrong]].concat();
    refused(&daemon.elsewhere(&of_another, &token)?, "its certificate is another one")?;
    let right = [&add[..], &["--fingerprint", &fingerprint]].concat();
    refused(&daemon.elsewhere(&right, "trine_guessed\n")?, "unauthorized")?;

    let added = daemon.elsewhere(&right, &token)?;
    ensure!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    let listed = daemon.elsewhere(&["ls"], "")?;
    assert!(String::from_utf8(listed.stdout)?.starts_with("NAME"));
    refused(&daemon.elsewhere(&["launch", "a"], "")?, "forbidden")?;

    daemon.ask(&["token", "rm", "looker"])?;
    refused(&daemon.elsewhere(&["ls"], "")?, "unauthorized")
}
