//! Lists the files of the web UI, if it has been built, for `src/files.rs` to embed.
//!
//! They are copied first: whoever builds the UI anew takes them away, and the compiler reads them later.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

fn main() -> io::Result<()> {
    // It is always there, so that cargo sees when something comes into it.
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ui/dist");
    println!("cargo::rerun-if-changed={}", built.display());
    let out = std::env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo sets OUT_DIR"))?;
    let (out, root) = (PathBuf::from(out), built.join("web"));
    let copies = out.join("web");
    if copies.exists() {
        fs::remove_dir_all(&copies)?;
    }
    let mut names = Vec::new();
    if root.join("index.html").is_file() {
        copy(&root, &copies, "", &mut names)?;
    }
    names.sort();
    let bytes = |name: &str| format!("include_bytes!(concat!(env!(\"OUT_DIR\"), \"/web{name}\"))");
    let packed = |name: &str, kind: &str| match names.contains(&format!("{name}.{kind}")) {
        true => format!("Some({})", bytes(&format!("{name}.{kind}"))),
        false => "None".to_owned(),
    };
    let mut text = String::from("&[\n");
    for name in names.iter().filter(|name| !name.ends_with(".br") && !name.ends_with(".gz")) {
        let (plain, brotli, gzip) = (bytes(name), packed(name, "br"), packed(name, "gz"));
        let _ = writeln!(
            text,
            "File {{ path: \"{name}\", plain: {plain}, brotli: {brotli}, gzip: {gzip} }},"
        );
    }
    text.push(']');
    fs::write(out.join("files.rs"), text)
}

/// Copies a folder, and notes down paths in it as they are served.
fn copy(from: &Path, to: &Path, at: &str, names: &mut Vec<String>) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| io::Error::other(format!("{}: no name", path.display())))?;
        let (to, at) = (to.join(name), format!("{at}/{name}"));
        if path.is_dir() {
            copy(&path, &to, &at, names)?;
        } else {
            fs::copy(&path, &to)?;
            names.push(at);
        }
    }
    Ok(())
}
