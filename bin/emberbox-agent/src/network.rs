//! The guest's end of the link: everything about it is known beforehand (`emberbox_agent_protocol`), so nothing is negotiated.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use emberbox_agent_protocol::{DNS_ADDRESS, GUEST_ADDRESS, HOST_ADDRESS, HOST_MAC, METADATA_ADDRESS, PREFIX_LENGTH};

use crate::sys::interface::Configurator;

const INTERFACE: &str = "eth0";
/// The driver probes beside the boot.
const APPEARANCE: Duration = Duration::from_secs(10);
const APPEARANCE_POLL: Duration = Duration::from_millis(2);

pub(crate) fn bring_up() -> Result<()> {
    wait_for_interface()?;
    // Applications of the guest are reached over IPv4 or their own loopback; link-local chatter only wakes the host.
    let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{INTERFACE}/disable_ipv6"), "1");
    let configurator = Configurator::new().context("opening a socket")?;
    configurator.up("lo").context("bringing up loopback")?;
    configurator.set_address(INTERFACE, GUEST_ADDRESS, PREFIX_LENGTH).context("setting the guest's address")?;
    configurator.up(INTERFACE).context("bringing up the link")?;
    configurator.default_route(HOST_ADDRESS).context("setting the default route")?;
    for address in [HOST_ADDRESS, DNS_ADDRESS, METADATA_ADDRESS] {
        configurator.permanent_neighbour(INTERFACE, address, HOST_MAC).context("setting a neighbour")?;
    }
    Ok(())
}

fn wait_for_interface() -> Result<()> {
    let started = Instant::now();
    while !Path::new("/sys/class/net").join(INTERFACE).exists() {
        ensure!(started.elapsed() < APPEARANCE, "there is no network interface {INTERFACE}");
        std::thread::sleep(APPEARANCE_POLL);
    }
    Ok(())
}
