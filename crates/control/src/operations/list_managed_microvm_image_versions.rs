//! ListManagedMicrovmImageVersions: the versions of a base, as bare integers (observed).

use std::sync::Arc;

use emberbox_wire::arn::ImageArn;
use emberbox_wire::caller::Caller;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::control::Core;
use crate::image::managed;
use crate::pagination::{Listing, PageRequest};
use crate::refusal::{Failure, Refusal};
use crate::views::ARCHITECTURE;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    image_identifier: String,
    #[serde(flatten)]
    page: PageRequest,
}

pub(crate) async fn handle(core: &Arc<Core>, _caller: &Caller, input: Value) -> Result<Value, Failure> {
    let request: Request = serde_json::from_value(input)?;
    let arn: ImageArn = request.image_identifier.parse().map_err(Refusal::from)?;
    if !managed::arns(&core.config.region, &*core.host).contains(&arn) {
        return Err(Refusal::NoImage(request.image_identifier).into());
    }
    let listing = Listing { secret: &core.secret, name: vec!["ListManagedMicrovmImageVersions".into(), arn.to_string()] };
    listing.cursor(&request.page)?;
    let item = json!({
        "imageArn": arn.to_string(),
        "imageVersion": managed::VERSION.major.to_string(),
        "status": "AVAILABLE",
        "supportedCpuConfigurations": [{"architecture": ARCHITECTURE}],
        "createdAt": managed::listed_since(core).await?.epoch_seconds(),
    });
    Ok(listing.answer(vec![item], None))
}
