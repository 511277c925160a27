//! ListMicrovmImageBuilds: a version's builds, newest first, filtered by the chip they are for.

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
    image_version: String,
    #[serde(flatten)]
    filter: Filter,
    #[serde(flatten)]
    page: PageRequest,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    architecture: Option<String>,
    chipset: Option<String>,
    chipset_generation: Option<String>,
}

pub(crate) async fn handle(core: &Arc<Core>, caller: &Caller, input: Value) -> Result<Value, Failure> {
    let request: Request = serde_json::from_value(input)?;
    let image = lookup::image(core, caller, &request.image_identifier).await?;
    let version = lookup::version(core, &image, &request.image_version).await?;
    let name = vec!["ListMicrovmImageBuilds".into(), image.id.to_string(), version.version.to_string()];
    let listing = Listing { secret: &core.secret, name };
    let cursor = listing.cursor(&request.page)?;
    if !request.filter.admits_this_host() {
        return Ok(listing.answer(Vec::new(), None));
    }
    let page = core.store.builds(image.id, version.version, cursor, request.page.limit()).await?;
    Ok(listing.answer(page.items.iter().map(|build| views::build_summary(&image.arn, build)).collect(), page.next))
}

impl Filter {
    /// Every build is for the host's one chip generation: a filter admits all of them or none.
    fn admits_this_host(&self) -> bool {
        let admits = |wanted: &Option<String>, has: &str| wanted.as_deref().is_none_or(|wanted| wanted == has);
        admits(&self.architecture, views::ARCHITECTURE)
            && admits(&self.chipset, views::CHIPSET)
            && admits(&self.chipset_generation, views::CHIPSET_GENERATION)
    }
}
