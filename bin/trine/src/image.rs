//! `trine image`: the store of disk images.

use std::io::{IsTerminal, stdin, stdout};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand, ValueEnum};
use evloop::{Signal, Signals};
use image_build::{DebianSpec, Kernel};
use images::{Format, Image, Name, Source, Store};

use crate::daemon::{Client, Where};
use crate::nouns::human;
use crate::progress::Display;

#[derive(Subcommand)]
pub enum Command {
    /// List the images
    Ls(Shown),
    /// Say what an image is
    Info(InfoOptions),
    /// Bring a disk in: raw, qcow2, VMDK, VHDX or OVA
    Import(ImportOptions),
    /// Copy an image's disk into a new file
    Export(ExportOptions),
    /// Remove images
    Rm(RmOptions),
    /// Send a disk to the daemon, as an image of its own
    Upload(UploadOptions),
    /// Get the disk of an image of the daemon's, as a raw file
    Download(DownloadOptions),
    /// Make an image from packages
    #[command(subcommand)]
    Build(Build),
}

#[derive(Subcommand)]
pub enum Build {
    /// A Debian that boots from BIOS and UEFI, with cloud-init, an SSH server and the guest agent
    Debian(DebianOptions),
}

#[derive(Args)]
pub struct Shown {
    /// How to show it
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

#[derive(Args)]
pub struct InfoOptions {
    /// The image
    name: Name,
    /// Read the whole disk and compare it with the image's ID
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    shown: Shown,
}

#[derive(Args)]
pub struct ImportOptions {
    /// The file or block device, or - for the standard input
    source: PathBuf,
    /// What the image is called; without one, as the file without its ending
    name: Option<Name>,
    /// The format, instead of what the file's bytes say: raw, qcow2, vmdk, vhdx or ova
    #[arg(long)]
    format: Option<Format>,
    /// Replace an image of that name
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    shown: Shown,
}

#[derive(Args)]
pub struct ExportOptions {
    /// The image
    name: Name,
    /// The file, which is made
    file: PathBuf,
    /// Its format: raw, qcow2, vmdk or vhdx
    #[arg(long, default_value = "raw")]
    format: Format,
}

#[derive(Args)]
pub struct UploadOptions {
    /// The file: raw, qcow2, VMDK, VHDX or OVA; - is the standard input
    file: PathBuf,
    /// What the image is called; without one, as the file without its ending
    name: Option<Name>,
    #[command(flatten)]
    to: Where,
    /// The format, instead of what the file's bytes say: raw, qcow2, vmdk, vhdx or ova
    #[arg(long)]
    format: Option<Format>,
    /// Replace an image of that name
    #[arg(long)]
    force: bool,
}

#[derive(Args)]
pub struct DownloadOptions {
    /// The image
    name: Name,
    /// The file, which is made; - is the standard output
    file: PathBuf,
    #[command(flatten)]
    to: Where,
}

#[derive(Args)]
pub struct RmOptions {
    /// The images
    #[arg(required = true)]
    names: Vec<Name>,
}

#[derive(Args)]
pub struct DebianOptions {
    /// The release
    #[arg(long, default_value = "bookworm")]
    suite: String,
    /// What the image is called; without one, debian-SUITE
    #[arg(long)]
    name: Option<Name>,
    /// Size of the disk; its root grows where the disk does
    #[arg(long, default_value = "4G", value_parser = size)]
    size: u64,
    /// A package to install; repeat for more
    #[arg(long = "package", value_name = "PACKAGE")]
    packages: Vec<String>,
    /// Which kernel: cloud has the drivers of VMs, amd64 all
    #[arg(long, value_enum, default_value_t = Flavour::Cloud)]
    kernel: Flavour,
    /// Where packages come from, now and in the guest
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Replace an image of that name
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    shown: Shown,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Flavour {
    Cloud,
    Amd64,
}

/// Does it.
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Upload(options) => return upload(&options),
        Command::Download(options) => return download(&options),
        _ => {}
    }
    let store = Store::of_user()?;
    match command {
        Command::Upload(_) | Command::Download(_) => Ok(()),
        Command::Ls(shown) => list(&store.list()?, shown.output),
        Command::Info(options) => info(&store, &options),
        Command::Import(options) => import(&store, &options),
        Command::Export(options) => export(&store, &options),
        Command::Rm(options) => Ok(options.names.iter().try_for_each(|name| store.remove(name))?),
        Command::Build(Build::Debian(options)) => build(&store, options),
    }
}

fn info(store: &Store, options: &InfoOptions) -> anyhow::Result<()> {
    let image = store.find(&options.name)?;
    if options.verify {
        let display = Display::new("verifying");
        store.verify(&image, &mut |done, of| display.bytes(done, of))?;
    }
    show(&image, options.shown.output)
}

fn import(store: &Store, options: &ImportOptions) -> anyhow::Result<()> {
    let from_stdin = options.source == Path::new("-");
    let how = "trine image import - NAME";
    let name = name_of(&options.source, options.name.as_ref(), how)?;
    if from_stdin && stdin().is_terminal() {
        bail!("the standard input is a terminal: give a file, or send a disk through a pipe");
    }
    let mut input = stdin();
    let source =
        if from_stdin { Source::Stream(&mut input) } else { Source::Path(&options.source) };
    let display = Display::new("importing");
    let image =
        images::import(store, source, &name, options.format, options.force, &mut |done, of| {
            display.bytes(done, of);
        })?;
    drop(display);
    show(&image, options.shown.output)
}

/// What an image is called that is made of this file.
fn name_of(file: &Path, name: Option<&Name>, how: &str) -> anyhow::Result<Name> {
    match name {
        Some(name) => Ok(name.clone()),
        None if file == Path::new("-") => bail!("say what the image is to be called: {how}"),
        None => {
            let stem = file.file_stem().unwrap_or_default().to_string_lossy();
            stem.parse().context("give the image a name after the file's")
        }
    }
}

fn upload(options: &UploadOptions) -> anyhow::Result<()> {
    let name = name_of(&options.file, options.name.as_ref(), "trine image upload - NAME")?;
    let format = options.format.map(|format| format!("&format={format}")).unwrap_or_default();
    let path = format!("/v1/images?name={name}&replace={}{format}", options.force);
    let mut client = Client::connect(&options.to)?;
    let image = crate::disk::upload(&mut client, &path, &options.file)?;
    print(&format!("{}\n", image["name"].as_str().unwrap_or_default()))
}

fn download(options: &DownloadOptions) -> anyhow::Result<()> {
    let mut client = Client::connect(&options.to)?;
    let path = format!("/v1/images/{}/content", options.name);
    if options.file == Path::new("-") {
        return client.download(&path, &mut stdout());
    }
    let made = std::fs::File::options().write(true).create_new(true).open(&options.file);
    let mut file = made.with_context(|| format!("cannot make {}", options.file.display()))?;
    client.download(&path, &mut file).inspect_err(|_| {
        // Half a disk is none.
        let _ = std::fs::remove_file(&options.file);
    })
}

fn export(store: &Store, options: &ExportOptions) -> anyhow::Result<()> {
    let image = store.find(&options.name)?;
    let display = Display::new("exporting");
    let mut progress = |done, of| display.bytes(done, of);
    Ok(images::export(&image, &options.file, options.format, &mut progress)?)
}

fn build(store: &Store, options: DebianOptions) -> anyhow::Result<()> {
    let name = match options.name {
        Some(name) => name,
        None => format!("debian-{}", options.suite).parse()?,
    };
    if !options.force && store.find(&name).is_ok() {
        return Err(images::ImageError::Exists(name.to_string()).into());
    }
    let spec = DebianSpec {
        suite: options.suite,
        size_bytes: options.size,
        packages: options.packages,
        kernel: match options.kernel {
            Flavour::Cloud => Kernel::Cloud,
            Flavour::Amd64 => Kernel::General,
        },
        mirror: options.mirror,
    };
    // Ctrl-C ends the program that is at work, too, and we tidy up after it.
    let signals = [Signal::Int, Signal::Quit, Signal::Hup];
    let _held = Signals::take_over(&signals).context("cannot take signals over")?;
    let display = Display::new("preparing");
    let partial = store.partial()?;
    image_build::build(&spec, partial.file(), &mut |step| display.step(step))?;
    display.step("storing");
    let source = format!("Debian {}, from packages", spec.suite);
    let image = partial.commit(&name, &source, options.force, &mut |_, _| ())?;
    display.step("done");
    drop(display);
    show(&image, options.shown.output)
}

fn list(images: &[Image], output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return print_json(images);
    }
    let mut rows = vec![["NAME", "ID", "SIZE", "USED", "CREATED", "FROM"].map(str::to_owned)];
    rows.extend(images.iter().map(|image| {
        [
            image.name.to_string(),
            image.id.to_string()[..12].to_owned(),
            human(image.size_bytes),
            human(image.used_bytes),
            image.created.strftime("%Y-%m-%d %H:%M").to_string(),
            image.source.clone(),
        ]
    }));
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}  "));
        print(&format!("{}\n", cells.collect::<String>().trim_end()))?;
    }
    Ok(())
}

fn show(image: &Image, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return print_json(image);
    }
    let rows = [
        ("name", image.name.to_string()),
        ("ID", image.id.to_string()),
        ("size", human(image.size_bytes)),
        ("used", human(image.used_bytes)),
        ("created", image.created.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        ("from", image.source.clone()),
        ("disk", image.path.display().to_string()),
    ];
    print(&rows.iter().map(|(name, value)| format!("{name:8} {value}\n")).collect::<String>())
}

fn print_json<T: serde::Serialize + ?Sized>(value: &T) -> anyhow::Result<()> {
    print(&(serde_json::to_string_pretty(value).context("cannot show it")? + "\n"))
}

/// To a reader who has gone, there is nothing to say.
fn print(text: &str) -> anyhow::Result<()> {
    match std::io::Write::write_all(&mut stdout(), text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write"),
    }
}

fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("'{text}' is not a size: give a number and M, G or T");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let shift = match unit {
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(1 << shift).filter(|bytes| *bytes <= 1 << 50).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown_with_units() {
        assert_eq!((size("4G"), size("512M")), (Ok(4 << 30), Ok(512 << 20)));
        for bad in ["", "G", "4", "4g", "-4G", "99999999999T", "4ü"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        let shown = [4 << 30, 500 << 20, 1536, 1000, 0].map(human);
        assert_eq!(shown, ["4G", "500M", "1.5K", "1000", "0"]);
    }
}
