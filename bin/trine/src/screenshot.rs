//! `trine screenshot`: what a VM's screen shows, as a PNG file.

use std::fs::File;
use std::io::{BufWriter, Read};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use vmm_rpc::{Client, Reply, Request};

use crate::control::Target;

/// No screen is larger: what says otherwise is not believed.
const PIXELS_MAX: u64 = 64 << 20;

#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    target: Target,
    /// The file to write
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Asks for the picture and writes the file.
pub fn take(options: &Options) -> anyhow::Result<()> {
    let mut client = Client::connect(options.target.control())?;
    let (width, height, file) = match client.ask_for_file(&Request::Screenshot)? {
        (Reply::Screen { width, height }, Some(file)) => (width, height, file),
        (Reply::Refused { message, .. }, _) => bail!("{message}"),
        (other, _) => bail!("the VM answers with {other:?}"),
    };
    let count = u64::from(width) * u64::from(height);
    if count > PIXELS_MAX {
        bail!("the VM says that its screen has {width} by {height} pixels");
    }
    let mut pixels = Vec::new();
    let read = File::from(file).take(count * 4).read_to_end(&mut pixels);
    if read.context("cannot read the picture")? as u64 != count * 4 {
        bail!("the VM's picture is cut off");
    }
    let failed = || format!("cannot write {}", options.file.display());
    let out = BufWriter::new(File::create(&options.file).with_context(failed)?);
    let rgb: Vec<u8> =
        pixels.as_chunks::<4>().0.iter().flat_map(|[b, g, r, _]| [*r, *g, *b]).collect();
    let mut encoder = png::Encoder::new(out, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().with_context(failed)?;
    writer.write_image_data(&rgb).with_context(failed)?;
    writer.finish().with_context(failed)
}
