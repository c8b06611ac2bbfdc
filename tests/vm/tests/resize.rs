//! CPUs and memory of a VM that runs: what is asked of the daemon is what its guest then has.

#[path = "platform/daemon.rs"]
mod daemon;
#[path = "platform/shell.rs"]
mod shell;

use daemon::Daemon;
use guests::Init;
use shell::Shell;
use vm_tests::text;

/// Waits for what has come, and has the kernel use it: a rule of udev's in a distribution.
const ONLINE: &str = "for n in 1 2; do c=/sys/devices/system/cpu/cpu$n/online; \
    until [ -e $c ]; do sleep 0.1; done; echo 1 > $c; done; \
    until [ -e /sys/devices/system/memory/memory33 ]; do sleep 0.1; done; \
    for m in /sys/devices/system/memory/memory3[23]; do \
    grep -q online $m/state && ! grep -q offline $m/state || echo online > $m/state; done; nproc";
const MEMORY_MIB: &str = "echo $(($(grep MemTotal /proc/meminfo | tr -dc 0-9) / 1024))";

#[test]
fn a_guest_that_runs_gets_the_cpus_and_memory_that_are_asked_for() -> anyhow::Result<()> {
    let kernel = guests::kernel("cloud")?;
    let initrd = guests::initrd(&kernel, &[], Init::Shell)?;
    let daemon = Daemon::start()?;
    let (image, initrd) = (text(&kernel.image), text(&initrd));
    let cmdline = "console=ttyS0 quiet panic=-1";
    let mut launch = vec!["launch", "a", "--cpus", "1,max=3", "--memory", "256M,max=512M"];
    launch.extend(["--kernel", image, "--initrd", initrd, "--cmdline", cmdline]);
    daemon.ask(&launch)?;
    let shell = Shell::of(&daemon, "a");
    shell.until_it_answers()?;
    assert_eq!(shell.run("nproc")?, "1");
    let before: u64 = shell.run(MEMORY_MIB)?.parse()?;

    daemon.ask(&["vm", "set", "a", "--cpus", "3", "--memory", "512M"])?;
    let status = daemon.show("a")?["status"].clone();
    assert_eq!(
        (status["cpus"].as_u64(), status["memory_bytes"].as_u64()),
        (Some(3), Some(512 << 20))
    );
    assert_eq!(shell.run(ONLINE)?, "3");
    let after: u64 = shell.run(MEMORY_MIB)?.parse()?;
    assert!(after >= before + 240, "{before} MiB, then {after} MiB");

    // Beyond its bounds: nothing breaks, and it is said when it comes.
    let beyond = daemon.run(&["vm", "set", "a", "--cpus", "4"])?;
    let said = String::from_utf8_lossy(&beyond.stderr);
    assert!(beyond.status.success() && said.contains("cpus cannot come while it runs"), "{said}");
    assert_eq!(daemon.show("a")?["status"]["at_next_start"][0], "cpus");
    let refused = daemon.run(&["vm", "set", "a", "--cpus", "33"])?;
    assert!(String::from_utf8_lossy(&refused.stderr).contains("1 to 32 CPUs"));
    daemon.ask(&["stop", "--force", "a"])?;
    daemon.ask(&["start", "a"])?;
    let status = daemon.show("a")?["status"].clone();
    assert_eq!((&status["cpus"], status.get("at_next_start")), (&4.into(), None));
    daemon.ask(&["rm", "--force", "a"])?;
    Ok(())
}
