//! The packet filter, as scripts for `nft`: once inside each cell, once on the host.

use super::addresses::Slice;
use emberbox_agent_protocol::{AGENT_PORT, DNS_ADDRESS, GUEST_ADDRESS, HOST_ADDRESS};

/// What is not the public internet: the guest reaches none of it unless the operator allows a part (IANA's special-purpose registry).
const NOT_PUBLIC: &str = "0.0.0.0/8, 10.0.0.0/8, 100.64.0.0/10, 127.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16, 198.18.0.0/15, 224.0.0.0/4, 240.0.0.0/4";

/// Connections of one guest at a time: each is an entry in a table that the whole host shares.
const MAX_CONNECTIONS: u32 = 4096;

/// The filter inside a cell. Destinations come first: a rule that allowed a protocol before them would open the host.
pub(super) fn cell(allow: &[String]) -> String {
    let allowed = allowed(allow, "");
    format!(
        "table inet cell {{
  chain input {{
    type filter hook input priority filter; policy drop;
    iifname lo accept
    iifname tap0 ip saddr != {GUEST_ADDRESS} drop
    ct state established,related accept
    iifname tap0 ip daddr {DNS_ADDRESS} meta l4proto {{ tcp, udp }} th dport 53 accept
    iifname tap0 ip daddr {HOST_ADDRESS} icmp type echo-request accept
  }}
  chain output {{
    type filter hook output priority filter; policy drop;
    oifname lo accept
    ct state established,related accept
    oifname tap0 ip daddr {GUEST_ADDRESS} tcp dport {AGENT_PORT} accept
    oifname tap0 meta l4proto icmp accept
  }}
  chain forward {{
    type filter hook forward priority filter; policy drop;
    iifname up0 oifname tap0 ct state established,related accept
    iifname tap0 oifname up0 ip saddr {GUEST_ADDRESS} jump egress
  }}
  chain egress {{
    ct state new ct count over {MAX_CONNECTIONS} drop
    {allowed}
    ip daddr {{ {NOT_PUBLIC} }} reject with icmp type admin-prohibited
    meta l4proto {{ tcp, icmp }} accept
    reject with icmp type admin-prohibited
  }}
}}
table ip cell_nat {{
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    oifname up0 masquerade
  }}
}}
"
    )
}

/// The host's side, for all cells of one daemon. Replaces what an earlier run of it left.
///
/// The host may translate destinations (published ports of containers), which the cell could not see: what was translated is refused. Where
/// forwarding is on for our sake alone, the host must not become a router between its networks: nothing goes from one of `apart` to another.
pub(super) fn host(slice: &Slice, allow: &[String], apart: &[String]) -> String {
    let (prefix, cidr) = (&slice.prefix, slice.cidr());
    let allowed = allowed(allow, &format!("iifname \"{prefix}-*\""));
    let names: Vec<String> = apart.iter().map(|name| format!("\"{name}\"")).collect();
    let others = match names.join(", ") {
        none if none.is_empty() => none,
        names => format!("iifname {{ {names} }} oifname {{ {names} }} drop"),
    };
    format!(
        "table inet {prefix}
delete table inet {prefix}
table inet {prefix} {{
  chain input {{
    type filter hook input priority filter - 10; policy accept;
    iifname \"{prefix}-*\" drop
  }}
  chain forward {{
    type filter hook forward priority filter - 10; policy accept;
    {others}
    iifname \"{prefix}-*\" oifname \"eb*\" drop
    iifname \"{prefix}-*\" ct status dnat drop
    iifname \"{prefix}-*\" tcp flags syn tcp option maxseg size set rt mtu
    oifname \"{prefix}-*\" tcp flags syn tcp option maxseg size set rt mtu
    {allowed}
    iifname \"{prefix}-*\" ip daddr {{ {NOT_PUBLIC} }} drop
    oifname \"{prefix}-*\" ct state established,related accept
    oifname \"{prefix}-*\" drop
  }}
  chain postrouting {{
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr {cidr} masquerade
  }}
}}
"
    )
}

/// A rule for what the operator allows beyond public addresses.
fn allowed(allow: &[String], from: &str) -> String {
    match allow {
        [] => String::new(),
        networks => format!("{from} ip daddr {{ {} }} meta l4proto tcp accept", networks.join(", ")),
    }
}

/// Takes the host's side away.
pub(super) fn remove_host(slice: &Slice) -> String {
    format!("table inet {0}\ndelete table inet {0}\n", slice.prefix)
}
