//! The first thing that happens in a copy of a snapshot. The order is the product's promise: while any step before the thaw has not
//! succeeded, the application does not execute one instruction.
//!
//! This is what a launch waits for: it touches as little code as it can.

use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use emberbox_agent_protocol::{Identity, Reply, Restored};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

use crate::agent::{Agent, ConnectionId};
use crate::link::Arrival;
use crate::{freeze, hooks, sys};

pub(crate) async fn restored(agent: &Rc<Agent>, asker: ConnectionId, restored: Restored, arrival: Arrival) -> Result<Reply> {
    let (began, waited) = (Instant::now(), arrival.waited());
    set_clock(Duration::from_nanos(restored.wall_clock_ns) + waited)?;
    let entropy = STANDARD.decode(&restored.entropy).context("decoding the entropy")?;
    sys::entropy::reseed(&entropy).context("reseeding the kernel's randomness")?;
    if let Some(identity) = &restored.identity {
        become_copy(agent, identity)?;
    }
    agent.connections.close_all_but(asker).await;
    freeze::thaw(agent)?;
    let outcome = match &restored.hook {
        Some(hook) => Some(hooks::call(hook, agent.application_exit()).await),
        None => None,
    };
    let handled = waited + began.elapsed();
    Ok(Reply::Restored { outcome, handled_us: u64::try_from(handled.as_micros()).unwrap_or(u64::MAX) })
}

fn set_clock(since_epoch: Duration) -> Result<()> {
    clock_settime(ClockId::CLOCK_REALTIME, TimeSpec::from(since_epoch)).context("setting the clock")
}

fn become_copy(agent: &Rc<Agent>, identity: &Identity) -> Result<()> {
    nix::unistd::sethostname(&identity.host_name).context("setting the host name")?;
    match agent.container() {
        Some(container) => container.files.change_identity(identity),
        None => Ok(()),
    }
}
