//! ListManagedMicrovmImages: the bases images can be built on.

use std::sync::Arc;

use emberbox_wire::caller::Caller;
use serde_json::{Value, json};

use crate::control::Core;
use crate::image::managed;
use crate::pagination::{Listing, PageRequest};
use crate::refusal::Failure;

pub(crate) async fn handle(core: &Arc<Core>, _caller: &Caller, input: Value) -> Result<Value, Failure> {
    let page: PageRequest = serde_json::from_value(input)?;
    let listing = Listing { secret: &core.secret, name: vec!["ListManagedMicrovmImages".into()] };
    let begin = usize::try_from(listing.cursor(&page)?.unwrap_or_default()).unwrap_or_default();
    let arns = managed::arns(&core.config.region, &*core.host);
    let end = arns.len().min(begin.saturating_add(page.limit() as usize));
    let created_at = managed::listed_since(core).await?.epoch_seconds();
    let items = arns.get(begin..end).unwrap_or_default().iter();
    let items = items.map(|arn| json!({"imageArn": arn.to_string(), "createdAt": created_at})).collect();
    Ok(listing.answer(items, (end < arns.len()).then_some(end as i64)))
}
