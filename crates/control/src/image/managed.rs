//! Managed base images: the host's one base, under the name AWS's clients use and under its own.

use emberbox_host::Host;
use emberbox_store::{StoreError, UnixMillis};
use emberbox_wire::arn::ImageArn;
use emberbox_wire::ids::{AccountId, ImageVersion};

use crate::control::Core;
use crate::refusal::Refusal;

/// What AWS calls its base (documented).
const AWS_NAME: &str = "al2023-1";
/// The owner of managed images (documented).
const AWS_ACCOUNT: &str = "aws";
/// Versions of a managed image are bare integers; an image version echoes them as `N.0` (observed).
pub(crate) const VERSION: ImageVersion = ImageVersion::FIRST;

/// The setting that keeps when the base was first listed.
const LISTED_SINCE: &str = "managed-image-listed-since";

/// `createdAt` of the managed images: when this daemon's data first listed them.
pub(crate) async fn listed_since(core: &Core) -> Result<UnixMillis, StoreError> {
    let bytes = core.store.setting_or_insert(LISTED_SINCE, || core.clock.now().0.to_be_bytes().to_vec()).await?;
    Ok(bytes.try_into().map(i64::from_be_bytes).map_or_else(|_| core.clock.now(), UnixMillis))
}

/// The managed images of a region, as they are listed.
pub(crate) fn arns(region: &str, host: &dyn Host) -> Vec<ImageArn> {
    let (own_name, _) = host.base();
    let names = if own_name == AWS_NAME { vec![own_name] } else { vec![AWS_NAME.to_owned(), own_name] };
    let arn = |name| ImageArn { region: region.to_owned(), account: AccountId(AWS_ACCOUNT.to_owned()), name };
    names.into_iter().map(arn).collect()
}

/// The version of a base image that a definition names, or the one there is when it names none.
pub(crate) fn resolve(available: &[ImageArn], base: &str, version: Option<&str>) -> Result<ImageVersion, Refusal> {
    let arn: ImageArn = base.parse()?;
    let known = available.contains(&arn);
    match version {
        None if known => Ok(VERSION),
        None => Err(Refusal::NoManagedImageArn(base.to_owned())),
        // `1` is how it is listed, `1.0` how an image version shows it: a definition read back can be put again.
        Some(version) if known && (version == VERSION.major.to_string() || version == VERSION.to_string()) => Ok(VERSION),
        Some(version) => Err(Refusal::NoManagedImage { arn: base.to_owned(), version: version.to_owned() }),
    }
}
