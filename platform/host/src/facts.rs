//! What kind of host this is, and how busy.

use std::fs;

/// What does not change while the host runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its name.
    pub name: String,
    /// Its kernel and that's version.
    pub kernel: String,
    /// The model of its CPUs.
    pub cpu_model: String,
    /// CPUs that processes may run on.
    pub cpus: u32,
    /// RAM in bytes.
    pub memory_bytes: u64,
}

/// How busy it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Time that all its CPUs together have worked, in milliseconds.
    pub cpu_ms: u64,
    /// RAM that is in use and cannot be had at once, in bytes.
    pub memory_used_bytes: u64,
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

impl Facts {
    /// This host's.
    pub fn of_this_host() -> Self {
        let names = rustix::system::uname();
        let text = |name: &std::ffi::CStr| name.to_string_lossy().into_owned();
        let cpuinfo = read("/proc/cpuinfo");
        let model =
            cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        Self {
            name: text(names.nodename()),
            kernel: format!("{} {}", text(names.sysname()), text(names.release())),
            cpu_model: model.map(|(_, model)| model.to_owned()).unwrap_or_default(),
            cpus: std::thread::available_parallelism().map_or(1, |count| count.get() as u32),
            memory_bytes: memory("MemTotal:"),
        }
    }
}

impl Load {
    /// This host's, now.
    pub fn of_this_host() -> Self {
        // `proc_stat(5)`: user, nice, system, idle, iowait, irq, softirq, steal; guests are in the first two.
        let stat = read("/proc/stat");
        let all = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
        let ticks = all.take(8).enumerate().filter(|(at, _)| ![3, 4].contains(at));
        let ticks: u64 = ticks.filter_map(|(_, ticks)| ticks.parse::<u64>().ok()).sum();
        Self {
            cpu_ms: ticks * 1000 / rustix::param::clock_ticks_per_second(),
            memory_used_bytes: memory("MemTotal:").saturating_sub(memory("MemAvailable:")),
        }
    }
}

fn memory(what: &str) -> u64 {
    let all = read("/proc/meminfo");
    let value = all.lines().find_map(|line| line.strip_prefix(what)?.split_whitespace().next());
    value.and_then(|value| value.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_has_a_name_cpus_and_memory_of_which_some_is_used() {
        let facts = Facts::of_this_host();
        assert!(!facts.name.is_empty() && facts.cpus > 0 && facts.kernel.starts_with("Linux "));
        let load = Load::of_this_host();
        assert!(load.cpu_ms > 0 && load.memory_used_bytes > 0);
        assert!(load.memory_used_bytes < facts.memory_bytes);
    }
}
