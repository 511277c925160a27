//! The `aws-sigv4` crate signs, we verify; then every part of what was signed is tampered with.
#![allow(clippy::unwrap_used)]
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_sigv4::http_request::{PayloadChecksumKind, SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
use aws_sigv4::sign::v4;
use emberbox_wire::caller::{AccessKey, Caller};
use emberbox_wire::error::{ApiError, ErrorCode};
use emberbox_wire::ids::AccountId;
use http::request::Parts;
use http::{HeaderValue, Method, Request};
use proptest::prelude::*;
use time::OffsetDateTime;

use super::*;

const KEY_ID: &str = "AKIAEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
/// 2026-07-01T12:00:00Z.
const NOW: u64 = 1_782_907_200;

struct OneKey;

#[async_trait]
impl Credentials for OneKey {
    async fn access_key(&self, id: &str, session_token: Option<&str>) -> Result<AccessKey, CredentialError> {
        let secret = self.secret(id).await?;
        let caller = Caller::root(AccountId("123456789012".into()), id);
        match session_token {
            Some("expired") => Err(CredentialError::Expired),
            None | Some("token/+=") => Ok(AccessKey { id: id.into(), secret, caller }),
            Some(_) => Err(CredentialError::Invalid),
        }
    }

    async fn secret(&self, id: &str) -> Result<String, CredentialError> {
        if id == KEY_ID { Ok(SECRET.into()) } else { Err(CredentialError::Invalid) }
    }
}

/// What is to be signed.
#[derive(Clone)]
struct Case<'a> {
    method: &'a str,
    uri: &'a str,
    body: &'a [u8],
    headers: Vec<(&'static str, &'static str)>,
    key_id: &'a str,
    secret: &'a str,
    token: Option<&'a str>,
    presigned: Option<Duration>,
    hash_header: bool,
}

impl Default for Case<'_> {
    fn default() -> Self {
        Self {
            method: "POST",
            uri: "/2025-09-09/microvms",
            body: b"{}",
            headers: vec![("content-type", "application/json"), ("x-custom", "  two   words ")],
            key_id: KEY_ID,
            secret: SECRET,
            token: None,
            presigned: None,
            hash_header: true,
        }
    }
}

impl Case<'_> {
    fn signed(&self) -> Parts {
        let identity = aws_credential_types::Credentials::new(self.key_id, self.secret, self.token.map(str::to_owned), None, "test").into();
        let mut settings = SigningSettings::default();
        if self.hash_header {
            settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        }
        if self.presigned.is_some() {
            settings.signature_location = SignatureLocation::QueryParams;
            settings.expires_in = self.presigned;
        }
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region("us-east-1")
            .name("lambda")
            .time(SystemTime::UNIX_EPOCH + Duration::from_secs(NOW))
            .settings(settings)
            .build()
            .unwrap()
            .into();
        let url = format!("http://127.0.0.1:9000{}", self.uri);
        let signable = SignableRequest::new(self.method, &url, self.headers.iter().copied(), SignableBody::Bytes(self.body)).unwrap();
        let (instructions, _) = sign(signable, &parameters).unwrap().into_parts();
        let mut request = Request::builder().method(self.method).uri(&url).body(()).unwrap();
        for (name, value) in &self.headers {
            request.headers_mut().insert(*name, HeaderValue::from_static(value));
        }
        instructions.apply_to_request_http1x(&mut request);
        // As it arrives over HTTP/1.1: origin form, and a Host header.
        let mut parts = request.into_parts().0;
        parts.headers.insert("host", HeaderValue::from_static("127.0.0.1:9000"));
        parts.uri = parts.uri.path_and_query().unwrap().as_str().parse().unwrap();
        parts
    }
}

fn at(seconds: u64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(seconds.try_into().unwrap()).unwrap()
}

fn check_at(parts: &Parts, body: &[u8], seconds: u64) -> Result<AccessKey, ApiError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(verify(parts, body, &OneKey, &SigningKeys::default(), at(seconds))).map(|(key, _)| key)
}

fn check(parts: &Parts, body: &[u8]) -> Result<AccessKey, ApiError> {
    check_at(parts, body, NOW)
}

fn refused(parts: &Parts, body: &[u8]) -> ErrorCode {
    check(parts, body).expect_err("tampered and yet accepted").code
}

const PATHS: [&str; 7] = [
    "/2025-09-09/microvms",
    "/2025-09-09/microvm-images/arn%3Aaws%3Alambda%3Aus-east-1%3A123456789012%3Amicrovm-image%3Asandbox/versions/1.0",
    "/2025-09-09/microvm-images/arn:aws:lambda:us-east-1:123456789012:microvm-image:sandbox",
    "/2025-09-09/microvm-images/a%2Fb/versions?maxResults=5&nextToken=a%2Fb%2Bc%3D%3D&empty=",
    "/2017-03-31/tags/arn%3Ax?tagKeys=b&tagKeys=a&tagKeys=%C3%BC%20x",
    "/2025-09-09//microvms/./x/../y/",
    "/?z=1&a=~-._",
];

#[test]
fn what_aws_sigv4_signs_is_accepted() {
    for uri in PATHS {
        for method in ["GET", "POST", "DELETE"] {
            for (presigned, hash_header) in [(None, true), (None, false), (Some(Duration::from_secs(60)), false)] {
                let case = Case { uri, method, presigned, hash_header, ..Case::default() };
                let key = check(&case.signed(), case.body).unwrap_or_else(|error| panic!("{method} {uri} {presigned:?}: {error}"));
                assert_eq!(key.id, KEY_ID);
            }
        }
    }
}

#[test]
fn every_part_is_covered() {
    for presigned in [None, Some(Duration::from_secs(60))] {
        let case = Case { uri: PATHS[3], presigned, ..Case::default() };
        let signed = case.signed();
        check(&signed, case.body).unwrap();

        assert_eq!(refused(&signed, b"{ }"), ErrorCode::InvalidSignature);
        let tampered = |change: &dyn Fn(&mut Parts)| {
            let mut parts = case.signed();
            change(&mut parts);
            refused(&parts, case.body)
        };
        let uri = signed.uri.to_string();
        let with_uri = |uri: String| tampered(&move |parts: &mut Parts| parts.uri = uri.parse().unwrap());
        assert_eq!(tampered(&|parts| parts.method = Method::DELETE), ErrorCode::InvalidSignature);
        assert_eq!(with_uri(uri.replace("a%2Fb/versions", "a%2Fc/versions")), ErrorCode::InvalidSignature);
        assert_eq!(with_uri(uri.replace("a%2Fb/versions", "a/b/versions")), ErrorCode::InvalidSignature);
        assert_eq!(with_uri(uri.replace("maxResults=5", "maxResults=6")), ErrorCode::InvalidSignature);
        assert_eq!(with_uri(uri.replace("maxResults=5&", "")), ErrorCode::InvalidSignature);
        assert_eq!(with_uri(format!("{uri}&x=y")), ErrorCode::InvalidSignature);
        assert_eq!(
            tampered(&|parts| _ = parts.headers.insert("host", HeaderValue::from_static("other:9000"))),
            ErrorCode::InvalidSignature
        );
        assert_eq!(tampered(&|parts| _ = parts.headers.insert("x-custom", HeaderValue::from_static("three"))), ErrorCode::InvalidSignature);
        assert_eq!(tampered(&|parts| _ = parts.headers.append("x-custom", HeaderValue::from_static("more"))), ErrorCode::InvalidSignature);
        assert_eq!(tampered(&|parts| _ = parts.headers.remove("x-custom")), ErrorCode::IncompleteSignature);
    }
}

#[test]
fn every_part_of_the_claim_is_covered() {
    let header = |change: &dyn Fn(&str) -> String| {
        let mut parts = Case::default().signed();
        let text = change(parts.headers["authorization"].to_str().unwrap());
        parts.headers.insert("authorization", text.parse().unwrap());
        refused(&parts, b"{}")
    };
    assert_eq!(header(&|text| text.replace("/us-east-1/", "/us-east-2/")), ErrorCode::InvalidSignature);
    assert_eq!(header(&|text| text.replace("/lambda/", "/sts/")), ErrorCode::InvalidSignature);
    assert_eq!(header(&|text| text.replace("20260701", "20260630")), ErrorCode::InvalidSignature);
    assert_eq!(header(&|text| text.replace(";x-custom", "")), ErrorCode::InvalidSignature);
    assert_eq!(header(&|text| text.replace(";host", "")), ErrorCode::InvalidSignature);
    assert_eq!(header(&|text| text.replace("aws4_request", "aws5_request")), ErrorCode::IncompleteSignature);
    assert_eq!(header(&|text| text.replace("Signature=", "Sig=")), ErrorCode::IncompleteSignature);
    assert_eq!(header(&|_| "AWS4-HMAC-SHA256".into()), ErrorCode::IncompleteSignature);
    assert_eq!(header(&|_| "AWS4-HMAC-SHA256 Credential=x".into()), ErrorCode::IncompleteSignature);
    assert_eq!(header(&|_| "Bearer x".into()), ErrorCode::IncompleteSignature);
    assert_eq!(
        header(&|text| text.to_uppercase().replace("AWS4-HMAC-SHA256 CREDENTIAL", "AWS4-HMAC-SHA256 Credential")),
        ErrorCode::IncompleteSignature
    );

    let query = |from: &str, to: &str| {
        let mut parts = Case { presigned: Some(Duration::from_secs(60)), ..Case::default() }.signed();
        parts.uri = parts.uri.to_string().replace(from, to).parse().unwrap();
        refused(&parts, b"{}")
    };
    assert_eq!(query("X-Amz-Expires=60", "X-Amz-Expires=61"), ErrorCode::InvalidSignature);
    assert_eq!(query("X-Amz-Expires=60", "X-Amz-Expires=604801"), ErrorCode::IncompleteSignature);
    assert_eq!(query("X-Amz-Expires=60", "X-Amz-Expires=-1"), ErrorCode::IncompleteSignature);
    assert_eq!(query("X-Amz-Signature=", "X-Amz-Signature=0"), ErrorCode::InvalidSignature);
    assert_eq!(query("X-Amz-Algorithm=AWS4", "X-Amz-Algorithm=AWS5"), ErrorCode::IncompleteSignature);
}

#[test]
fn refusals_are_in_awss_words() {
    let unsigned = Request::builder().uri("/2025-09-09/microvms").body(()).unwrap().into_parts().0;
    let error = check(&unsigned, b"").unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::MissingAuthenticationToken, "Missing Authentication Token"));

    let error = check(&Case { key_id: "AKIAOTHER", ..Case::default() }.signed(), b"{}").unwrap_err();
    assert_eq!(error.message, "The security token included in the request is invalid.");
    assert_eq!((error.code.shape(), error.code.status()), ("UnrecognizedClientException", 403));

    let error = check(&Case { secret: "other", ..Case::default() }.signed(), b"{}").unwrap_err();
    assert!(
        error.message.starts_with("The request signature we calculated does not match the signature you provided. Check your AWS Secret")
    );
    assert_eq!((error.code.shape(), error.code.status()), ("InvalidSignatureException", 403));
}

#[test]
fn clocks_may_differ_by_five_minutes() {
    let signed = Case::default().signed();
    for seconds in [NOW - 300, NOW, NOW + 300] {
        check_at(&signed, b"{}", seconds).unwrap();
    }
    let error = check_at(&signed, b"{}", NOW + 301).unwrap_err();
    assert_eq!(error.code, ErrorCode::RequestExpired);
    assert_eq!(error.message, "Signature expired: 20260701T120000Z is now earlier than 20260701T120001Z (20260701T120501Z - 5 min.)");
    let error = check_at(&signed, b"{}", NOW - 301).unwrap_err();
    assert!(error.message.starts_with("Signature not yet current: 20260701T120000Z"), "{error}");

    let presigned = Case { presigned: Some(Duration::from_secs(3600)), ..Case::default() }.signed();
    check_at(&presigned, b"{}", NOW + 3600).unwrap();
    assert_eq!(check_at(&presigned, b"{}", NOW + 3601).unwrap_err().code, ErrorCode::RequestExpired);
}

#[test]
fn session_tokens_come_in_the_header_or_the_query() {
    for presigned in [None, Some(Duration::from_secs(60))] {
        let of = |token| check(&Case { token: Some(token), presigned, ..Case::default() }.signed(), b"{}");
        of("token/+=").unwrap();
        assert_eq!(of("other").unwrap_err().code, ErrorCode::InvalidClientTokenId);
        let expired = of("expired").unwrap_err();
        assert_eq!((expired.code.shape(), expired.code.status()), ("ExpiredTokenException", 403));
        assert_eq!(expired.message, "The security token included in the request is expired");
    }
}

#[test]
fn signing_keys_are_kept_for_their_scope() {
    let keys = SigningKeys::default();
    let key = AccessKey { id: KEY_ID.into(), secret: SECRET.into(), caller: Caller::root(AccountId("1".into()), KEY_ID) };
    let scope = |region: &str| Scope { date: "20150830".into(), region: region.into(), service: "iam".into() };
    // AWS's published example of a derived key.
    let published = "c4afb1cc5771d871763a393e44b703571b55cc28424d1a5e86da6ed3c154a4b9";
    let example = AccessKey { id: "AKIDEXAMPLE".into(), secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(), ..key.clone() };
    for _ in 0..2 {
        assert_eq!(hex::encode(keys.of(&example, &scope("us-east-1"))), published);
    }
    assert_ne!(keys.of(&key, &scope("us-east-1")), keys.of(&key, &scope("us-east-2")));
}

#[test]
fn dates_at_the_ends_of_the_calendar_are_refused_not_panicked_on() {
    for date in ["99991231T235959Z", "00000101T000000Z", "-9999010T000000Z", "+9999999T000000Z", "20261301T000000Z", "", "é"] {
        let mut parts = Case::default().signed();
        let header = parts.headers["authorization"].to_str().unwrap().replace("20260701", date.get(..8).unwrap_or("x"));
        parts.headers.insert("authorization", header.parse().unwrap());
        parts.headers.insert("x-amz-date", HeaderValue::from_bytes(date.as_bytes()).unwrap());
        check(&parts, b"{}").unwrap_err();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever path, query and body: what the SDK's signer signs is accepted, and one changed byte of the body is not.
    #[test]
    fn signer_and_verifier_agree(
        path in "(/[a-zA-Z0-9_.~:@!$'()*,;=-]{1,12}|/%[2-7][0-9A-F]){0,5}",
        query in "([a-z]{1,4}=([a-zA-Z0-9._~-]|%[2-7][0-9A-F]){0,8}&){0,4}",
        body in prop::collection::vec(any::<u8>(), 1..200),
        presigned in any::<bool>(),
        flip in any::<prop::sample::Index>(),
    ) {
        let uri = format!("/x{path}?{query}");
        let presigned = presigned.then_some(Duration::from_secs(60));
        let case = Case { uri: &uri, body: &body, presigned, ..Case::default() };
        let parts = case.signed();
        prop_assert!(check(&parts, &body).is_ok(), "{} {:?}", uri, check(&parts, &body));
        let mut other = body.clone();
        other[flip.index(body.len())] ^= 1;
        prop_assert!(check(&parts, &other).is_err());
    }

    #[test]
    fn no_claim_makes_it_panic(header in ".*", date in "[0-9TZ+-]{0,18}", query in "(X-Amz-[A-Za-z]{1,12}=[A-Za-z0-9%/-]{0,20}&){0,8}") {
        let mut parts = Request::builder().uri("/").body(()).unwrap().into_parts().0;
        if let Ok(uri) = format!("/?{query}").parse() {
            parts.uri = uri;
        }
        let _ = check(&parts, b"");
        for text in [header.clone(), format!("AWS4-HMAC-SHA256 Credential=A/{}/r/lambda/aws4_request, SignedHeaders=host, Signature={header}", date.get(..8).unwrap_or(""))] {
            if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
                parts.headers.insert("authorization", value);
                parts.headers.insert("x-amz-date", HeaderValue::from_bytes(date.as_bytes()).unwrap());
                let _ = check(&parts, b"");
            }
        }
    }
}
