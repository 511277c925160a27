//! What a request claims about its signature: the `Authorization` header or the `X-Amz-*` query parameters, taken apart and nothing believed yet.

use emberbox_wire::error::{ApiError, ErrorCode};
use http::request::Parts;

use super::ALGORITHM;
use crate::routing::query_pairs;

/// `<date>/<region>/<service>/aws4_request`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope {
    /// `YYYYMMDD`.
    pub date: String,
    pub region: String,
    pub service: String,
}

/// Where the signature stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Header,
    Presigned { expires_seconds: u32 },
}

/// An unverified signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub access_key_id: String,
    pub scope: Scope,
    /// Lower-case names in the order given.
    pub signed_headers: Vec<String>,
    pub signature: String,
    /// `X-Amz-Date` as sent: `YYYYMMDDTHHMMSSZ`.
    pub timestamp: String,
    /// `X-Amz-Content-Sha256` of the query form.
    pub content_sha256: Option<String>,
    /// `X-Amz-Security-Token`, which temporary credentials bring.
    pub session_token: Option<String>,
    pub form: Form,
}

impl Claim {
    /// `None` for a request that claims no signature of this kind at all.
    pub fn of(parts: &Parts) -> Result<Option<Self>, ApiError> {
        if let Some(header) = parts.headers.get(http::header::AUTHORIZATION) {
            let header = header.to_str().map_err(|_| incomplete("Authorization header is not ASCII text."))?;
            return Self::from_header(parts, header).map(Some);
        }
        let query = query_pairs(parts.uri.query().unwrap_or_default());
        if query.iter().any(|(name, _)| name == "X-Amz-Algorithm" || name == "X-Amz-Signature") {
            return Self::from_query(&query).map(Some);
        }
        Ok(None)
    }

    fn from_header(parts: &Parts, header: &str) -> Result<Self, ApiError> {
        let rest = header
            .trim()
            .strip_prefix(ALGORITHM)
            .filter(|rest| rest.starts_with([' ', '\t']))
            .ok_or_else(|| incomplete(&format!("Authorization header requires the algorithm {ALGORITHM}.")))?;
        let field = |name: &str| {
            rest.split(',')
                .filter_map(|pair| pair.trim().split_once('='))
                .find(|(key, _)| *key == name)
                .map(|(_, value)| value.trim().to_owned())
        };
        let timestamp = parts.headers.get("x-amz-date").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (Some(credential), Some(headers), Some(signature), Some(timestamp)) =
            (field("Credential"), field("SignedHeaders"), field("Signature"), timestamp.clone())
        else {
            let lacks = [
                (field("Credential").is_none(), "Authorization header requires 'Credential' parameter."),
                (field("Signature").is_none(), "Authorization header requires 'Signature' parameter."),
                (field("SignedHeaders").is_none(), "Authorization header requires 'SignedHeaders' parameter."),
                (timestamp.is_none(), "Authorization header requires existence of an 'X-Amz-Date' header."),
            ];
            return Err(incomplete(&lacks.iter().filter(|(lacking, _)| *lacking).map(|(_, text)| *text).collect::<Vec<_>>().join(" ")));
        };
        let session_token = parts.headers.get("x-amz-security-token").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let claim = Self::new(&credential, &headers, signature, timestamp, Form::Header)?;
        Ok(Self { session_token, ..claim })
    }

    fn from_query(query: &[(String, String)]) -> Result<Self, ApiError> {
        let find = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let field = |name: &str| find(name).ok_or_else(|| incomplete(&format!("AWS query-string parameters must include '{name}'.")));
        if field("X-Amz-Algorithm")? != ALGORITHM {
            return Err(incomplete(&format!("X-Amz-Algorithm only supports \"{ALGORITHM}\".")));
        }
        let expires_seconds = field("X-Amz-Expires")?.parse().map_err(|_| incomplete("X-Amz-Expires should be a number of seconds."))?;
        let claim = Self::new(
            &field("X-Amz-Credential")?,
            &field("X-Amz-SignedHeaders")?,
            field("X-Amz-Signature")?,
            field("X-Amz-Date")?,
            Form::Presigned { expires_seconds },
        )?;
        Ok(Self { content_sha256: find("X-Amz-Content-Sha256"), session_token: find("X-Amz-Security-Token"), ..claim })
    }

    fn new(credential: &str, headers: &str, signature: String, timestamp: String, form: Form) -> Result<Self, ApiError> {
        let (access_key_id, scope) = parse_credential(credential)?;
        let signed_headers: Vec<String> = headers.split(';').map(str::to_owned).collect();
        if !signed_headers.iter().any(|name| name == "host") {
            return Err(ApiError::new(ErrorCode::InvalidSignature, "'Host' must be a 'SignedHeader' in the AWS Authorization."));
        }
        Ok(Self { access_key_id, scope, signed_headers, signature, timestamp, content_sha256: None, session_token: None, form })
    }
}

/// What a request says of its signer, unchecked.
pub fn claimed(parts: &Parts) -> Option<Claim> {
    Claim::of(parts).ok().flatten()
}

/// The service a request is signed for, signature unchecked: it decides who verifies it.
pub fn claimed_service(parts: &Parts) -> Option<String> {
    claimed(parts).map(|claim| claim.scope.service)
}

/// `<key id>/<date>/<region>/<service>/aws4_request`; a key id may itself hold slashes (documented for none, harmless).
fn parse_credential(credential: &str) -> Result<(String, Scope), ApiError> {
    let fields: Vec<&str> = credential.rsplitn(5, '/').collect();
    match fields[..] {
        ["aws4_request", service, region, date, id] if ![service, region, date, id].contains(&"") => {
            Ok((id.into(), Scope { date: date.into(), region: region.into(), service: service.into() }))
        }
        _ => Err(incomplete(
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/aws4_request, and none of them empty.",
        )),
    }
}

fn incomplete(message: &str) -> ApiError {
    ApiError::new(ErrorCode::IncompleteSignature, message)
}
