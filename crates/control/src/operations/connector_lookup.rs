//! Finding the network connector that a request names by id, name or ARN. What belongs to another account looks absent.

use emberbox_store::{ConnectorRecord, ConnectorVersionRecord};
use emberbox_wire::caller::Caller;
use emberbox_wire::connectors::{ConnectorArn, ConnectorId, ConnectorState};

use crate::control::Core;
use crate::refusal::{Failure, Refusal};

/// What an identifier names: a connector, and one version of it when it is a version-qualified ARN.
#[derive(Debug, Clone)]
pub(crate) struct Named {
    pub(crate) record: ConnectorRecord,
    pub(crate) version: Option<u32>,
}

impl Named {
    /// For what is done to a connector as a whole.
    pub(crate) fn unqualified(self) -> Result<ConnectorRecord, Refusal> {
        match self.version {
            None => Ok(self.record),
            Some(version) => {
                let arn = self.record.arn.of_version(version);
                Err(Refusal::InvalidParameter(format!("Identifier must name the connector, not one version of it: {arn}")))
            }
        }
    }
}

/// The caller's connector, its tombstone included.
pub(crate) async fn connector_or_tombstone(core: &Core, caller: &Caller, identifier: &str) -> Result<Named, Failure> {
    let absent = || Refusal::NoConnector(sought(core, caller, identifier));
    let (found, version) = if identifier.starts_with("arn:") {
        let malformed = |_| Refusal::InvalidParameter(format!("Invalid network connector ARN: {identifier}"));
        let arn: ConnectorArn = identifier.parse().map_err(malformed)?;
        if arn.account != caller.account || arn.region != core.config.region {
            return Err(absent().into());
        }
        (core.store.connector(arn.id).await?, arn.version)
    } else {
        let by_id = match identifier.parse::<ConnectorId>() {
            Ok(id) => core.store.connector(id).await?,
            Err(_) => None,
        };
        match by_id {
            Some(found) => (Some(found), None),
            None => (core.store.connector_by_name(&caller.account, identifier).await?, None),
        }
    };
    let record = found.filter(|record| record.arn.account == caller.account).ok_or_else(absent)?;
    Ok(Named { record, version })
}

/// The caller's connector, unless it is deleted.
pub(crate) async fn connector(core: &Core, caller: &Caller, identifier: &str) -> Result<Named, Failure> {
    let named = connector_or_tombstone(core, caller, identifier).await?;
    match named.record.state {
        ConnectorState::Deleted => Err(Refusal::NoConnector(sought(core, caller, identifier)).into()),
        ConnectorState::Pending
        | ConnectorState::Active
        | ConnectorState::Inactive
        | ConnectorState::Failed
        | ConnectorState::Deleting
        | ConnectorState::DeleteFailed => Ok(named),
    }
}

/// The ARN AWS makes of whatever identifier arrived, to say that nothing is there (observed).
fn sought(core: &Core, caller: &Caller, identifier: &str) -> String {
    match identifier.starts_with("arn:") {
        true => identifier.to_owned(),
        false => format!("arn:aws:lambda:{}:{}:network-connector:{identifier}", core.config.region, caller.account),
    }
}

/// A version, its tombstone included.
pub(crate) async fn version_or_tombstone(core: &Core, record: &ConnectorRecord, version: u32) -> Result<ConnectorVersionRecord, Failure> {
    let absent = || Refusal::NoConnector(record.arn.of_version(version).to_string());
    Ok(core.store.connector_version(record.arn.id, version).await?.ok_or_else(absent)?)
}

/// A version of a connector that is not deleted, unless it is deleted itself.
pub(crate) async fn version(core: &Core, record: &ConnectorRecord, version: u32) -> Result<ConnectorVersionRecord, Failure> {
    let found = version_or_tombstone(core, record, version).await?;
    if found.state == ConnectorState::Deleted && record.state != ConnectorState::Deleted {
        return Err(Refusal::NoConnector(record.arn.of_version(version).to_string()).into());
    }
    Ok(found)
}
