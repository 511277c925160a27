//! What is written down about a MicroVM's transitions, and when.
//!
//! An *intent* (SUSPENDING, RESUMING, TERMINATING) is on the disk before its work begins; when it cannot be written the work does not begin. An
//! *outcome* has happened on the host whether it can be written or not: it is tried again, and what the disk says otherwise is put right by the
//! orphans' reconciler at the next start.

use std::time::Duration;

use emberbox_store::{Commit, MicrovmRecord, Phase, Store, StoreError};

use crate::control::Core;

/// Pauses between attempts to write an outcome: a full disk or a lock held by a backup may pass.
const OUTCOME_RETRIES: [Duration; 4] =
    [Duration::from_millis(50), Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(5)];

/// Why an intent is not on record.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IntentError {
    #[error("the record could not be written")]
    Store(#[from] StoreError),
    /// What a wake takes is not free, on the host or of the account's quota.
    #[error("there is no memory for it")]
    NoRoom,
}

pub(crate) async fn intent(core: &Core, record: &MicrovmRecord) -> Result<(), IntentError> {
    if record.phase != Phase::Resuming {
        return Ok(core.store.update_microvm(record).await?);
    }
    match core.store.begin_resume(record, &core.config.limits.room()).await? {
        Commit::NoRoom | Commit::OverQuota(_) => Err(IntentError::NoRoom),
        Commit::Done | Commit::Raced | Commit::Replayed(_) | Commit::TokenReused => Ok(()),
    }
}

pub(crate) async fn outcome(store: &Store, record: &MicrovmRecord) {
    for pause in OUTCOME_RETRIES {
        match store.update_microvm(record).await {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(microvm = %record.id, error = &error as &dyn std::error::Error, "an outcome could not be written");
            }
        }
        tokio::time::sleep(pause).await;
    }
    if let Err(error) = store.update_microvm(record).await {
        tracing::error!(microvm = %record.id, phase = ?record.phase, error = &error as &dyn std::error::Error, "an outcome was not written");
    }
}
