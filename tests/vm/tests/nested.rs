//! Debian's own kernels on `hw`, in a machine with hardware virtualization that is made of
//! software (crate `nested`): so these tests run where there is no `/dev/kvm`, too.

use std::path::Path;
use std::time::Duration;

use guests::{Init, initrd, kernel, rootfs};
use nested::{GUEST_CMDLINE, GUEST_CPU, Machine};
use vm_tests::trine;

const DISK_MODULES: [&str; 3] = ["virtio_pci", "virtio_blk", "ext4"];

/// Whether a nested machine is possible; says so when it is not.
fn runs(test: &str) -> bool {
    match nested::is_possible() {
        Ok(()) => true,
        Err(reason) => {
            println!("NOT RUN: {test}: {reason}");
            false
        }
    }
}

/// A machine with Trine's programs that runs a shell's commands.
fn machine(script: &str, arguments: &[&str]) -> anyhow::Result<Machine> {
    let words = ["sh", "-c", script, "sh"].into_iter().chain(arguments.iter().copied());
    let mut machine = Machine::new(words.map(str::to_owned).collect());
    machine.timeout = Duration::from_secs(300);
    let trine = trine()?;
    machine.files = vec![file(&trine, "trine"), file(&trine.with_file_name("trinevm"), "trinevm")];
    Ok(machine)
}

fn file(source: &Path, name: &str) -> String {
    format!("{}:/job/{name}", source.display())
}

/// All that the command prints.
fn output(machine: &Machine) -> anyhow::Result<String> {
    let mut all = String::new();
    let code = machine.run(&mut |text| all.push_str(text))?;
    assert_eq!(code, 0, "{all}");
    Ok(all)
}

const CMDLINE: &str = "console=ttyS0 quiet panic=-1";

/// Boots a kernel, and returns what the guest says and the run's exit status.
fn boot(flavour: &str, cpus: u32, init: Init) -> anyhow::Result<String> {
    let kernel = kernel(flavour)?;
    let script = "./trine run --engine hw --cpu $3 --cpus $1 --memory 512M --kernel vmlinuz \
                  --initrd initrd --cmdline \"$2\" < /dev/null; echo STATUS $?";
    let mut machine = machine(script, &[&cpus.to_string(), CMDLINE, GUEST_CPU])?;
    machine.files.push(file(&kernel.image, "vmlinuz"));
    machine.files.push(file(&initrd(&kernel, &[], init)?, "initrd"));
    output(&machine)
}

#[test]
fn on_hw_the_cloud_kernel_powers_off_on_four_cpus() -> anyhow::Result<()> {
    if runs("the cloud kernel on hw") {
        let output = boot("cloud", 4, Init::PowerOff)?;
        assert!(output.contains(&format!("{} ", guests::UP)) && output.contains(" 4 "), "{output}");
        assert!(output.ends_with("STATUS 0\n"), "{output}");
    }
    Ok(())
}

#[test]
fn on_hw_the_general_kernel_reboots() -> anyhow::Result<()> {
    if runs("the general kernel on hw") {
        let output = boot("", 1, Init::Reboot)?;
        assert!(output.contains(guests::UP), "{output}");
        assert!(output.ends_with("STATUS 8\n"), "{output}");
    }
    Ok(())
}

#[test]
fn on_hw_systemd_reaches_its_login_prompt_from_a_virtio_disk() -> anyhow::Result<()> {
    if !runs("systemd on hw") {
        return Ok(());
    }
    let kernel = kernel("cloud")?;
    let script = "until_log() { while ! grep -q \"$1\" log; do sleep 0.2; done; }; \
                  mkfifo keys; { exec 3> keys; until_log login:; echo root >&3; \
                  until_log root@debian; echo poweroff >&3; } & \
                  timeout 240 ./trine run --engine hw --cpu $2 --cpus 2 --memory 512M --kernel vmlinuz \
                  --initrd initrd --cmdline \"$1\" --disk /dev/vda < keys > log 2>&1; \
                  status=$?; cat log; echo STATUS $status";
    let mut machine = machine(script, &[&CMDLINE.replace(" quiet", ""), GUEST_CPU])?;
    machine.disk = Some(rootfs()?);
    machine.files.push(file(&kernel.image, "vmlinuz"));
    machine.files.push(file(&initrd(&kernel, &DISK_MODULES, Init::SwitchRoot)?, "initrd"));
    let output = output(&machine)?;
    assert!(output.contains("login:") && output.contains("root@debian"), "{output}");
    assert!(output.ends_with("STATUS 0\n"), "{output}");
    Ok(())
}

/// The machine's kernel is Debian 12's, with control groups of version 2 alone.
#[test]
fn on_hw_a_vm_of_the_daemon_is_in_a_whole_cage_and_leaves_no_control_group() -> anyhow::Result<()> {
    if !runs("the cage on hw") {
        return Ok(());
    }
    let script = "mount -t cgroup2 none /sys/fs/cgroup; mkdir /tmp/home; export TRINE_SOCKET=/tmp/home/sock; \
                  ./trined --home /tmp/home 2> /tmp/log & export TRINE_SOCKET=/tmp/home/sock; \
                  until ./trine ls > /dev/null 2>&1; do sleep 0.2; done; cat /tmp/log; \
                  for engine in hw full emu; do \
                  ./trine launch $engine --engine $engine --memory 16M --kernel /job/idle; done; \
                  ./trine vm show hw; pid=$(./trine vm show hw | sed -n 's/^  pid: //p'); \
                  grep -E 'Uid|CapEff|NoNewPrivs|Seccomp:' /proc/$pid/status; \
                  echo LIMIT $(cat /sys/fs/cgroup/trine/*/memory.max); ./trine ls -o name; \
                  kill -9 $pid; ./trine rm -f hw full emu; \
                  echo LEFT $(ls -d /sys/fs/cgroup/trine/*/ /tmp/home/vms/* 2> /dev/null)";
    let folder = tempfile::tempdir()?;
    let idle = folder.path().join("idle");
    std::fs::write(&idle, tinyguest::multiboot(&tinyguest::idle()))?;
    let mut machine = machine(script, &[])?;
    machine.files.push(file(&trine()?.with_file_name("trined"), "trined"));
    machine.files.push(file(&idle, "idle"));
    let output = output(&machine)?;
    let holds =
        ["control group /", "namespaces of its own", "user ", "landlock, version ", "seccomp"];
    for part in holds {
        assert!(output.contains(&format!("- \"{part}")), "{part}: {output}");
    }
    assert!(
        output.contains("lacks: []") && output.contains("CapEff:\t0000000000000000"),
        "{output}"
    );
    let limit = (16u64 << 20) + (1 << 30);
    assert!(output.contains(&format!("LIMIT {limit} {limit} {limit}")), "{output}");
    assert!(output.ends_with("LEFT\n"), "{output}");
    Ok(())
}

/// Moves a guest of two CPUs at work through these engines, a hundred times.
fn goes_through(engines: &str) -> anyhow::Result<()> {
    if !runs("moves between hw and software") {
        return Ok(());
    }
    let kernel = kernel("cloud")?;
    let script = "exec ./moves --engines $1 --moves 100 --cpus 2 --kernel vmlinuz \
                  --initrd initrd --cmdline \"$2\" --limit 550";
    let mut machine = machine(script, &[engines, &format!("{CMDLINE} {GUEST_CMDLINE}")])?;
    machine.timeout = Duration::from_secs(600);
    machine.files.push(file(Path::new(env!("CARGO_BIN_EXE_moves")), "moves"));
    machine.files.push(file(&kernel.image, "vmlinuz"));
    let initrd = initrd(&kernel, &["virtio_pci", "virtio_blk"], Init::Work)?;
    machine.files.push(file(&initrd, "initrd"));
    let output = output(&machine)?;
    assert!(output.contains("MOVED 100 times"), "{output}");
    println!("{output}");
    Ok(())
}

#[test]
fn a_guest_at_work_goes_from_hw_to_emu_and_back_a_hundred_times() -> anyhow::Result<()> {
    goes_through("hw,emu")
}
