//! The daemon's limit of open files: raised as far as it goes, and said when that is not far enough.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Its own files, listeners, and connections of clients.
const OF_DAEMON: u64 = 256;
/// Of one that runs: its control socket, process, cell and name resolution, and two connections from outside to its application.
const OF_MICROVM: u64 = 16;

/// `microvms`: so many may run at a time.
pub(crate) fn raise(microvms: u64) {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map(|()| hard));
    match raised {
        Ok(limit) if enough(limit, microvms) => {}
        Ok(limit) => tracing::warn!(
            limit,
            microvms,
            wanted = wanted(microvms),
            "the limit of open files (RLIMIT_NOFILE, the hard one) is too low for as many MicroVMs as this host's memory and its quotas admit: launches beyond it \
             will be refused; raise it (LimitNOFILE= of the unit, ulimit -Hn)"
        ),
        Err(error) => tracing::warn!(%error, "the limit of open files could not be raised"),
    }
}

fn wanted(microvms: u64) -> u64 {
    OF_DAEMON.saturating_add(microvms.saturating_mul(OF_MICROVM))
}

fn enough(limit: u64, microvms: u64) -> bool {
    wanted(microvms) <= limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_enough_for_so_many_and_no_more() {
        assert!(enough(1024, 48) && !enough(1024, 49));
        assert!(enough(u64::MAX, u64::MAX), "no limit is enough for any");
    }
}
