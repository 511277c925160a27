//! Connectors as the API shows them. What is not known is left out, never null (observed).

use emberbox_store::{ConnectorRecord, ConnectorVersionRecord, UnixMillis};
use emberbox_wire::connectors::UpdateStatus;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The model's only type.
const TYPE: &str = "VPC_EGRESS";

/// Times of this service are texts (model).
fn iso8601(at: UnixMillis) -> String {
    let moment = OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.0) * 1_000_000).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    moment.format(&Rfc3339).unwrap_or_default()
}

fn with(mut members: Value, more: Value) -> Value {
    if let (Value::Object(members), Value::Object(more)) = (&mut members, more) {
        members.extend(more);
    }
    members
}

fn identity(record: &ConnectorRecord) -> Value {
    json!({"Arn": record.arn.to_string(), "Name": record.name, "Id": record.arn.id.to_string()})
}

fn of_version(record: &ConnectorRecord, version: u32) -> Value {
    json!({"VersionArn": record.arn.of_version(version).to_string(), "Version": version})
}

fn configuration(version: &ConnectorVersionRecord) -> Result<Value, serde_json::Error> {
    let members = json!({"Configuration": serde_json::to_value(&version.configuration)?});
    Ok(match &version.operator_role {
        Some(role) => with(members, json!({"OperatorRole": role})),
        None => members,
    })
}

/// What CreateNetworkConnector and DeleteNetworkConnector answer; `affected` is the version they are about, when they are about one.
pub(crate) fn connector_change(
    record: &ConnectorRecord,
    shown: &ConnectorVersionRecord,
    affected: Option<&ConnectorVersionRecord>,
) -> Result<Value, serde_json::Error> {
    let members = with(with(identity(record), configuration(shown)?), json!({"State": record.state}));
    Ok(match affected {
        Some(version) => with(members, of_version(record, version.version)),
        None => members,
    })
}

/// What UpdateNetworkConnector answers.
pub(crate) fn connector_update(
    record: &ConnectorRecord,
    version: &ConnectorVersionRecord,
    status: UpdateStatus,
) -> Result<Value, serde_json::Error> {
    let members = connector_change(record, version, Some(version))?;
    Ok(with(members, json!({"LastUpdateStatus": status, "LastModified": iso8601(record.modified_at)})))
}

/// What GetNetworkConnector answers for the connector, or for one version of it.
pub(crate) fn connector(record: &ConnectorRecord, version: &ConnectorVersionRecord, qualified: bool) -> Result<Value, serde_json::Error> {
    let members = with(identity(record), configuration(version)?);
    if qualified {
        let own = json!({"State": version.state, "LastModified": iso8601(version.modified_at)});
        return Ok(with(with(members, own), of_version(record, version.version)));
    }
    let members = with(members, json!({"Version": record.version, "State": record.state, "LastModified": iso8601(record.modified_at)}));
    let members = with(members, latest(record));
    let members = match &record.state_reason {
        Some(reason) => with(members, json!({"StateReason": reason})),
        None => members,
    };
    Ok(match record.update_status {
        Some(status) => with(members, json!({"LastUpdateStatus": status})),
        None => members,
    })
}

fn latest(record: &ConnectorRecord) -> Value {
    json!({"LatestVersionArn": record.arn.of_version(record.version).to_string(), "LatestVersion": record.version})
}

pub(crate) fn connector_summary(record: &ConnectorRecord) -> Value {
    let members = json!({"Type": TYPE, "State": record.state, "LastModified": iso8601(record.modified_at)});
    with(with(identity(record), members), latest(record))
}

pub(crate) fn connector_version_summary(record: &ConnectorRecord, version: &ConnectorVersionRecord) -> Value {
    let members = json!({"State": version.state, "LastModified": iso8601(version.modified_at)});
    with(with(identity(record), of_version(record, version.version)), members)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_texts() {
        assert_eq!(iso8601(UnixMillis(1_750_000_000_123)), "2025-06-15T15:06:40.123Z");
        assert_eq!(iso8601(UnixMillis(1_750_000_000_000)), "2025-06-15T15:06:40Z");
    }
}
