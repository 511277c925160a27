//! What the guest says about itself.

use std::fs::{self, File};
use std::io::Read;
use std::{env, io};

use crate::json::Json;
use crate::sampler::{hex, unix_seconds};
use crate::server::Answer;
use crate::{Probe, network};

pub(crate) fn boot_id() -> Answer {
    Answer::json([("boot_id", text_of("/proc/sys/kernel/random/boot_id")), ("machine_id", text_of("/etc/machine-id"))])
}

pub(crate) fn hostname() -> Answer {
    Answer::json([("hostname", text_of("/proc/sys/kernel/hostname")), ("file", text_of("/etc/hostname"))])
}

/// `monotonic` counts from the start of the process, `uptime` from the start of the kernel.
pub(crate) fn clock(probe: &Probe) -> Answer {
    let uptime = fs::read_to_string("/proc/uptime").ok();
    let uptime = uptime.and_then(|text| text.split(' ').next().and_then(|seconds| seconds.parse().ok()));
    Answer::json([
        ("unix", Json::Float(unix_seconds())),
        ("monotonic", Json::Float(probe.started.elapsed().as_secs_f64())),
        ("uptime", uptime.map_or(Json::Null, Json::Float)),
    ])
}

pub(crate) fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

pub(crate) fn urandom() -> Answer {
    random_bytes::<64>().map_or_else(|error| Answer::failed(500, error), |bytes| Answer::json([("random", hex(&bytes).into())]))
}

/// How often each of them came, over all CPUs, by the last word of its line: the device, or what it is for.
pub(crate) fn interrupts() -> Answer {
    let text = fs::read_to_string("/proc/interrupts").unwrap_or_default();
    Answer::Json(200, Json::Object(interrupts_of(&text)))
}

fn interrupts_of(text: &str) -> Vec<(String, Json)> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        words.next().filter(|word| word.ends_with(':'))?;
        let counts: u64 = words.clone().map_while(|word| word.parse::<u64>().ok()).sum();
        Some((words.next_back()?.to_owned(), counts.into()))
    };
    text.lines().filter_map(line).collect()
}

pub(crate) fn environment() -> Answer {
    let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    Answer::Json(200, Json::Object(env::vars_os().map(|(name, value)| (lossy(name), lossy(value).into())).collect()))
}

/// Capabilities are the kernel's hexadecimal masks.
pub(crate) fn capabilities() -> Answer {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| -> Json { status_field(&status, name).into() };
    let number = |name: &str| -> Json { status_field(&status, name).and_then(|text| text.parse::<u64>().ok()).into() };
    Answer::json([
        ("uid", number("Uid")),
        ("gid", number("Gid")),
        ("cap_eff", field("CapEff")),
        ("cap_prm", field("CapPrm")),
        ("cap_inh", field("CapInh")),
        ("cap_bnd", field("CapBnd")),
        ("cap_amb", field("CapAmb")),
        ("no_new_privs", number("NoNewPrivs")),
        ("seccomp", number("Seccomp")),
        ("pid", Json::from(u64::from(std::process::id()))),
    ])
}

pub(crate) fn resolver() -> Answer {
    Answer::json([("nameserver", network::nameserver().map(|address| address.to_string()).into())])
}

fn text_of(path: &str) -> Json {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned()).into()
}

/// The first word of a field.
fn status_field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupts_by_their_device() {
        let text = "            CPU0       CPU1\n  4:         12          0   IO-APIC   4-edge      ttyS0\n  9:          1          2   IO-APIC   9-edge      ACPI:Ged\nERR:          0\n";
        let counts: Vec<_> = interrupts_of(text).into_iter().map(|(name, count)| format!("{name} {count}")).collect();
        assert_eq!(counts, ["ttyS0 12", "ACPI:Ged 3", "0 0"]);
    }

    #[test]
    fn fields_of_the_status() {
        let status = "Name:\tprobe\nUid:\t1000\t1000\t1000\t1000\nCapEff:\t00000000a80425fb\n";
        assert_eq!(status_field(status, "Uid"), Some("1000"));
        assert_eq!(status_field(status, "CapEff"), Some("00000000a80425fb"));
        assert_eq!(status_field(status, "Cap"), None);
    }
}
