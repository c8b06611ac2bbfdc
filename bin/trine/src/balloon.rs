//! A VM's memory balloon.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use vmm_rpc::{BalloonRequest, BalloonStatus, Client, Reply, Request};

use crate::control::Target;

/// How long a guest takes to say how its memory is.
const MOMENT: Duration = Duration::from_millis(300);

#[derive(Args)]
pub struct BalloonOptions {
    #[command(flatten)]
    target: Target,
    /// What the guest shall do without, with its unit: 512M, or 0
    size: Option<Size>,
    /// Have the guest give all memory back that is free now
    #[arg(long)]
    reclaim: bool,
    /// For programs: as JSON
    #[arg(long)]
    json: bool,
}

/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(u64);

impl Size {
    /// How many.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let number: u64 = number.parse().map_err(|_| "give a number and its unit, as in 512M")?;
        let shift = match unit.strip_suffix("iB").unwrap_or(unit) {
            "K" | "k" => 10,
            "M" => 20,
            "G" => 30,
            "" if number == 0 => 0,
            _ => return Err("the unit is K, M or G"),
        };
        number.checked_mul(1 << shift).map(Self).ok_or("too large for any machine")
    }
}

/// Does what is asked, and says how the balloon is.
pub fn balloon(options: BalloonOptions) -> anyhow::Result<()> {
    let mut client = Client::connect(options.target.control())?;
    let target_bytes = options.size.map(|Size(bytes)| bytes);
    ask(&mut client, BalloonRequest { target_bytes, reclaim: options.reclaim })?;
    std::thread::sleep(MOMENT);
    let status = ask(&mut client, BalloonRequest::default())?;
    if options.json {
        println!("{}", serde_json::to_string_pretty(&status).context("cannot show the balloon")?);
    } else {
        print!("{}", table(&status));
    }
    Ok(())
}

fn ask(client: &mut Client, request: BalloonRequest) -> anyhow::Result<BalloonStatus> {
    match client.ask(&Request::Balloon(request))? {
        Reply::Balloon(status) => Ok(status),
        Reply::Refused { message, .. } => bail!("{message}"),
        other => bail!("the VM answers something else: {other:?}"),
    }
}

fn table(status: &BalloonStatus) -> String {
    let mib = |bytes: u64| format!("{} MiB", bytes >> 20);
    let said = |bytes: Option<u64>| bytes.map_or_else(|| "not said".to_owned(), mib);
    let rows = [
        ("target", mib(status.target_bytes)),
        ("balloon", mib(status.actual_bytes)),
        ("memory", mib(status.memory_bytes)),
        ("on the host", mib(status.resident_bytes)),
        ("given back", format!("{} in all", mib(status.released_bytes))),
        ("free", said(status.free_bytes)),
        ("available", said(status.available_bytes)),
        ("caches", said(status.cache_bytes)),
        ("swapped out", said(status.swapped_out_bytes)),
    ];
    rows.iter().map(|(name, value)| format!("{name:12} {value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_but_for_nothing() {
        assert_eq!(("512M".parse(), "0".parse()), (Ok(Size(512 << 20)), Ok(Size(0))));
        for bad in ["", "12", "M", "-1M", "99999999999999G", "1X"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
    }
}
