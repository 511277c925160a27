//! One cell.

use std::io;
use std::os::fd::OwnedFd;

use emberbox_agent_protocol::{DNS_ADDRESS, GUEST_ADDRESS, GUEST_MAC, HOST_ADDRESS, HOST_MAC, METADATA_ADDRESS, PREFIX_LENGTH};
use tokio_util::task::TaskTracker;

use super::addresses::Link;
use super::dns::DnsRelay;
use super::{NetworkError, rules, tools};
use crate::sys::namespace::NetworkNamespace;
use crate::sys::tap;

/// The world of one machine. Dropping an unused one takes it away; one that was used outlives the daemon with its machine, and is taken away by
/// [`Cell::dismantle`] when that has ended.
#[derive(Debug)]
pub(crate) struct Cell {
    pub namespace: NetworkNamespace,
    /// The link's number: no other living cell of this daemon has it.
    pub number: u32,
    /// Handed to the machine's process. Absent in an adopted cell, whose process holds it.
    pub tap: Option<OwnedFd>,
    /// The host's end of its link.
    interface: String,
    /// Knows of links that are being taken away.
    leaving: TaskTracker,
    _dns: DnsRelay,
}

impl Cell {
    /// Makes a cell with all its rules. The rules come before the devices: there is no moment without them.
    pub(super) fn create(
        link: &Link,
        allow: &[String],
        resolvers: &[std::net::IpAddr],
        runtime: &tokio::runtime::Handle,
        leaving: TaskTracker,
    ) -> Result<Self, NetworkError> {
        let created = NetworkNamespace::create(|| {
            write_sysctl("ipv6/conf/all/disable_ipv6", "1")?;
            write_sysctl("ipv6/conf/default/disable_ipv6", "1")?;
            write_sysctl("ipv4/ip_forward", "1")?;
            tap::create("tap0")
        });
        let (namespace, tap) = created.map_err(|source| NetworkError::Io { attempted: "make a network namespace with a tap", source })?;
        tools::nft(Some(&namespace), &rules::cell(allow))?;
        tools::ip(Some(&namespace), &devices(link))?;
        let connect = || {
            tools::ip(None, &host_end(link))?;
            tools::ip(Some(&namespace), &format!("route add default via {}\n", link.host))?;
            DnsRelay::start(&namespace, resolvers, runtime)
        };
        // The link would go with its namespace, but not at once.
        let dns = connect().inspect_err(|_| remove_link(&link.interface))?;
        Ok(Self { namespace, number: link.number, tap: Some(tap), interface: link.interface.clone(), leaving, _dns: dns })
    }

    /// Takes over the cell of a living process, by its namespace, after a restart of the daemon.
    pub(super) fn adopt(
        namespace: NetworkNamespace,
        link: &Link,
        resolvers: &[std::net::IpAddr],
        runtime: &tokio::runtime::Handle,
        leaving: TaskTracker,
    ) -> Result<Self, NetworkError> {
        let dns = DnsRelay::start(&namespace, resolvers, runtime)?;
        Ok(Self { namespace, number: link.number, tap: None, interface: link.interface.clone(), leaving, _dns: dns })
    }

    /// Takes the link away. The namespace alone would do so only when the last connection in it is given up, minutes after the guest's sudden end.
    pub(crate) fn dismantle(&self) {
        let interface = self.interface.clone();
        // A daemon that stops waits for it, nobody else.
        self.leaving.spawn_blocking(move || remove_link(&interface));
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        if self.tap.is_some() {
            remove_link(&self.interface);
        }
    }
}

pub(super) fn remove_link(interface: &str) {
    if std::path::Path::new("/sys/class/net").join(interface).exists()
        && let Err(error) = tools::ip(None, &format!("link del {interface}\n"))
    {
        tracing::debug!(error = &error as &dyn std::error::Error, interface, "a cell's link was gone before it was taken away");
    }
}

/// The script of the cell's own devices. The host's end of the veth pair is made in the host's namespace at once, by the daemon's process number.
fn devices(link: &Link) -> String {
    let host = std::process::id();
    let mac = |bytes: [u8; 6]| bytes.map(|byte| format!("{byte:02x}")).join(":");
    format!(
        "link set lo up
link set tap0 address {host_mac}
addr add {HOST_ADDRESS}/{PREFIX_LENGTH} dev tap0
addr add {DNS_ADDRESS}/32 dev tap0
addr add {METADATA_ADDRESS}/32 dev tap0
link set tap0 up
neigh replace {GUEST_ADDRESS} lladdr {guest_mac} dev tap0 nud permanent
link add up0 type veth peer name {interface} netns {host}
addr add {cell}/31 dev up0
link set up0 up
",
        host_mac = mac(HOST_MAC),
        guest_mac = mac(GUEST_MAC),
        interface = link.interface,
        cell = link.cell,
    )
}

fn host_end(link: &Link) -> String {
    format!("addr add {}/31 dev {interface}\nlink set {interface} up\n", link.host, interface = link.interface)
}

fn write_sysctl(name: &str, value: &str) -> io::Result<()> {
    match std::fs::write(format!("/proc/sys/net/{name}"), value) {
        // A kernel without IPv6 has none to turn off.
        Err(error) if error.kind() == io::ErrorKind::NotFound && name.starts_with("ipv6") => Ok(()),
        other => other,
    }
}
