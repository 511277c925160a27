//! UpdateNetworkConnector: another configuration or role is a version more; the same again changes nothing (documented).

use std::sync::Arc;

use emberbox_store::{Commit, ConnectorRecord, ConnectorVersionRecord};
use emberbox_wire::caller::Caller;
use emberbox_wire::connectors::{ConnectorState, UpdateNetworkConnectorRequest, UpdateStatus};
use serde_json::Value;

use super::connector_lookup as lookup;
use super::create_network_connector::{admit_configuration, admit_role};
use crate::connector::{self, views};
use crate::control::Core;
use crate::idempotency;
use crate::refusal::{Failure, Refusal, word};

pub(crate) async fn handle(core: &Arc<Core>, caller: &Caller, input: Value) -> Result<Value, Failure> {
    let token = idempotency::client_token(core, caller, "UpdateNetworkConnector", &input);
    if let Some(answer) = idempotency::earlier_answer(core, token.as_ref()).await? {
        return Ok(answer);
    }
    let request: UpdateNetworkConnectorRequest = serde_json::from_value(input)?;
    let found = lookup::connector(core, caller, &request.identifier).await?.unqualified()?;
    admit(&found)?;
    let current = lookup::version(core, &found, found.version).await?;
    let now = core.clock.now();
    let next = ConnectorVersionRecord {
        version: core.store.newest_connector_version(found.arn.id).await? + 1,
        state: ConnectorState::Pending,
        configuration: request.configuration.unwrap_or_else(|| current.configuration.clone()),
        operator_role: request.operator_role.or_else(|| current.operator_role.clone()),
        modified_at: now,
        ..current.clone()
    };
    admit_configuration(&next.configuration)?;
    admit_role(next.operator_role.as_deref())?;

    if (&next.configuration, &next.operator_role) == (&current.configuration, &current.operator_role) {
        let answer = views::connector_update(&found, &current, UpdateStatus::Successful)?;
        return match core.store.remember_answer(token.as_ref(), &answer, now).await? {
            Commit::Done => Ok(answer),
            commit => idempotency::otherwise(core, commit),
        };
    }
    let changed = ConnectorRecord { modified_at: now, ..found.clone() };
    let answer = views::connector_update(&changed, &next, UpdateStatus::InProgress)?;
    let quota = core.config.limits.quotas.versions_per_network_connector;
    match core.store.begin_connector_update(&found, &next, quota, token.as_ref(), &answer).await? {
        Commit::Done => {
            connector::settle(core, found.arn);
            Ok(answer)
        }
        Commit::Raced => {
            Err(Refusal::ConnectorBusy { arn: found.arn.to_string(), why: "is being changed by another request".into() }.into())
        }
        commit => idempotency::otherwise(core, commit),
    }
}

fn admit(found: &ConnectorRecord) -> Result<(), Refusal> {
    let busy = |why: String| Err(Refusal::ConnectorBusy { arn: found.arn.to_string(), why });
    match (found.state, found.update_status) {
        (ConnectorState::Active, Some(UpdateStatus::InProgress)) => busy("is being updated".into()),
        (ConnectorState::Active, Some(UpdateStatus::Successful | UpdateStatus::Failed) | None) => Ok(()),
        (state, _) => busy(format!("is {} and must be ACTIVE to be updated", word(state))),
    }
}
