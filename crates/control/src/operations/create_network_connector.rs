//! CreateNetworkConnector: a connector and its version 1, PENDING.

use std::sync::Arc;

use emberbox_store::{Commit, ConnectorRecord, ConnectorVersionRecord};
use emberbox_wire::caller::Caller;
use emberbox_wire::connectors::{ConnectorArn, ConnectorConfiguration, ConnectorId, ConnectorState, CreateNetworkConnectorRequest};
use serde_json::Value;

use super::tag_resource;
use crate::connector::{self, views};
use crate::control::Core;
use crate::idempotency;
use crate::refusal::{Failure, Refusal};

pub(crate) async fn handle(core: &Arc<Core>, caller: &Caller, input: Value) -> Result<Value, Failure> {
    let token = idempotency::client_token(core, caller, "CreateNetworkConnector", &input);
    if let Some(answer) = idempotency::earlier_answer(core, token.as_ref()).await? {
        return Ok(answer);
    }
    let request: CreateNetworkConnectorRequest = serde_json::from_value(input)?;
    admit(&request)?;
    tag_resource::admit(&request.tags)?;

    let now = core.clock.now();
    let arn =
        ConnectorArn { region: core.config.region.clone(), account: caller.account.clone(), id: ConnectorId::random(), version: None };
    let version = ConnectorVersionRecord {
        connector: arn.id,
        version: 1,
        state: ConnectorState::Pending,
        configuration: request.configuration,
        operator_role: request.operator_role,
        modified_at: now,
    };
    let record = ConnectorRecord {
        arn,
        name: request.name,
        state: ConnectorState::Pending,
        state_reason: None,
        version: 1,
        update_status: None,
        created_at: now,
        modified_at: now,
    };
    let answer = views::connector_change(&record, &version, Some(&version))?;
    let quota = core.config.limits.quotas.network_connectors;
    match core.store.create_connector(&record, &version, &request.tags, quota, token.as_ref(), &answer).await? {
        Commit::Done => {
            connector::settle(core, record.arn);
            Ok(answer)
        }
        Commit::Raced => Err(Refusal::ConnectorExists(record.name).into()),
        commit => idempotency::otherwise(core, commit),
    }
}

fn admit(request: &CreateNetworkConnectorRequest) -> Result<(), Refusal> {
    if request.client_token.is_none() {
        // Observed, though the model does not require it; clients of AWS make one themselves.
        return Err(Refusal::InvalidParameter("ClientToken is a required field".into()));
    }
    // The model's pattern takes ARNs for names, as identifiers are names too.
    if request.name.starts_with("arn:") {
        return Err(Refusal::InvalidParameter("Name must be a name of 1 to 64 letters, digits, '-' and '_', not an ARN".into()));
    }
    admit_configuration(&request.configuration)?;
    admit_role(request.operator_role.as_deref())
}

/// What the service requires though the model does not (observed).
pub(super) fn admit_configuration(configuration: &ConnectorConfiguration) -> Result<(), Refusal> {
    let ConnectorConfiguration::VpcEgressConfiguration(egress) = configuration;
    let required = |name: &str| Refusal::InvalidParameter(format!("{name} is required for VPC_EGRESS connector type"));
    if egress.associated_compute_resource_types.is_none() {
        return Err(required("AssociatedComputeResourceTypes"));
    }
    if egress.network_protocol.is_none() {
        return Err(Refusal::InvalidParameter("NetworkProtocol cannot be null or empty for VPC_EGRESS connector".into()));
    }
    if egress.subnet_ids.is_none() {
        return Err(required("SubnetIds"));
    }
    Ok(())
}

/// Observed.
pub(super) fn admit_role(role: Option<&str>) -> Result<(), Refusal> {
    let missing = || Refusal::InvalidParameter("NetworkConnectorOperatorRole is required for VPC_EGRESS connector type".into());
    role.filter(|role| !role.is_empty()).map(|_| ()).ok_or_else(missing)
}
