//! `powercut KILLS [SEED]`, and, for itself, `powercut write IMAGE FIRST`.

use std::path::Path;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["write", image, first] => powercut::write(Path::new(image), first.parse()?),
        [kills] => told(kills, "1"),
        [kills, seed] => told(kills, seed),
        _ => anyhow::bail!("usage: powercut KILLS [SEED]"),
    }
}

fn told(kills: &str, seed: &str) -> anyhow::Result<()> {
    let summary = powercut::run(&std::env::current_exe()?, kills.parse()?, seed.parse()?)?;
    println!("{summary:?}");
    Ok(())
}
