//! ListNetworkConnectors: the caller's connectors, newest first, in one state if asked.

use std::sync::Arc;

use emberbox_wire::caller::Caller;
use emberbox_wire::connectors::ConnectorState;
use serde::Deserialize;
use serde_json::Value;

use crate::connector::views;
use crate::control::Core;
use crate::pagination::{Listing, MarkerRequest};
use crate::refusal::{Failure, word};

/// The model's limit of the answer, below that of `MaxItems`.
const MAXIMUM_ITEMS: u32 = 50;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    state: Option<ConnectorState>,
    #[serde(flatten)]
    page: MarkerRequest,
}

pub(crate) async fn handle(core: &Arc<Core>, caller: &Caller, input: Value) -> Result<Value, Failure> {
    let request: Request = serde_json::from_value(input)?;
    let name = vec!["ListNetworkConnectors".into(), caller.account.to_string(), request.state.map(word).unwrap_or_default()];
    let listing = Listing { secret: &core.secret, name };
    let cursor = listing.marker(&request.page)?;
    let page = core.store.connectors(&caller.account, request.state, cursor, request.page.limit(MAXIMUM_ITEMS)).await?;
    Ok(listing.answer_as("NetworkConnectors", "NextMarker", page.items.iter().map(views::connector_summary).collect(), page.next))
}
