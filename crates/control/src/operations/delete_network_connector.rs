//! DeleteNetworkConnector: a connector with all its versions, or one that is not the latest. Deleting what is deleted succeeds (documented).
//! One that a MicroVM goes out through stays (ours; at AWS the MicroVM loses its way out).

use std::sync::Arc;

use emberbox_store::{Commit, ConnectorRecord};
use emberbox_wire::caller::Caller;
use emberbox_wire::connectors::{ConnectorState, UpdateStatus};
use serde::Deserialize;
use serde_json::Value;

use super::connector_lookup as lookup;
use crate::connector::{self, views};
use crate::control::Core;
use crate::refusal::{Failure, Refusal, word};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    identifier: String,
}

pub(crate) async fn handle(core: &Arc<Core>, caller: &Caller, input: Value) -> Result<Value, Failure> {
    let request: Request = serde_json::from_value(input)?;
    let named = lookup::connector_or_tombstone(core, caller, &request.identifier).await?;
    match named.version {
        Some(version) => delete_version(core, named.record, version).await,
        None => delete_all(core, named.record).await,
    }
}

async fn delete_all(core: &Arc<Core>, record: ConnectorRecord) -> Result<Value, Failure> {
    let shown = lookup::version(core, &record, record.version).await?;
    let deleting = ConnectorRecord { state: ConnectorState::Deleting, ..record.clone() };
    let answer = views::connector_change(&deleting, &shown, None)?;
    if matches!(record.state, ConnectorState::Deleting | ConnectorState::Deleted) {
        return Ok(answer);
    }
    admit(&record)?;
    match core.store.begin_connector_delete(&record, core.clock.now()).await? {
        Commit::Done => {
            connector::settle(core, record.arn);
            Ok(answer)
        }
        Commit::Raced | Commit::Replayed(_) | Commit::TokenReused | Commit::OverQuota(_) | Commit::NoRoom => {
            let now = core.store.connector(record.arn.id).await?.map_or(record.state, |now| now.state);
            if matches!(now, ConnectorState::Deleting | ConnectorState::Deleted) {
                // Another delete came first.
                return Ok(answer);
            }
            let users = core.store.count_connector_users(&record.arn).await?;
            let why = match users {
                0 => "is being changed by another request".to_owned(),
                users => format!("is used by {users} MicroVMs that are not terminated"),
            };
            Err(Refusal::ConnectorBusy { arn: record.arn.to_string(), why }.into())
        }
    }
}

fn admit(record: &ConnectorRecord) -> Result<(), Refusal> {
    let busy = |why: String| Err(Refusal::ConnectorBusy { arn: record.arn.to_string(), why });
    match record.state {
        ConnectorState::Active if record.update_status == Some(UpdateStatus::InProgress) => busy("is being updated".into()),
        ConnectorState::Active | ConnectorState::Inactive | ConnectorState::Failed | ConnectorState::DeleteFailed => Ok(()),
        ConnectorState::Pending | ConnectorState::Deleting | ConnectorState::Deleted => {
            busy(format!("is {} and cannot be deleted now", word(record.state)))
        }
    }
}

async fn delete_version(core: &Arc<Core>, record: ConnectorRecord, number: u32) -> Result<Value, Failure> {
    let version = lookup::version_or_tombstone(core, &record, number).await?;
    let shown = ConnectorRecord { state: ConnectorState::Deleting, ..record.clone() };
    let answer = views::connector_change(&shown, &version, Some(&version))?;
    let gone = matches!(version.state, ConnectorState::Deleting | ConnectorState::Deleted);
    if gone || matches!(record.state, ConnectorState::Deleting | ConnectorState::Deleted) {
        return Ok(answer);
    }
    if number == record.version {
        let message = format!("Version {number} is the latest of {} and cannot be deleted on its own; delete the connector", record.arn);
        return Err(Refusal::InvalidParameter(message).into());
    }
    match core.store.begin_connector_version_delete(&version, core.clock.now()).await? {
        Commit::Done => {
            connector::settle(core, record.arn);
            Ok(answer)
        }
        Commit::Raced | Commit::Replayed(_) | Commit::TokenReused | Commit::OverQuota(_) | Commit::NoRoom => Err(Refusal::ConnectorBusy {
            arn: record.arn.of_version(number).to_string(),
            why: "is being changed by another request".into(),
        }
        .into()),
    }
}
