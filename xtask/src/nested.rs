//! `cargo xtask nested -- COMMAND`: runs a command on a machine that has hardware virtualization,
//! whether or not this one has.
//!
//! QEMU's software emulation of an AMD processor with SVM boots Debian's cloud kernel, whose own
//! kvm-amd then makes a real `/dev/kvm`: everything that is the kernel's and not the processor's
//! is the real code. The command gets the files it names and the shared libraries it needs; its
//! output and exit code are ours.
//!
//! Nothing needs root, network (once the packages are there) or `/dev/kvm`.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use guests::{Archive, Mode, add_modules, host, kernel};

/// What to run, and where.
#[derive(Args)]
pub struct Options {
    /// A file the command uses: copied to /job, or to DESTINATION
    #[arg(long = "file", value_name = "SOURCE[:DESTINATION]")]
    files: Vec<String>,
    /// Processors of the machine
    #[arg(long, default_value_t = 1)]
    cpus: u32,
    /// Its memory, in MiB
    #[arg(long, default_value_t = 2048)]
    memory: u32,
    /// Seconds the command may take
    #[arg(long, default_value_t = 600)]
    timeout: u64,
    /// One instruction a nanosecond of the machine's clock: times are instruction counts then
    #[arg(long)]
    count_instructions: bool,
    /// Where the machine's own console goes
    #[arg(long)]
    console: Option<PathBuf>,
    /// The command; a program of this machine is copied
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// The command was not over in time.
const EXIT_TIMEOUT: i32 = 124;
/// The command never ran to its end.
const EXIT_BROKEN: i32 = 125;

const PACKAGES: &[&str] = &["qemu-system-x86", "busybox-static", "xz-utils"];

/// Prepares the machine and runs the command. Exits with the command's code when that is not 0.
pub fn run(options: &Options) -> anyhow::Result<()> {
    host::need_packages(PACKAGES)?;
    let mark = format!("NESTED-{}", std::process::id());
    let kernel = kernel("cloud")?;
    let dir = host::cache("nested")?;
    let initramfs = dir.join(format!("{mark}.cpio"));
    fs::write(&initramfs, archive(options, &kernel, &mark)?)?;
    let console = options.console.clone().unwrap_or_else(|| dir.join(format!("{mark}.console")));
    let mut machine = Command::new("qemu-system-x86_64");
    machine
        .args(["-machine", "q35", "-cpu", "max,+svm", "-accel"])
        .arg(if options.cpus > 1 { "tcg,thread=multi" } else { "tcg" })
        .args(["-smp", &options.cpus.to_string(), "-m", &options.memory.to_string()])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none"])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(&initramfs)
        .args([
            "-append",
            "console=ttyS0 panic=-1 nokaslr tsc=reliable no_timer_check mitigations=off",
        ])
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .args(["-serial", "stdio"]);
    if options.count_instructions {
        machine.args(["-icount", "shift=0,sleep=off,align=off"]);
    }
    let code = watch(&mut machine, &mark, Duration::from_secs(options.timeout))?;
    fs::remove_file(&initramfs)?;
    if code == EXIT_TIMEOUT || code == EXIT_BROKEN {
        eprintln!("xtask: the end of the nested machine's console:");
        let text = String::from_utf8_lossy(&fs::read(&console)?).into_owned();
        let lines: Vec<_> = text.lines().collect();
        lines.iter().skip(lines.len().saturating_sub(25)).for_each(|line| eprintln!("{line}"));
    }
    if options.console.is_none() {
        fs::remove_file(&console)?;
    }
    if code == 0 { Ok(()) } else { std::process::exit(code) }
}

/// The root file system.
fn archive(options: &Options, kernel: &guests::Kernel, mark: &str) -> anyhow::Result<Vec<u8>> {
    let mut tree = Tree { archive: Archive::new(Vec::new()), made: Vec::new() };
    for dir in ["bin", "dev", "proc", "sys", "tmp", "run", "etc", "root", "job", "modules"] {
        tree.folder(Path::new(dir))?;
    }
    tree.copy(Path::new("/bin/busybox"), Path::new("bin/busybox"))?;
    tree.archive.add("bin/sh", Mode::LINK, b"busybox")?;
    tree.archive.add("init", Mode::PROGRAM, init(mark).as_bytes())?;
    add_modules(&mut tree.archive, kernel, &["kvm_amd"])?;
    let mut words = options.command.clone();
    if let Some(program) = program(&words[0])? {
        words[0] = format!("/job/{}", name(&program));
        tree.program(&program, Path::new(&words[0]))?;
    }
    for file in &options.files {
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
         echo {mark} BEGIN > /dev/ttyS1\n\
         sh /job/command > /dev/ttyS1 2>&1 < /dev/null\n\
         echo {mark} END $? > /dev/ttyS1\n\
         sleep 0.2\n\
         poweroff -f\n"
    )
}

/// An archive, and which folders it has.
struct Tree {
    archive: Archive<Vec<u8>>,
    made: Vec<PathBuf>,
}

impl Tree {
    fn folder(&mut self, path: &Path) -> anyhow::Result<()> {
        if path.as_os_str().is_empty() || self.made.iter().any(|made| made == path) {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.folder(parent)?;
        }
        self.made.push(path.to_owned());
        Ok(self.archive.add(&path.to_string_lossy(), Mode::DIRECTORY, &[])?)
    }

    /// Copies a file to a path, unless something is there.
    fn copy(&mut self, from: &Path, to: &Path) -> anyhow::Result<()> {
        let to = to.strip_prefix("/").unwrap_or(to);
        if self.made.iter().any(|made| made == to) {
            return Ok(());
        }
        self.folder(to.parent().unwrap_or(Path::new("")))?;
        self.made.push(to.to_owned());
        let content = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        Ok(self.archive.add(&to.to_string_lossy(), Mode::PROGRAM, &content)?)
    }

    /// Copies a file, and the shared libraries it needs if it is a program.
    fn program(&mut self, from: &Path, to: &Path) -> anyhow::Result<()> {
        self.copy(from, to)?;
        // Fails for what is no program, and for what is linked statically.
        let listed = host::output(Command::new("ldd").arg(from)).unwrap_or_default();
        for library in libraries(&listed) {
            self.copy(Path::new(library), Path::new(library))?;
        }
        Ok(())
    }
}

/// The paths in ldd's lines: "name => path (address)", and "path (address)" for the loader.
fn libraries(listed: &str) -> impl Iterator<Item = &str> {
    listed.lines().filter_map(|line| {
        let path = line.rsplit("=> ").next()?.trim().split(" (").next()?;
        path.starts_with('/').then_some(path)
    })
}

/// Runs the machine, prints what the command prints, and returns its exit code.
fn watch(machine: &mut Command, mark: &str, timeout: Duration) -> anyhow::Result<i32> {
    let mut running =
        machine.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().with_context(|| {
            format!("cannot start {}", OsStr::to_string_lossy(machine.get_program()))
        })?;
    let output = running.stdout.take().context("no output")?;
    let (tell, told) = mpsc::channel();
    let mark = mark.to_owned();
    thread::spawn(move || tell.send(show(BufReader::new(output), &mark)));
    let code = match told.recv_timeout(timeout) {
        Ok(code) => code?.unwrap_or(EXIT_BROKEN),
        Err(_) => EXIT_TIMEOUT,
    };
    stop(&mut running)?;
    Ok(code)
}

fn stop(running: &mut Child) -> anyhow::Result<()> {
    // It powers off by itself where all is well.
    for _ in 0..50 {
        if running.try_wait()?.is_some() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(100));
    }
    running.kill()?;
    running.wait()?;
    Ok(())
}

/// Prints what is between the two marks; the exit code is behind the second.
fn show(mut output: impl BufRead, mark: &str) -> anyhow::Result<Option<i32>> {
    let (begin, end) = (format!("{mark} BEGIN"), format!("{mark} END "));
    let mut on = false;
    let mut line = Vec::new();
    while {
        line.clear();
        output.read_until(b'\n', &mut line)?
    } > 0
    {
        let text = String::from_utf8_lossy(&line).replace('\r', "");
        if let Some(at) = text.find(&end) {
            print!("{}", &text[..at]);
            return Ok(text[at + end.len()..].trim().parse().ok());
        }
        if on {
            print!("{text}");
            std::io::stdout().flush()?;
        }
        on |= text.contains(&begin);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_counts() {
        let output = b"noise\r\nM BEGIN\r\nhello\r\nno newlineM END 3\r\nnoise\r\n";
        assert_eq!(show(&output[..], "M").unwrap(), Some(3));
        assert_eq!(show(&b"M BEGIN\r\nhello\r\n"[..], "M").unwrap(), None);
    }

    #[test]
    fn libraries_are_the_paths_ldd_lists() {
        let listed = "\tlinux-vdso.so.1 (0x7ffc)\n\tlibc.so.6 => /lib/libc.so.6 (0x7f)\n\t/lib64/ld.so (0x7f)\n";
        assert_eq!(libraries(listed).collect::<Vec<_>>(), ["/lib/libc.so.6", "/lib64/ld.so"]);
    }
}
