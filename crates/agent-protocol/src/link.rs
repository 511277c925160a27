//! The addresses of the link between a MicroVM and its cell: the same in every cell, so that a snapshot fits all of them.
//!
//! One /29 of the link-local range holds the guest, the host's end of the tap, and the two addresses AWS documents for its
//! guests: the DNS stub and the metadata service. All but the guest's are the host's.

use std::net::Ipv4Addr;

/// The host's end: the guest's gateway, and the one address the agent answers.
pub const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 249);
/// The guest's own address.
pub const GUEST_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 250);
/// DNS stub (documented by AWS).
pub const DNS_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 253);
/// Instance metadata service (documented by AWS).
pub const METADATA_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// Length of the link's network prefix.
pub const PREFIX_LENGTH: u8 = 29;

/// Fixed, so that neither side ever waits for ARP. Locally administered, unicast.
pub const HOST_MAC: [u8; 6] = [0x02, 0xeb, 0x00, 0x00, 0x00, 0x01];
/// See [`HOST_MAC`].
pub const GUEST_MAC: [u8; 6] = [0x02, 0xeb, 0x00, 0x00, 0x00, 0x02];

/// The agent's TCP port: above the kernel's ephemeral range (32768-60999), so that no application meets it by chance.
pub const AGENT_PORT: u16 = 61001;
