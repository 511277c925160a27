//! ListMicrovmImageVersions: an image's versions, newest first.

use std::sync::Arc;

use emberbox_wire::caller::Caller;
use serde::Deserialize;
use serde_json::Value;

use super::lookup;
use crate::control::Core;
use crate::pagination::{Listing, PageRequest};
use crate::refusal::Failure;
use crate::views;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    image_identifier: String,
    #[serde(flatten)]
    page: PageRequest,
}

pub(crate) async fn handle(core: &Arc<Core>, caller: &Caller, input: Value) -> Result<Value, Failure> {
    let request: Request = serde_json::from_value(input)?;
    let image = lookup::image(core, caller, &request.image_identifier).await?;
    let listing = Listing { secret: &core.secret, name: vec!["ListMicrovmImageVersions".into(), image.id.to_string()] };
    let page = core.store.versions(image.id, listing.cursor(&request.page)?, request.page.limit()).await?;
    let items = page.items.iter().map(|version| views::version(&image.arn, version)).collect::<Result<_, _>>()?;
    Ok(listing.answer(items, page.next))
}
