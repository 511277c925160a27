//! The canonical request, exactly: what signer and verifier must agree on byte for byte.
//!
//! Paths of services other than S3 are normalised and then encoded once more than on the wire (documented). Query strings are decoded and encoded anew,
//! so that two spellings of one value are one.

use emberbox_wire::error::{ApiError, ErrorCode};
use http::HeaderMap;
use http::request::Parts;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::parse::{Claim, Form};
use crate::routing::query_pairs;

/// All but the unreserved characters of RFC 3986.
const VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const PATH: &AsciiSet = &VALUE.remove(b'/');

/// `Err` when a header that is said to be signed is not there.
pub fn request(parts: &Parts, claim: &Claim, body_hash: &str) -> Result<String, ApiError> {
    Ok(format!(
        "{}\n{}\n{}\n{}\n{}\n{body_hash}",
        parts.method,
        path(parts.uri.path()),
        query(parts.uri.query().unwrap_or_default(), claim.form),
        headers(&parts.headers, &claim.signed_headers)?,
        claim.signed_headers.join(";"),
    ))
}

fn path(raw: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    for segment in raw.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    let slash = if !segments.is_empty() && (raw.ends_with('/') || raw.ends_with("/.") || raw.ends_with("/..")) { "/" } else { "" };
    utf8_percent_encode(&format!("/{}{slash}", segments.join("/")), PATH).to_string()
}

fn query(raw: &str, form: Form) -> String {
    let encode = |text: &str| utf8_percent_encode(text, VALUE).to_string();
    let mut pairs: Vec<(String, String)> = query_pairs(raw)
        .into_iter()
        .filter(|(name, _)| form == Form::Header || name != "X-Amz-Signature")
        .map(|(name, value)| (encode(&name), encode(&value)))
        .collect();
    pairs.sort();
    pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

fn headers(headers: &HeaderMap, signed: &[String]) -> Result<String, ApiError> {
    if !signed.is_sorted() || signed.iter().any(|name| name.bytes().any(|b| b.is_ascii_uppercase())) {
        return Err(ApiError::new(ErrorCode::IncompleteSignature, "SignedHeaders must be lower-case names in alphabetical order."));
    }
    let mut text = String::new();
    for name in signed {
        let values: Vec<String> = headers.get_all(name).iter().map(|value| squeeze(value.as_bytes())).collect();
        if values.is_empty() {
            let message = format!("The header '{name}' is in SignedHeaders but not in the request.");
            return Err(ApiError::new(ErrorCode::IncompleteSignature, message));
        }
        text.push_str(&format!("{name}:{}\n", values.join(",")));
    }
    Ok(text)
}

/// Without spaces around, and one where there were several.
fn squeeze(value: &[u8]) -> String {
    String::from_utf8_lossy(value).split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised_and_encoded_twice() {
        for (raw, canonical) in [
            ("/", "/"),
            ("", "/"),
            ("/a%3Ab/c", "/a%253Ab/c"),
            ("/a:b", "/a%3Ab"),
            ("/a//b/./c/../d/", "/a/b/d/"),
            ("/../..", "/"),
            ("/a~b_c-d.e", "/a~b_c-d.e"),
        ] {
            assert_eq!(path(raw), canonical, "{raw}");
        }
    }

    #[test]
    fn queries_are_sorted_by_encoded_name_then_value() {
        assert_eq!(query("b=2&a=%2f&a=1&c", Form::Header), "a=%2F&a=1&b=2&c=");
        assert_eq!(query("X-Amz-Signature=x&a=1", Form::Presigned { expires_seconds: 1 }), "a=1");
        assert_eq!(query("X-Amz-Signature=x&a=1", Form::Header), "X-Amz-Signature=x&a=1");
    }
}
