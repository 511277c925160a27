//! ListMicrovms: the caller's MicroVMs, newest first, terminated ones included, filtered by image and version.

use std::sync::Arc;

use emberbox_wire::arn::ImageArn;
use emberbox_wire::caller::Caller;
use emberbox_wire::ids::ImageVersion;
use serde::Deserialize;
use serde_json::Value;

use crate::control::Core;
use crate::pagination::{Listing, PageRequest};
use crate::refusal::{Failure, Refusal};
use crate::views;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    image_identifier: Option<String>,
    image_version: Option<String>,
    #[serde(flatten)]
    page: PageRequest,
}

pub(crate) async fn handle(core: &Arc<Core>, caller: &Caller, input: Value) -> Result<Value, Failure> {
    let request: Request = serde_json::from_value(input)?;
    let (image, version) = (request.image_identifier, request.image_version);
    let name =
        vec!["ListMicrovms".into(), caller.account.to_string(), image.clone().unwrap_or_default(), version.clone().unwrap_or_default()];
    let listing = Listing { secret: &core.secret, name };
    let cursor = listing.cursor(&request.page)?;
    let image: Option<ImageArn> = image.map(|arn| arn.parse()).transpose().map_err(Refusal::from)?;
    let version = match version.map(|version| version.parse::<ImageVersion>()) {
        // No MicroVM has a version that is none.
        Some(Err(_)) => return Ok(listing.answer(Vec::new(), None)),
        Some(Ok(version)) => Some(version),
        None => None,
    };
    let page = core.store.microvms(&caller.account, image.as_ref(), version, cursor, request.page.limit()).await?;
    Ok(listing.answer(page.items.iter().map(views::microvm_summary).collect(), page.next))
}
