//! A machine that has hardware virtualization, whether or not this one has.
//!
//! QEMU's software emulation of an AMD processor with SVM boots Debian's cloud kernel, whose own
//! kvm-amd then makes a real `/dev/kvm`: everything that is the kernel's and not the processor's
//! is the real code. A command gets the files it names and the shared libraries they need.
//!
//! Nothing needs root, network (once the packages are there) or `/dev/kvm`.
//!
//! QEMU 7.2's processor is not quite one: it ignores the intercept of XSETBV, so that KVM never
//! learns a guest's XCR0 and puts it back to its reset value at the next entry. Linux guests there
//! want a CPU without XSAVE, [`GUEST_CPU`].
//!
//! It also delivers an interrupt that VMRUN injects a second time when it is asked to leave its
//! loop just then: stacks overflow, in KVM's guest or in KVM itself. Only the machine's other
//! processors ask for that out of turn, so whoever wants results has it have one.

mod tree;
mod watch;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::bail;
use guests::{Kernel, Mode, add_modules, host, kernel};

use tree::Tree;

/// The CPU of guests in this machine, which loses XCR0.
pub const GUEST_CPU: &str = "portable,-xsave";
/// What a Linux guest needs on its command line where its CPU has XSAVE.
pub const GUEST_CMDLINE: &str = "noxsave";
/// Exit code of [`Machine::run`] when the command was not over in time.
pub const EXIT_TIMEOUT: i32 = 124;
/// Exit code of [`Machine::run`] when the command never ran to its end.
pub const EXIT_BROKEN: i32 = 125;
/// Debian packages the machine is made of.
pub const PACKAGES: &[&str] = &["qemu-system-x86", "busybox-static", "xz-utils"];

/// The machine, and what it runs.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Files the command uses: copied to `/job`, or to DESTINATION in `SOURCE:DESTINATION`.
    pub files: Vec<String>,
    /// An image that is `/dev/vda` there; what is written to it is lost.
    pub disk: Option<PathBuf>,
    /// Processors.
    pub cpus: u32,
    /// Memory, in MiB.
    pub memory: u32,
    /// How long the command may take.
    pub timeout: Duration,
    /// One instruction a nanosecond of the machine's clock: times are instruction counts then.
    pub count_instructions: bool,
    /// Where its own console goes.
    pub console: Option<PathBuf>,
    /// The command; a program of this machine, named with a path, is copied.
    pub command: Vec<String>,
}

impl Machine {
    /// A small one.
    pub fn new(command: Vec<String>) -> Self {
        Self {
            files: Vec::new(),
            disk: None,
            cpus: 1,
            memory: 2048,
            timeout: Duration::from_secs(600),
            count_instructions: false,
            console: None,
            command,
        }
    }

    /// Runs the command, and hands on its output line by line. Returns its exit code, or
    /// [`EXIT_TIMEOUT`] or [`EXIT_BROKEN`], after the end of the machine's own console as output.
    ///
    /// # Errors
    /// When the machine cannot be made.
    pub fn run(&self, output: &mut dyn FnMut(&str)) -> anyhow::Result<i32> {
        let mark = format!("NESTED-{}", unique());
        let kernel = kernel("cloud")?;
        let dir = host::cache("nested")?;
        let initramfs = dir.join(format!("{mark}.cpio"));
        fs::write(&initramfs, self.archive(&kernel, &mark)?)?;
        let console = self.console.clone().unwrap_or_else(|| dir.join(format!("{mark}.console")));
        let mut qemu = self.qemu(&kernel.image, &initramfs, &console);
        let done = watch::watch(&mut qemu, &mark, self.timeout, output);
        fs::remove_file(&initramfs)?;
        let code = done?;
        if code == EXIT_TIMEOUT || code == EXIT_BROKEN {
            output("the end of the nested machine's console:\n");
            let text = String::from_utf8_lossy(&fs::read(&console)?).into_owned();
            let lines: Vec<_> = text.lines().collect();
            let tail = lines.iter().skip(lines.len().saturating_sub(25));
            tail.for_each(|line| output(&format!("{line}\n")));
        }
        if self.console.is_none() {
            fs::remove_file(&console)?;
        }
        Ok(code)
    }

    fn qemu(&self, kernel: &Path, initramfs: &Path, console: &Path) -> Command {
        let mut qemu = Command::new("qemu-system-x86_64");
        // A `rep movsb` counts an instruction a byte: without these, the kernel copies words.
        let copies = if self.count_instructions { ",-erms,-fsrm" } else { "" };
        qemu.args(["-machine", "q35", "-cpu", &format!("max,+svm{copies}"), "-accel"])
            .arg(if self.cpus > 1 { "tcg,thread=multi" } else { "tcg" })
            .args(["-smp", &self.cpus.to_string(), "-m", &self.memory.to_string()])
            .args(["-nodefaults", "-no-user-config", "-display", "none"])
            .args(["-no-reboot", "-nic", "none"])
            .arg("-kernel")
            .arg(kernel)
            .arg("-initrd")
            .arg(initramfs)
            .args([
                "-append",
                "console=ttyS0 panic=-1 nokaslr tsc=reliable no_timer_check mitigations=off",
            ])
            .arg("-serial")
            .arg(format!("file:{}", console.display()))
            .args(["-serial", "stdio"]);
        if let Some(disk) = &self.disk {
            let drive = format!("if=virtio,format=raw,snapshot=on,file={}", disk.display());
            qemu.args(["-drive", &drive]);
        }
        if self.count_instructions {
            qemu.args(["-icount", "shift=0,sleep=off,align=off"]);
        }
        qemu
    }

    /// The root file system.
    fn archive(&self, kernel: &Kernel, mark: &str) -> anyhow::Result<Vec<u8>> {
        let mut tree = Tree::new();
        for dir in ["bin", "dev", "proc", "sys", "tmp", "run", "etc", "root", "job", "modules"] {
            tree.folder(Path::new(dir))?;
        }
        tree.copy(Path::new("/bin/busybox"), Path::new("bin/busybox"))?;
        tree.archive.add("bin/sh", Mode::LINK, b"busybox")?;
        tree.archive.add("init", Mode::PROGRAM, init(mark).as_bytes())?;
        add_modules(&mut tree.archive, kernel, &["kvm_amd", "virtio_pci", "virtio_blk"])?;
        let mut words = self.command.clone();
        if let Some(first) = words.first_mut()
            && let Some(program) = program(first)?
        {
            *first = format!("/job/{}", name(&program));
            tree.program(&program, Path::new(first))?;
        }
        for file in &self.files {
            let (source, destination) = file.split_once(':').unwrap_or((file, ""));
            let source = Path::new(source);
            let destination = match destination {
                "" => Path::new("job").join(name(source)),
                path => PathBuf::from(path),
            };
            tree.program(source, &destination)?;
        }
        let quoted = words.iter().map(|w| format!("'{}'", w.replace('\'', "'\\''")));
        let job = format!("exec {}\n", quoted.collect::<Vec<_>>().join(" "));
        tree.archive.add("job/command", Mode::FILE, job.as_bytes())?;
        Ok(tree.archive.finish()?)
    }
}

/// Whether this machine can make such a machine, or the reason why not.
pub fn is_possible() -> Result<(), String> {
    let found = |program: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
    };
    match ["qemu-system-x86_64", "busybox", "xz"].iter().find(|program| !found(program)) {
        Some(missing) => Err(format!("there is no {missing} to make a nested machine with")),
        None => Ok(()),
    }
}

/// Names what is made for one run: tests run some at the same time.
fn unique() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static RUNS: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed))
}

/// The host's program a command names, if it is not one of busybox's.
fn program(word: &str) -> anyhow::Result<Option<PathBuf>> {
    if word.contains('/') {
        let path = PathBuf::from(word);
        return if path.is_file() { Ok(Some(path)) } else { bail!("there is no program {word}") };
    }
    Ok(None)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn init(mark: &str) -> String {
    format!(
        "#!/bin/sh\n\
         export PATH=/bin HOME=/root RUST_BACKTRACE=0\n\
         /bin/busybox --install -s /bin\n\
         mount -t proc proc /proc\n\
         mount -t sysfs sysfs /sys\n\
         mount -t devtmpfs dev /dev\n\
         mkdir -p /dev/pts /dev/shm\n\
         mount -t devpts pts /dev/pts\n\
         mount -t tmpfs shm /dev/shm\n\
         mount -t tmpfs -o size=90% tmp /tmp\n\
         ln -s /proc/self/fd /dev/fd\n\
         ip link set lo up\n\
         for m in $(cat /modules/order); do insmod /modules/$m; done\n\
         cd /job\n\
         stty -F /dev/ttyS1 raw -echo\n\
         echo {mark} BEGIN > /dev/ttyS1\n\
         sh /job/command > /dev/ttyS1 2>&1 < /dev/null\n\
         echo {mark} END $? > /dev/ttyS1\n\
         sleep 0.2\n\
         poweroff -f\n"
    )
}
