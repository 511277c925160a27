//! What a write may not exceed, counted in the transaction that writes, so that no two can share the last place.

use emberbox_wire::ids::AccountId;
use sqlx::{Row, Sqlite, Transaction};

use crate::StoreError;
use crate::idempotency::Commit;

/// What there can be too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Quota {
    /// Baseline memory of an account's MicroVMs that are not suspended.
    MemoryMib,
    Microvms,
    Images,
    ImageVersions,
    Connectors,
    ConnectorVersions,
}

/// Bounds for what takes memory: a launch, a wake, a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Of everything on the host.
    pub host_mib: u64,
    /// Of one account's MicroVMs.
    pub account_mib: Option<u64>,
    /// How many MicroVMs an account may have, suspended ones included.
    pub account_microvms: Option<u64>,
}

impl Room {
    /// Bounds that nothing reaches.
    pub const UNLIMITED: Self = Self { host_mib: u64::MAX, account_mib: None, account_microvms: None };
}

/// Must be what the partial indexes of `microvms` and `builds` say.
pub(crate) const HOST: &str = "SELECT (SELECT coalesce(sum(memory_mib), 0) FROM microvms WHERE phase NOT IN ('SUSPENDED', 'TERMINATED'))
                    + (SELECT coalesce(sum(memory_mib), 0) FROM builds WHERE state = 'IN_PROGRESS') AS used";
pub(crate) const ACCOUNT: &str =
    "SELECT coalesce(sum(memory_mib), 0) AS used FROM microvms WHERE account = ? AND phase NOT IN ('SUSPENDED', 'TERMINATED')";
pub(crate) const MICROVMS: &str = "SELECT count(*) AS used FROM microvms WHERE account = ? AND phase <> 'TERMINATED'";

/// Why `memory_mib` more do not fit; `None` when they do.
pub(crate) async fn refused(
    transaction: &mut Transaction<'_, Sqlite>,
    account: &AccountId,
    memory_mib: u32,
    room: &Room,
) -> Result<Option<Commit>, StoreError> {
    let wanted = u64::from(memory_mib);
    if let Some(limit) = room.account_mib
        && used(transaction, ACCOUNT, Some(account)).await? + wanted > limit
    {
        return Ok(Some(Commit::OverQuota(Quota::MemoryMib)));
    }
    Ok((!host_has_room(transaction, memory_mib, room.host_mib).await?).then_some(Commit::NoRoom))
}

pub(crate) async fn host_has_room(transaction: &mut Transaction<'_, Sqlite>, memory_mib: u32, host_mib: u64) -> Result<bool, StoreError> {
    Ok(used(transaction, HOST, None).await?.saturating_add(memory_mib.into()) <= host_mib)
}

/// Whether an account has all the MicroVMs it may have.
pub(crate) async fn too_many_microvms(
    transaction: &mut Transaction<'_, Sqlite>,
    account: &AccountId,
    room: &Room,
) -> Result<bool, StoreError> {
    let Some(limit) = room.account_microvms else { return Ok(false) };
    Ok(used(transaction, MICROVMS, Some(account)).await? >= limit)
}

pub(crate) async fn used(transaction: &mut Transaction<'_, Sqlite>, sql: &str, account: Option<&AccountId>) -> Result<u64, StoreError> {
    let query = sqlx::query(sql);
    let query = match account {
        Some(account) => query.bind(&account.0),
        None => query,
    };
    Ok(query.fetch_one(&mut **transaction).await?.try_get::<i64, _>("used")?.unsigned_abs())
}
