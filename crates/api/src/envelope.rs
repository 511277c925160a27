//! How answers look: the rest-json envelope of the Lambda API and the XML envelope of the query protocol (STS, IAM).
//!
//! Owns statuses, headers and bodies of answers; adds nothing to a message. The request id goes onto every response in `front`.

use bytes::Bytes;
use emberbox_wire::error::{ApiError, ErrorCode};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Map, Value, json};

use crate::model::{Location, Model, Operation};
use crate::services::{QueryError, ResponseBody};

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
/// The same, where clients of S3 look for it.
pub const S3_REQUEST_ID: HeaderName = HeaderName::from_static("x-amz-request-id");
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const XML: HeaderValue = HeaderValue::from_static("text/xml");

/// The answer of an operation: status by the model, null members dropped, no body where the status has none.
pub fn success(operation: &Operation, output: Value) -> Response<ResponseBody> {
    let status = StatusCode::from_u16(operation.status).unwrap_or(StatusCode::OK);
    if status == StatusCode::NO_CONTENT {
        return respond(status, None, Bytes::new());
    }
    let output = match without_nulls(output) {
        Value::Null => json!({}),
        output => output,
    };
    respond(status, Some(JSON), Bytes::from(output.to_string()))
}

/// `x-amzn-errortype`, and `message` beside the other members of the shape, null when unknown (observed).
pub fn error(model: &Model, operation: Option<&Operation>, error: &ApiError) -> Response<ResponseBody> {
    json_error(model, operation, error, false)
}

/// For clients of services that are not served here, whose protocol looks for the type in the body.
pub(crate) fn foreign_error(model: &Model, error: &ApiError) -> Response<ResponseBody> {
    json_error(model, None, error, true)
}

/// What an operation calls an error: by the first of its names that the operation declares.
pub(crate) fn spelled(operation: Option<&Operation>, code: ErrorCode) -> &'static str {
    spelled_by(operation.map(|operation| operation.errors.as_slice()).unwrap_or_default(), code)
}

/// As [`spelled`], by the errors an operation declares.
pub(crate) fn spelled_by(errors: &[String], code: ErrorCode) -> &'static str {
    let names: &[&'static str] = match code {
        ErrorCode::Conflict => &["ConflictException", "ResourceConflictException"],
        ErrorCode::Throttling => &["ThrottlingException", "TooManyRequestsException"],
        ErrorCode::InternalServer => &["InternalServerException", "ServiceException"],
        // A constraint's violation keeps its name whatever is declared: what judges it stands before the service (observed).
        _ => &[],
    };
    let declared = |name: &&&str| errors.iter().any(|error| error == **name);
    names.iter().find(declared).copied().unwrap_or_else(|| code.shape())
}

fn json_error(model: &Model, operation: Option<&Operation>, error: &ApiError, body_names_type: bool) -> Response<ResponseBody> {
    let name = spelled(operation, error.code);
    let shape = model.shape_named(name);
    let status = shape.and_then(|shape| shape.error_status).unwrap_or_else(|| error.code.status());
    let mut body = Map::new();
    let mut retry_after = None;
    let mut message_member = "message";
    for member in shape.map(|shape| shape.members()).unwrap_or_default() {
        let value = error.members.get(&member.name).cloned().unwrap_or_default();
        match (member.location, member.wire_name.as_str()) {
            (Location::Header, _) => retry_after = value.as_u64(),
            (_, "Message") => message_member = "Message",
            // Whose fault it is, in the older words of Lambda (documented).
            (_, "Type") => drop(body.insert("Type".into(), if status < 500 { "User" } else { "Service" }.into())),
            (_, wire_name) => drop(body.insert(wire_name.into(), value)),
        }
    }
    if body_names_type {
        body.insert("__type".into(), name.into());
    }
    body.insert(message_member.into(), error.message.as_str().into());
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = respond(status, Some(JSON), Bytes::from(Value::Object(body).to_string()));
    response.headers_mut().insert(ERROR_TYPE, HeaderValue::from_static(name));
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

pub fn query_success(xml: String) -> Response<ResponseBody> {
    respond(StatusCode::OK, Some(XML), Bytes::from(xml))
}

/// What the JSON services call an error, in the words of the query protocol (documented: STS and IAM, "Common errors").
pub fn in_query_words(error: ApiError) -> QueryError {
    let (code, status) = match error.code {
        ErrorCode::InvalidClientTokenId => ("InvalidClientTokenId", 403),
        ErrorCode::ExpiredToken => ("ExpiredToken", 403),
        ErrorCode::InvalidSignature | ErrorCode::RequestExpired => ("SignatureDoesNotMatch", 403),
        ErrorCode::IncompleteSignature => ("IncompleteSignature", 400),
        ErrorCode::MissingAuthenticationToken => ("MissingAuthenticationToken", 403),
        ErrorCode::UnknownOperation => ("InvalidAction", 400),
        ErrorCode::Validation => ("ValidationError", 400),
        ErrorCode::AccessDenied => ("AccessDenied", 403),
        ErrorCode::Throttling => ("Throttling", 400),
        ErrorCode::InternalServer => ("InternalFailure", 500),
        other => (other.shape().trim_end_matches("Exception"), other.status()),
    };
    QueryError::new(code, status, error.message)
}

pub fn query_error(error: &QueryError, namespace: &str, request_id: &str) -> Response<ResponseBody> {
    let fault = if error.status < 500 { "Sender" } else { "Receiver" };
    let xml = format!(
        "<ErrorResponse xmlns=\"{namespace}\"><Error><Type>{fault}</Type><Code>{}</Code><Message>{}</Message></Error>\
         <RequestId>{request_id}</RequestId></ErrorResponse>",
        escape_xml(&error.code),
        escape_xml(&error.message)
    );
    respond(StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Some(XML), Bytes::from(xml))
}

/// For text content; control characters that XML 1.0 forbids become U+FFFD.
pub fn escape_xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() && !matches!(c, '\n' | '\r' | '\t') => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

pub(crate) fn health() -> Response<ResponseBody> {
    respond(StatusCode::OK, Some(JSON), Bytes::from_static(br#"{"status":"ok"}"#))
}

fn respond(status: StatusCode, content_type: Option<HeaderValue>, body: Bytes) -> Response<ResponseBody> {
    let mut response = Response::new(Full::new(body).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    if let Some(content_type) = content_type {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            members.into_iter().filter(|(_, member)| !member.is_null()).map(|(name, member)| (name, without_nulls(member))).collect()
        }
        Value::Array(elements) => elements.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn body(response: Response<ResponseBody>) -> Value {
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    #[tokio::test]
    async fn errors_carry_the_members_of_their_shape() {
        let model = Model::load().unwrap();
        let response = error(&model, None, &ApiError::not_found("gone", "microvm", "m-1"));
        assert_eq!((response.status().as_u16(), response.headers()[ERROR_TYPE].to_str().unwrap()), (404, "ResourceNotFoundException"));
        assert_eq!(body(response).await, json!({"message": "gone", "resourceType": "microvm", "resourceId": "m-1"}));

        let mut throttled = ApiError::new(ErrorCode::Throttling, "slow down");
        throttled.members.insert("retryAfterSeconds".into(), 3.into());
        let response = error(&model, None, &throttled);
        assert_eq!(response.headers()[RETRY_AFTER], "3");
        assert_eq!(body(response).await, json!({"message": "slow down", "serviceCode": null, "quotaCode": null}));
    }

    #[tokio::test]
    async fn errors_are_spelled_as_the_operation_declares_them() {
        let model = Model::parse(emberbox_wire::LAMBDA_CORE_MODEL).unwrap();
        let operation = model.operations.iter().find(|operation| operation.name == "UpdateNetworkConnector");
        let answer = async |code| {
            let response = error(&model, operation, &ApiError::new(code, "words"));
            let name = response.headers()[ERROR_TYPE].to_str().unwrap().to_owned();
            (response.status().as_u16(), name, body(response).await)
        };
        let user = |message: &str| json!({"Type": "User", message: "words"});
        assert_eq!(answer(ErrorCode::Conflict).await, (409, "ResourceConflictException".into(), user("message")));
        assert_eq!(answer(ErrorCode::ResourceNotFound).await, (404, "ResourceNotFoundException".into(), user("Message")));
        let limit = "NetworkConnectorLimitExceededException";
        assert_eq!(answer(ErrorCode::NetworkConnectorLimitExceeded).await, (400, limit.into(), user("message")));
        assert_eq!(answer(ErrorCode::Validation).await, (400, "ValidationException".into(), json!({"message": "words"})));
        let (status, name, _) = answer(ErrorCode::InternalServer).await;
        assert_eq!((status, name.as_str()), (500, "ServiceException"));
        let mut throttled = ApiError::new(ErrorCode::Throttling, "words");
        throttled.members.insert("retryAfterSeconds".into(), 3.into());
        throttled.members.insert("Reason".into(), "CallerRateLimitExceeded".into());
        let response = error(&model, operation, &throttled);
        assert_eq!((response.status().as_u16(), response.headers()[RETRY_AFTER].to_str().unwrap()), (429, "3"));
        assert_eq!(body(response).await, json!({"Type": "User", "message": "words", "Reason": "CallerRateLimitExceeded"}));
    }

    #[tokio::test]
    async fn answers_have_the_status_of_the_model_and_no_nulls() {
        let model = Model::load().unwrap();
        let operation = |name: &str| model.operations.iter().find(|operation| operation.name == name).unwrap();
        let response = success(operation("CreateMicrovmImage"), json!({"a": null, "b": [{"c": null, "d": 1.5}]}));
        assert_eq!(response.status(), 201);
        assert_eq!(body(response).await, json!({"b": [{"d": 1.5}]}));
        assert_eq!(body(success(operation("SuspendMicrovm"), Value::Null)).await, json!({}));
        let response = success(operation("TagResource"), json!({}));
        assert_eq!(response.status(), 204);
        assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
    }
}
