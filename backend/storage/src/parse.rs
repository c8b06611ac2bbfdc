//! The text form of [`DiskOptions`]: `PATH[,OPTION]…`.

use std::path::PathBuf;
use std::str::FromStr;

use crate::{DiskOptions, Format, Rate};

impl DiskOptions {
    /// Takes one option in; false when it is none of ours.
    fn set(&mut self, option: &str) -> Result<bool, String> {
        let told = |error: &str| format!("'{option}': {error}");
        let rate = |to: &mut Option<Rate>, value: &str| {
            *to = Some(value.parse().map_err(told)?);
            Ok(true)
        };
        match option.split_once('=') {
            None if option == "ro" => self.read_only = true,
            None if option == "snapshot" => self.snapshot = true,
            Some(("format", value)) => self.format = Some(value.parse().map_err(told)?),
            Some(("cache", value)) => self.cache = value.parse().map_err(told)?,
            Some(("discard", "unmap")) => self.keep_discarded = false,
            Some(("discard", "ignore")) => self.keep_discarded = true,
            Some(("discard", _)) => return Err(told("give discard=unmap or discard=ignore")),
            Some(("backing", value)) => {
                let (format, path) = match value.split_once(':') {
                    Some(("raw", path)) => (Some(Format::Raw), path),
                    Some(("qcow2", path)) => (Some(Format::Qcow2), path),
                    _ => (None, value),
                };
                if path.is_empty() {
                    return Err(told("no file is named"));
                }
                self.backing.insert(0, (PathBuf::from(path), format));
            }
            Some(("iops", value)) => return rate(&mut self.limits.iops.total, value),
            Some(("iops-rd", value)) => return rate(&mut self.limits.iops.read, value),
            Some(("iops-wr", value)) => return rate(&mut self.limits.iops.write, value),
            Some(("bps", value)) => return rate(&mut self.limits.bps.total, value),
            Some(("bps-rd", value)) => return rate(&mut self.limits.bps.read, value),
            Some(("bps-wr", value)) => return rate(&mut self.limits.bps.write, value),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Reads the text form; options that are not known here go to `other`, which says whether it
    /// knows them. What nobody knows belongs to the path, which may have commas.
    ///
    /// # Errors
    /// What is wrong, in a sentence.
    pub fn parse(
        text: &str,
        mut other: impl FnMut(&str) -> Result<bool, String>,
    ) -> Result<Self, String> {
        let mut options = Self::default();
        let mut path = text;
        while let Some((before, option)) = path.rsplit_once(',') {
            if !options.set(option)? && !other(option)? {
                break;
            }
            path = before;
        }
        if path.is_empty() {
            return Err("no file is named".to_owned());
        }
        options.path = path.into();
        Ok(options)
    }
}

impl FromStr for DiskOptions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text, |_| Ok(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Cache;

    #[test]
    fn disks_are_paths_with_options_at_the_end() {
        let parse = |text: &str| text.parse::<DiskOptions>();
        assert_eq!(parse("a.img"), Ok(DiskOptions::new("a.img")));
        assert_eq!(
            parse("a,b.img,ro").map(|d| (d.path, d.read_only)),
            Ok(("a,b.img".into(), true))
        );
        let disk =
            parse("top.qcow2,backing=mid.qcow2,backing=raw:base,cache=none,iops=10k").unwrap();
        assert_eq!(disk.backing[0], ("mid.qcow2".into(), None));
        assert_eq!(disk.backing[1], ("base".into(), Some(Format::Raw)));
        assert_eq!((disk.cache, disk.limits.iops.total), (Cache::None, Some(Rate(10_000))));
        for bad in
            ["", ",ro", "a,format=vmdk", "a,cache=much", "a,iops=0", "a,backing=", "a,bps=1T"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
