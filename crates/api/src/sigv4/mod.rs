//! AWS Signature Version 4, the receiving side, for services whose whole body is at hand (documented: IAM user guide, "Signature Version 4").
//!
//! Owns the decision whether a request was signed by a key this daemon knows, in the header or the query form. S3 is not verified here: `s3s` does it
//! together with its chunked bodies. Never logs or returns a secret, and tells a client no more than AWS does.
//!
//! Phases: [`parse`] what the request claims → look the key up → [`clock`] → [`canonical`] request and signature → compare in constant time.
//!
//! A request that is seen again within the five minutes of its signature is answered again, as AWS does (documented): two equal requests of one second
//! carry one signature, so they cannot be told from a replay. Operations that must not happen twice have client tokens.

pub mod canonical;
pub mod clock;
mod keys;
pub mod parse;

use emberbox_wire::caller::AccessKey;
use emberbox_wire::error::{ApiError, ErrorCode};
use http::request::Parts;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use time::OffsetDateTime;

pub use keys::SigningKeys;
pub use parse::{Claim, Form, Scope};

use crate::services::{CredentialError, Credentials};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// AWS's sentence (observed).
const MISMATCH: &str = "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and \
                        signing method. Consult the service documentation for details.";

/// Whose request this is, or why it is nobody's. `now` is the daemon's clock.
pub async fn verify(
    parts: &Parts,
    body: &[u8],
    credentials: &dyn Credentials,
    signing_keys: &SigningKeys,
    now: OffsetDateTime,
) -> Result<(AccessKey, Scope), ApiError> {
    let claim = Claim::of(parts)?.ok_or_else(missing)?;
    let key = credentials.access_key(&claim.access_key_id, claim.session_token.as_deref()).await.map_err(not_a_key)?;
    clock::check(&claim, now)?;
    let body_hash = hex::encode(Sha256::digest(body));
    check_declared_hash(parts, &claim, &body_hash)?;
    let canonical = canonical::request(parts, &claim, &body_hash)?;
    let expected = signature(&signing_keys.of(&key, &claim.scope), &claim, &canonical);
    if !bool::from(expected.as_bytes().ct_eq(claim.signature.as_bytes())) {
        return Err(ApiError::new(ErrorCode::InvalidSignature, MISMATCH));
    }
    Ok((key, claim.scope))
}

fn missing() -> ApiError {
    ApiError::new(ErrorCode::MissingAuthenticationToken, "Missing Authentication Token")
}

fn not_a_key(error: CredentialError) -> ApiError {
    match error {
        CredentialError::Invalid => {
            ApiError::new(ErrorCode::InvalidClientTokenId, "The security token included in the request is invalid.")
        }
        CredentialError::Expired => ApiError::new(ErrorCode::ExpiredToken, "The security token included in the request is expired"),
        CredentialError::Unavailable => ApiError::internal(),
    }
}

/// A body hash the client declares must be the body's; a presigned URL may leave the payload unsigned only by declaring nothing of it (ours: AWS takes
/// `UNSIGNED-PAYLOAD` for S3 alone).
fn check_declared_hash(parts: &Parts, claim: &Claim, body_hash: &str) -> Result<(), ApiError> {
    let declared = claim.content_sha256.as_deref().or_else(|| parts.headers.get("x-amz-content-sha256").and_then(|v| v.to_str().ok()));
    match declared {
        Some(declared) if !bool::from(declared.as_bytes().ct_eq(body_hash.as_bytes())) => {
            Err(ApiError::new(ErrorCode::InvalidSignature, "The value of 'x-amz-content-sha256' does not match the SHA-256 of the body."))
        }
        _ => Ok(()),
    }
}

fn signature(signing_key: &[u8], claim: &Claim, canonical_request: &str) -> String {
    let scope = &claim.scope;
    let string_to_sign = format!(
        "{ALGORITHM}\n{}\n{}/{}/{}/aws4_request\n{}",
        claim.timestamp,
        scope.date,
        scope.region,
        scope.service,
        hex::encode(Sha256::digest(canonical_request))
    );
    hex::encode(keys::hmac(signing_key, &string_to_sign))
}

#[cfg(test)]
mod tests;
