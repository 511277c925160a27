//! What root may do in the container.

use emberbox_agent_protocol::Capabilities;

/// The set container engines grant by default, by the kernel's numbers (linux/capability.h).
const DEFAULT: [(&str, u32); 14] = [
    ("CHOWN", 0),
    ("DAC_OVERRIDE", 1),
    ("FOWNER", 3),
    ("FSETID", 4),
    ("KILL", 5),
    ("SETGID", 6),
    ("SETUID", 7),
    ("SETPCAP", 8),
    ("NET_BIND_SERVICE", 10),
    ("NET_RAW", 13),
    ("SYS_CHROOT", 18),
    ("MKNOD", 27),
    ("AUDIT_WRITE", 29),
    ("SETFCAP", 31),
];

/// The bits to keep; `None` for all.
pub(crate) fn kept(capabilities: Capabilities) -> Option<u64> {
    match capabilities {
        Capabilities::Restricted => Some(DEFAULT.iter().fold(0, |bits, (_, number)| bits | 1 << number)),
        Capabilities::All => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restricted_is_what_docker_shows_in_proc_status() {
        assert_eq!(kept(Capabilities::Restricted), Some(0xa804_25fb));
    }
}
