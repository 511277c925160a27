//! Files of the container that the agent owns, because a restored copy must not keep the original's.
//!
//! They lie in the agent's memory and are mounted over the image's. They are rewritten in place: a new file would not show
//! through the mount.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use emberbox_agent_protocol::{Application, DNS_ADDRESS, Identity};

use crate::mounts::Root;

const DIRECTORY: &str = "/run/emberbox/app";
/// Where the container finds the system's certificates together with the extra ones.
pub(crate) const CA_BUNDLE: &str = "/run/emberbox/ca.pem";
/// Where distributions keep the system's certificates.
const SYSTEM_BUNDLES: [&str; 4] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem"];
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

pub(crate) struct Files {
    has_ca_bundle: bool,
}

impl Files {
    /// Writes all files for an application that is about to start. `root` has the system's certificates.
    pub(crate) fn write(application: &Application, root: &Root) -> Result<Self> {
        fs::create_dir_all(DIRECTORY).context("creating the container's files")?;
        write("resolv.conf", format!("nameserver {DNS_ADDRESS}\n"))?;
        write("hostname", host_name_file(&application.host_name))?;
        write("hosts", hosts_file(&application.host_name))?;
        let boot_id = fs::read_to_string(BOOT_ID).context("reading the boot id")?;
        write_boot_id(boot_id.trim())?;
        let has_ca_bundle = !application.extra_ca_pem.is_empty();
        if has_ca_bundle {
            write("ca.pem", ca_bundle(root, &application.extra_ca_pem)?)?;
        }
        Ok(Self { has_ca_bundle })
    }

    /// Mounts the files in the container's root; /proc must be there.
    pub(crate) fn mount(&self, root: &Root) -> Result<()> {
        root.bind_file(&path("resolv.conf"), "/etc/resolv.conf", false)?;
        root.bind_file(&path("hostname"), "/etc/hostname", false)?;
        root.bind_file(&path("hosts"), "/etc/hosts", false)?;
        root.bind_file(&path("machine-id"), "/etc/machine-id", true)?;
        root.bind_file(&path("boot_id"), BOOT_ID, true)?;
        if self.has_ca_bundle { root.bind_file(&path("ca.pem"), CA_BUNDLE, true) } else { Ok(()) }
    }

    /// Makes them say who this copy is. What the application added to /etc/hosts stays.
    pub(crate) fn change_identity(&self, identity: &Identity) -> Result<()> {
        let before = fs::read_to_string(path("hostname")).context("reading the host name")?;
        let hosts = fs::read_to_string(path("hosts")).context("reading hosts")?;
        write("hosts", rename_in_hosts(&hosts, before.trim(), &identity.host_name))?;
        write("hostname", host_name_file(&identity.host_name))?;
        write_boot_id(&identity.boot_id)
    }
}

fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

fn write(name: &str, content: impl AsRef<[u8]>) -> Result<()> {
    fs::write(path(name), content).with_context(|| format!("writing {name}"))
}

fn write_boot_id(boot_id: &str) -> Result<()> {
    let digits: String = boot_id.chars().filter(char::is_ascii_hexdigit).collect();
    ensure!(digits.len() == 32, "the boot id is no UUID");
    write("boot_id", format!("{boot_id}\n"))?;
    write("machine-id", format!("{digits}\n"))
}

fn host_name_file(host_name: &str) -> String {
    format!("{host_name}\n")
}

/// The host name is on loopback, so that an application that listens on its own name is reached by relays.
fn own_line(host_name: &str) -> String {
    format!("127.0.0.1\t{host_name}")
}

fn hosts_file(host_name: &str) -> String {
    format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{}\n", own_line(host_name))
}

fn rename_in_hosts(hosts: &str, before: &str, now: &str) -> String {
    let (old, new) = (own_line(before), own_line(now));
    let lines = hosts.lines().filter(|line| *line != old && *line != new);
    lines.chain([new.as_str()]).map(|line| format!("{line}\n")).collect()
}

fn ca_bundle(root: &Root, extra: &str) -> Result<Vec<u8>> {
    let mut bundle = Vec::new();
    for system in SYSTEM_BUNDLES {
        if let Some(found) = root.read(system)? {
            bundle = found;
            break;
        }
    }
    if !bundle.is_empty() && !bundle.ends_with(b"\n") {
        bundle.push(b'\n');
    }
    bundle.extend_from_slice(extra.as_bytes());
    Ok(bundle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_renames_itself_and_keeps_the_rest() {
        let hosts = hosts_file("image") + "10.0.0.1\tdatabase\n";
        let renamed = rename_in_hosts(&hosts, "image", "microvm-1");
        assert!(renamed.contains("10.0.0.1\tdatabase\n") && renamed.contains("127.0.0.1\tlocalhost\n"));
        assert!(renamed.ends_with("127.0.0.1\tmicrovm-1\n") && !renamed.contains("image"));
        assert_eq!(rename_in_hosts(&renamed, "microvm-1", "microvm-1"), renamed);
    }
}
