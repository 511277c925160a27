//! Names of endpoints.

use std::net::Ipv4Addr;

use emberbox_store::MicrovmRecord;
use rand::Rng;

use crate::config::EndpointSettings;

const HTTPS_PORT: u16 = 443;
/// 127.64.0.0/10: loopback addresses nothing else is known to use, four million of them.
const LOOPBACK_NETWORK: u32 = u32::from_be_bytes([127, 64, 0, 0]);
const LOOPBACK_HOST_BITS: u32 = 22;

/// An address for a new MicroVM, where endpoints are addresses. The store refuses one that is taken.
pub(crate) fn new_address(settings: &EndpointSettings) -> Option<Ipv4Addr> {
    match settings {
        // Zero is left out: 127.64.0.0 looks like a network.
        EndpointSettings::Loopback { .. } => {
            Some(Ipv4Addr::from(LOOPBACK_NETWORK | rand::rng().random_range(1..(1 << LOOPBACK_HOST_BITS))))
        }
        EndpointSettings::Domain { .. } => None,
    }
}

/// `endpoint` as the API shows it: a bare host name, or an address, with the port unless it is HTTPS's own.
pub(crate) fn host_name(settings: &EndpointSettings, microvm: &MicrovmRecord) -> String {
    let (host, port) = match (settings, microvm.address) {
        (EndpointSettings::Domain { domain, port }, _) => (format!("{}.{domain}", microvm.endpoint), *port),
        (EndpointSettings::Loopback { port }, Some(address)) => (address.to_string(), *port),
        // Made while a domain was set, which no longer is: reachable by nobody, and shown as such.
        (EndpointSettings::Loopback { port }, None) => (format!("{}.invalid", microvm.endpoint), *port),
    };
    if port == HTTPS_PORT { host } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_stay_in_their_network() {
        for _ in 0..1000 {
            let [first, second, ..] = new_address(&EndpointSettings::Loopback { port: 443 }).unwrap().octets();
            assert!(first == 127 && (64..128).contains(&second));
        }
        assert_eq!(new_address(&EndpointSettings::Domain { domain: "d".into(), port: 443 }), None);
    }
}
