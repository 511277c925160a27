//! ListMicrovmImages: the caller's images, newest first, by a part of their name if asked.

use std::sync::Arc;

use emberbox_wire::caller::Caller;
use serde::Deserialize;
use serde_json::Value;

use crate::control::Core;
use crate::pagination::{Listing, PageRequest};
use crate::refusal::Failure;
use crate::views::{self, LatestVersions};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    name_filter: Option<String>,
    #[serde(flatten)]
    page: PageRequest,
}

pub(crate) async fn handle(core: &Arc<Core>, caller: &Caller, input: Value) -> Result<Value, Failure> {
    let request: Request = serde_json::from_value(input)?;
    let filter = request.name_filter.as_deref();
    let name = vec!["ListMicrovmImages".into(), caller.account.to_string(), filter.unwrap_or_default().to_owned()];
    let listing = Listing { secret: &core.secret, name };
    let cursor = listing.cursor(&request.page)?;
    let page = core.store.images(&caller.account, filter, cursor, request.page.limit()).await?;
    let items = page.items.iter().map(|listed| {
        let latest = LatestVersions { active: listed.latest_active, failed: listed.latest_failed };
        views::image_summary(&listed.image, latest)
    });
    Ok(listing.answer(items.collect(), page.next))
}
