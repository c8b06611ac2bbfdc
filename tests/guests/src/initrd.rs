//! An initial RAM disk: Debian's static busybox and a first process of ours.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use crate::Kernel;
use crate::cpio::{Archive, Mode};
use crate::host;

/// What the first process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// Says that it is up, and gives a shell on the serial console.
    Shell,
    /// Says that it is up, and powers off.
    PowerOff,
    /// Says that it is up, and reboots.
    Reboot,
    /// Says that it is up, runs the program `guest_work` with the first virtio disk, and powers off
    /// at its end.
    Work,
    /// Says that it is up, runs the basket's rows for disks with the first virtio disk, and powers off.
    DiskLoad,
    /// Makes the first virtio disk the root, and starts its init. A workshop gets the modules, to load
    /// them again.
    SwitchRoot,
    /// Makes the first virtio disk the root, says that it is up, and gives a shell there on the
    /// serial console. There is no udev and no service.
    RootShell,
    /// Says that it is up before it does anything else, and sleeps.
    Line,
}

/// The line that says that user space is there.
pub const UP: &str = "TRINE-GUEST-UP";

impl Init {
    fn name(self) -> &'static str {
        match self {
            Self::Shell => "shell",
            Self::PowerOff => "poweroff",
            Self::Reboot => "reboot",
            Self::Work => "work",
            Self::DiskLoad => "disk-load",
            Self::SwitchRoot => "root",
            Self::RootShell => "root-shell",
            Self::Line => "line",
        }
    }

    fn script(self) -> String {
        let last = match self {
            Self::Shell => {
                "echo; echo 'This is Debian’s own kernel in a Trine VM. poweroff ends it.'\n\
                 exec setsid cttyhack sh -l"
                    .to_owned()
            }
            Self::PowerOff => "poweroff -f".to_owned(),
            Self::Reboot => "reboot -f".to_owned(),
            // The console's own echo would be output that the work knows nothing of.
            Self::Work => "while ! [ -b /dev/vda ]; do sleep 0.05; done\n\
                 stty -echo\n\
                 guest_work\n\
                 poweroff -f"
                .to_owned(),
            Self::DiskLoad => "while ! [ -b /dev/vda ]; do sleep 0.05; done\n\
                 basket --disk /dev/vda $BASKET\n\
                 poweroff -f"
                .to_owned(),
            Self::SwitchRoot => "while ! [ -b /dev/vda ]; do sleep 0.05; done\n\
                 mount -t ext4 /dev/vda /mnt\n\
                 [ -d /mnt/stress ] && cp -r /modules /mnt/stress/loaded\n\
                 exec switch_root /mnt /sbin/init"
                .to_owned(),
            Self::RootShell => "while ! [ -b /dev/vda ]; do sleep 0.05; done\n\
                 mount -t ext4 /dev/vda /mnt\n\
                 for d in dev proc sys; do mount -o bind /$d /mnt/$d; done\n\
                 mount -t tmpfs run /mnt/run\n\
                 export PATH=/usr/sbin:/usr/bin:/sbin:/bin\n\
                 exec /bin/setsid /bin/cttyhack /bin/chroot /mnt /bin/sh"
                .to_owned(),
            Self::Line => return format!("#!/bin/sh\necho {UP}\nexec /bin/busybox sleep 1000\n"),
        };
        format!(
            "#!/bin/sh\n\
             export PATH=/bin HOME=/ PS1='guest# '\n\
             /bin/busybox --install -s /bin\n\
             mount -t proc proc /proc\n\
             mount -t sysfs sysfs /sys\n\
             mount -t devtmpfs dev /dev\n\
             for m in $(cat /modules/order); do insmod /modules/$m; done\n\
             echo {UP} $(uname -r) $(nproc) $(cut -d' ' -f1 /proc/uptime)\n\
             {last}\n"
        )
    }
}

/// Builds the RAM disk, with these modules of the kernel and what they depend on loaded.
pub fn initrd(kernel: &Kernel, modules: &[&str], init: Init) -> anyhow::Result<PathBuf> {
    let _lock = host::builder_lock()?;
    host::need_packages(&["busybox-static", "xz-utils"])?;
    let version = kernel.modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let tag = if modules.is_empty() { String::new() } else { format!("-{}", modules.join("+")) };
    let path = host::cache("initrds")?.join(format!("{version}-{}{tag}.cpio", init.name()));
    let mut archive = Archive::new(Vec::new());
    for dir in ["bin", "dev", "proc", "sys", "tmp", "mnt", "modules"] {
        archive.add(dir, Mode::DIRECTORY, &[])?;
    }
    let busybox = fs::read("/bin/busybox").context("busybox-static has no /bin/busybox")?;
    archive.add("bin/busybox", Mode::PROGRAM, &busybox)?;
    archive.add("bin/sh", Mode::LINK, b"busybox")?;
    archive.add("init", Mode::PROGRAM, init.script().as_bytes())?;
    let program = match init {
        Init::Work => Some("guest_work"),
        Init::DiskLoad => Some("basket"),
        _ => None,
    };
    if let Some(program) = program {
        let bytes = fs::read(host::static_program(program)?)?;
        archive.add(&format!("bin/{program}"), Mode::PROGRAM, &bytes)?;
    }
    add_modules(&mut archive, kernel, modules)?;
    // Another test may have the file open.
    let partial = path.with_extension("partial");
    fs::write(&partial, archive.finish()?)?;
    fs::rename(&partial, &path)?;
    Ok(path)
}

/// Adds modules with what they depend on, and `modules/order`, which names them in load order. The
/// archive has the folder.
pub fn add_modules(
    archive: &mut Archive<Vec<u8>>,
    kernel: &Kernel,
    modules: &[&str],
) -> anyhow::Result<()> {
    let mut order = Vec::new();
    for module in modules {
        add_module(archive, kernel, module, &mut order)?;
    }
    Ok(archive.add("modules/order", Mode::FILE, order.join("\n").as_bytes())?)
}

/// Adds a module after those it depends on, which its own `.modinfo` section names.
fn add_module(
    archive: &mut Archive<Vec<u8>>,
    kernel: &Kernel,
    name: &str,
    order: &mut Vec<String>,
) -> anyhow::Result<()> {
    let name = name.replace('-', "_");
    let file = format!("{name}.ko");
    if order.contains(&file) {
        return Ok(());
    }
    let Some(path) = module_path(kernel, &name)? else {
        let builtin = fs::read_to_string(kernel.modules.join("modules.builtin"))?;
        let is_builtin = builtin.replace('-', "_").contains(&format!("/{name}.ko"));
        return is_builtin
            .then_some(())
            .with_context(|| format!("the kernel has no module {name}"));
    };
    let bytes = match path.extension().and_then(|e| e.to_str()) {
        Some("xz") => {
            let unpacked = Command::new("xz").arg("-dc").arg(&path).output()?;
            unpacked.stdout
        }
        _ => fs::read(&path)?,
    };
    for dependency in depends(&bytes) {
        add_module(archive, kernel, &dependency, order)?;
    }
    archive.add(&format!("modules/{file}"), Mode::FILE, &bytes)?;
    order.push(file);
    Ok(())
}

fn module_path(kernel: &Kernel, name: &str) -> anyhow::Result<Option<PathBuf>> {
    let mut folders = vec![kernel.modules.join("kernel")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            let stem = path.file_name().unwrap_or_default().to_string_lossy().replace('-', "_");
            if path.is_dir() {
                folders.push(path);
            } else if stem.split(".ko").next() == Some(name) {
                return Ok(Some(path));
            }
        }
    }
    Ok(None)
}

fn depends(module: &[u8]) -> Vec<String> {
    let strings = module.split(|byte| *byte == 0);
    let named = strings.filter_map(|s| s.strip_prefix(b"depends="));
    let names = named.flat_map(|list| list.split(|byte| *byte == b',')).filter(|n| !n.is_empty());
    names.map(|name| String::from_utf8_lossy(name).into_owned()).collect()
}
