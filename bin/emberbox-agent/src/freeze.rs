//! The application stands still: around every snapshot.
//!
//! ```text
//! running --Freeze--> frozen, output read, disk synced, connections closed and aborted --snapshot--> Restored: see `restore`
//!    ^------------------Thaw-----------------|
//! ```

use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep};

use crate::agent::{Agent, ConnectionId};
use crate::container::Container;
use crate::outside;

/// What a frozen application has written is at most two full pipes.
const OUTPUT: Duration = Duration::from_secs(1);
const OUTPUT_POLL: Duration = Duration::from_millis(1);

/// Freezes the application and makes everything else ready for a snapshot. `asker` is the one connection that stays.
pub(crate) async fn freeze(agent: &Rc<Agent>, asker: ConnectionId) -> Result<()> {
    if let Some(container) = agent.container() {
        if !container.has_exited() {
            container.cgroup.freeze().await?;
        }
        if let Err(error) = settle(&container).await {
            container.cgroup.thaw()?;
            return Err(error);
        }
    }
    agent.connections.close_all_but(asker).await;
    // Last: until here a freeze that fails has cost the application nothing.
    if let Err(error) = outside::abort_connections() {
        thaw(agent)?;
        return Err(error);
    }
    Ok(())
}

pub(crate) fn thaw(agent: &Rc<Agent>) -> Result<()> {
    agent.container().map_or(Ok(()), |container| container.cgroup.thaw())
}

async fn settle(container: &Container) -> Result<()> {
    let deadline = Instant::now() + OUTPUT;
    while !container.output_is_read() && Instant::now() < deadline {
        sleep(OUTPUT_POLL).await;
    }
    nix::unistd::syncfs(container.root.descriptor()).context("syncing the root disk")
}
