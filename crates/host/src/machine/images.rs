//! Images on this host: proving their files after a start, and deleting them when nobody needs them.

use std::sync::{Arc, Weak};

use uuid::Uuid;

use super::{adopt, blocking, caught};
use crate::local::{LocalHost, remove_directory};
use crate::snapshot::Manifest;
use crate::{HostError, ImageKey, failpoints};

/// Deletes an image unless a machine of this host needs it: copies map its memory and read its disks, suspended ones when they wake. Who needs it is read
/// from the machines' own records.
pub(crate) async fn delete(host: &Arc<LocalHost>, image: &ImageKey) -> Result<(), HostError> {
    let directory = host.layout.image(image).0;
    let aside = host.layout.work().join(format!("deleted-{image}-{}", Uuid::new_v4()));
    let alone = host.image_use.write().await;
    let (asked, key) = (host.clone(), image.clone());
    if let Some(machine) = blocking(move || adopt::user_of(&asked.layout, &key), "look for users of an image").await? {
        return Err(HostError::ImageInUse { image: image.clone(), machine });
    }
    // At once, so that no launch finds half an image; the deleting itself may take a while, and a daemon killed meanwhile empties `work` at its next start.
    let renamed = match std::fs::rename(&directory, &aside) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        other => other.map(|()| true),
    };
    drop(alone);
    host.verifier.forget(image);
    if !renamed.map_err(HostError::internal("set an image aside"))? {
        return Ok(());
    }
    let passed = caught(async { Ok(failpoints::DELETE_IMAGE_ASIDE.pass().await?) }).await;
    // Whatever failed: who asks again finds no image any more, and nobody would come back for these files.
    blocking(move || remove_directory(&aside), "delete an image").await.and(passed)
}

/// Reads every image that has to be read again, one after the other, so that launches need not wait for it.
pub(crate) async fn verify_all(host: Weak<LocalHost>) {
    let Some(images) = host.upgrade().map(|host| std::fs::read_dir(host.layout.images())) else { return };
    for entry in images.into_iter().flatten().flatten() {
        let (Some(host), Some(key)) = (host.upgrade(), entry.file_name().to_str().and_then(ImageKey::new)) else { return };
        let files = host.layout.image(&key);
        let Ok(manifest) = Manifest::load(&files.snapshot(), host.engine.identity()) else { continue };
        if let Err(error) = host.verifier.verify(&key, &files, &manifest).await {
            tracing::error!(image = %key, error = &error as &dyn std::error::Error, "an image is damaged: it will not be launched, and what was suspended from it will not wake");
        }
    }
}
