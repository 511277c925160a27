//! ListNetworkConnectorVersions: a connector's versions, newest first, in one state if asked.

use std::sync::Arc;

use emberbox_wire::caller::Caller;
use emberbox_wire::connectors::ConnectorState;
use serde::Deserialize;
use serde_json::Value;

use super::connector_lookup as lookup;
use crate::connector::views;
use crate::control::Core;
use crate::pagination::{Listing, MarkerRequest};
use crate::refusal::{Failure, word};

/// The model's limit of the answer.
const MAXIMUM_ITEMS: u32 = 100;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    identifier: String,
    state: Option<ConnectorState>,
    #[serde(flatten)]
    page: MarkerRequest,
}

pub(crate) async fn handle(core: &Arc<Core>, caller: &Caller, input: Value) -> Result<Value, Failure> {
    let request: Request = serde_json::from_value(input)?;
    let record = lookup::connector(core, caller, &request.identifier).await?.unqualified()?;
    let name = vec!["ListNetworkConnectorVersions".into(), record.arn.id.to_string(), request.state.map(word).unwrap_or_default()];
    let listing = Listing { secret: &core.secret, name };
    let cursor = listing.marker(&request.page)?;
    let page = core.store.connector_versions(record.arn.id, request.state, cursor, request.page.limit(MAXIMUM_ITEMS)).await?;
    let items = page.items.iter().map(|version| views::connector_version_summary(&record, version)).collect();
    Ok(listing.answer_as("NetworkConnectorVersions", "NextMarker", items, page.next))
}
