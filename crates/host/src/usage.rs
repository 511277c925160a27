//! What machines and the host use, as the kernel counts it.

use std::io;
use std::time::Duration;

use crate::api::{HostMemory, Usage};

/// Of /proc/<pid>/stat: fixed for user space on every Linux (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;
/// Fields of /proc/<pid>/stat after the command's name, counted from 0 (proc_pid_stat(5): 14 and 15 counted from 1).
const UTIME: usize = 11;
const STIME: usize = 12;

pub(crate) fn of_process(pid: i32) -> io::Result<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    cpu_time(&stat).map(|cpu| Usage { cpu }).ok_or_else(|| io::Error::other("/proc/<pid>/stat is not as documented"))
}

fn cpu_time(stat: &str) -> Option<Duration> {
    // The name may hold spaces and parentheses.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field)?.parse::<u64>().ok();
    Some(Duration::from_millis((ticks(UTIME)? + ticks(STIME)?) * 1000 / TICKS_PER_SECOND))
}

pub(crate) fn host_memory() -> io::Result<HostMemory> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    memory(&text).ok_or_else(|| io::Error::other("/proc/meminfo is not as documented"))
}

fn memory(text: &str) -> Option<HostMemory> {
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kib| kib * 1024)
    };
    Some(HostMemory { total_bytes: bytes("MemTotal")?, available_bytes: bytes("MemAvailable")? })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_name_cannot_confuse_the_count() {
        let stat = "7 (a) 1 (b) S 1 7 7 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 5";
        assert_eq!(cpu_time(stat), Some(Duration::from_secs(3)));
        assert_eq!(cpu_time("7 (a"), None);
    }

    #[test]
    fn this_machine_says_what_it_has() {
        let memory = host_memory().unwrap();
        assert!(memory.available_bytes > 0 && memory.available_bytes <= memory.total_bytes);
        of_process(i32::try_from(std::process::id()).unwrap()).unwrap();
    }
}
