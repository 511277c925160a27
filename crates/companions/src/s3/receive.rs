//! A body on its way into the store: bytes to a staged file, digests beside, compared before anything is committed.

use futures::StreamExt;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Md5};
use s3s::dto::StreamingBlob;
use s3s::{S3Result, TrailingHeaders, s3_error};
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

use super::record::Checksums;
use super::store::{Staged, Store, StoreError};

/// Of one PUT or part (documented).
pub(super) const MAX_OBJECT_BYTES: u64 = 5 * 1024 * 1024 * 1024;
const WRITE_BUFFER_BYTES: usize = 256 * 1024;

/// What the client said of the body.
pub(super) struct Said {
    pub(super) md5_base64: Option<String>,
    pub(super) checksums: Checksums,
    pub(super) trailers: Option<TrailingHeaders>,
}

/// Staged bytes that are what the client said.
pub(super) struct Received {
    pub(super) staged: Staged,
    pub(super) size: u64,
    pub(super) md5: [u8; 16],
    pub(super) checksums: Checksums,
}

pub(super) async fn receive(store: &Store, body: StreamingBlob, mut said: Said, mut hasher: ChecksumHasher) -> S3Result<Received> {
    let staged = store.stage();
    let (size, md5) = write(&staged, body, &mut hasher).await?;
    let checksums = Checksums::from_dto(hasher.finalize());
    if let Some(trailers) = said.trailers.take().and_then(|trailers| trailers.take()) {
        said.checksums.extend_from_trailers(&trailers);
    }
    said.checksums.check(&checksums)?;
    if said.md5_base64.is_some_and(|said| md5_of_base64(&said) != Some(md5)) {
        return Err(s3_error!(BadDigest, "The Content-MD5 you specified did not match what we received."));
    }
    Ok(Received { staged, size, md5, checksums })
}

async fn write(staged: &Staged, mut body: StreamingBlob, hasher: &mut ChecksumHasher) -> S3Result<(u64, [u8; 16])> {
    let file = tokio::fs::File::create(staged.path()).await.map_err(StoreError::from)?;
    let mut file = tokio::io::BufWriter::with_capacity(WRITE_BUFFER_BYTES, file);
    let (mut size, mut md5) = (0u64, Md5::new());
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| {
            tracing::debug!(%error, "an upload broke off");
            s3_error!(IncompleteBody, "The request body did not arrive whole, or is not what its signature covers.")
        })?;
        size += chunk.len() as u64;
        if size > MAX_OBJECT_BYTES {
            return Err(s3_error!(EntityTooLarge, "Your proposed upload exceeds the maximum allowed size of 5 GiB."));
        }
        md5.update(&chunk);
        hasher.update(&chunk);
        file.write_all(&chunk).await.map_err(StoreError::from)?;
    }
    file.flush().await.map_err(StoreError::from)?;
    file.get_ref().sync_all().await.map_err(StoreError::from)?;
    Ok((size, md5.finalize()))
}

fn md5_of_base64(text: &str) -> Option<[u8; 16]> {
    decode_base64(text)?.try_into().ok()
}

/// Standard base64 with padding.
pub(super) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).ok()
}

pub(super) fn new_data() -> Uuid {
    Uuid::new_v4()
}
