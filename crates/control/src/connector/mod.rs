//! Customers' network connectors: records with versions, on their way from PENDING to ACTIVE and from DELETING to gone.
//!
//! ```text
//!  PENDING ──▶ ACTIVE ──delete──▶ DELETING ──▶ (deleted)
//!               └─update─▶ ACTIVE, LastUpdateStatus InProgress ──▶ Successful, a version more
//! ```
//!
//! There is nothing to provision yet: what AWS does with network interfaces is done here by [`settle`], at once. Traffic does not go through them:
//! `connectors.rs` refuses a MicroVM or a build that names one (decision 20).

pub(crate) mod views;

use std::sync::Arc;

use emberbox_store::StoreError;
use emberbox_wire::connectors::ConnectorArn;

use crate::control::Core;

/// Ends what an operation has begun and answered.
pub(crate) fn settle(core: &Arc<Core>, arn: ConnectorArn) {
    let (core, tasks) = (core.clone(), &core.tasks);
    tasks.spawn(async move {
        if let Err(error) = core.store.settle_connector(&arn, core.clock.now()).await {
            tracing::error!(connector = %arn, error = &error as &dyn std::error::Error, "a connector's change could not be ended; the next start will");
        }
    });
}

/// Ends what a crash left begun.
pub(crate) async fn recover(core: &Arc<Core>) -> Result<(), StoreError> {
    for id in core.store.unsettled_connectors().await? {
        if let Some(record) = core.store.connector(id).await? {
            core.store.settle_connector(&record.arn, core.clock.now()).await?;
        }
    }
    Ok(())
}
