//! Path labels, query string and JSON body of a request, merged into one object typed by the model.
//!
//! Owns types, not constraints: what comes out has only members the model knows, each of the JSON type the model says, and no nulls. Unknown members
//! are ignored, as AWS does (documented). What cannot be typed is a `SerializationException` in the words of AWS's parsers (observed).

use emberbox_wire::error::{ApiError, ErrorCode};
use serde_json::{Map, Value};

use crate::model::{Kind, Location, Member, Model, ShapeId};
use crate::routing::{Route, query_pairs};

/// The input of the operation a request was routed to.
pub fn input(model: &Model, route: &Route<'_>, query: &str, body: &[u8]) -> Result<Value, ApiError> {
    let mut input = Map::new();
    let Some(shape) = route.operation.input else { return Ok(Value::Object(input)) };
    let members = model.members(shape);
    if members.iter().any(|member| member.location == Location::Body) {
        input = decode_body(model, members, body)?;
    }
    let pairs = query_pairs(query);
    for member in members {
        let given: Vec<&str> = match member.location {
            Location::Path => values_of(&route.labels, &member.wire_name),
            Location::Query => values_of(&pairs, &member.wire_name),
            Location::Body | Location::Header => continue,
        };
        if let Some(value) = from_texts(model, member.shape, &given)? {
            input.insert(member.name.clone(), value);
        }
    }
    Ok(Value::Object(input))
}

fn values_of<'a>(pairs: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
}

fn decode_body(model: &Model, members: &[Member], body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => structure(model, members, object),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(_) => Err(serialization("Start of structure or map not found where expected.")),
        Err(_) => Err(serialization("The request body is not valid JSON.")),
    }
}

/// Values of a path label or a query parameter; a list takes all of them, anything else the first.
fn from_texts(model: &Model, shape: ShapeId, given: &[&str]) -> Result<Option<Value>, ApiError> {
    if let Kind::List { element, .. } = model.shape(shape).kind {
        let elements = given.iter().map(|text| from_text(model, element, text)).collect::<Result<Vec<_>, _>>()?;
        return Ok((!elements.is_empty()).then_some(Value::Array(elements)));
    }
    given.first().map(|text| from_text(model, shape, text)).transpose()
}

fn from_text(model: &Model, shape: ShapeId, text: &str) -> Result<Value, ApiError> {
    let typed = match &model.shape(shape).kind {
        Kind::Integer { bits, .. } => text.parse::<i64>().ok().filter(|n| fits(*n, *bits)).map(Value::from),
        Kind::Boolean => text.parse::<bool>().ok().map(Value::from),
        Kind::Float => text.parse::<f64>().ok().map(Value::from),
        _ => Some(Value::from(text)),
    };
    typed.ok_or_else(|| mismatch("STRING_VALUE", &model.shape(shape).kind))
}

fn structure(model: &Model, members: &[Member], mut object: Map<String, Value>) -> Result<Map<String, Value>, ApiError> {
    let mut typed = Map::new();
    for member in members.iter().filter(|member| member.location == Location::Body) {
        match object.remove(&member.wire_name) {
            None | Some(Value::Null) => {}
            Some(value) => {
                typed.insert(member.name.clone(), from_json(model, member.shape, value)?);
            }
        }
    }
    Ok(typed)
}

/// Elements and map values may be null here; validation refuses them in place.
fn from_json(model: &Model, shape: ShapeId, value: Value) -> Result<Value, ApiError> {
    let kind = &model.shape(shape).kind;
    match (kind, value) {
        (_, Value::Null) => Ok(Value::Null),
        (Kind::Structure { members, .. }, Value::Object(object)) => structure(model, members, object).map(Value::Object),
        (Kind::List { element, .. }, Value::Array(elements)) => {
            elements.into_iter().map(|element_value| from_json(model, *element, element_value)).collect::<Result<_, _>>().map(Value::Array)
        }
        (Kind::Map { value: shape, .. }, Value::Object(object)) => {
            object.into_iter().map(|(key, value)| Ok((key, from_json(model, *shape, value)?))).collect::<Result<_, _>>().map(Value::Object)
        }
        (Kind::Text { .. }, value @ Value::String(_)) | (Kind::Boolean, value @ Value::Bool(_)) => Ok(value),
        (Kind::Float | Kind::Timestamp, value @ Value::Number(_)) => Ok(value),
        (Kind::Integer { bits, .. }, value @ Value::Number(_)) if value.as_i64().is_some_and(|n| fits(n, *bits)) => Ok(value),
        (kind, value) => Err(mismatch(token(&value), kind)),
    }
}

fn fits(number: i64, bits: u8) -> bool {
    bits == 64 || i32::try_from(number).is_ok()
}

fn token(value: &Value) -> &'static str {
    match value {
        Value::Null => "NULL_VALUE",
        Value::Bool(true) => "TRUE_VALUE",
        Value::Bool(false) => "FALSE_VALUE",
        Value::Number(_) => "NUMBER_VALUE",
        Value::String(_) => "STRING_VALUE",
        Value::Array(_) => "START_ARRAY",
        Value::Object(_) => "START_OBJECT",
    }
}

fn mismatch(token: &str, kind: &Kind) -> ApiError {
    serialization(&match (token, kind) {
        ("START_OBJECT", _) => "Start of structure or map found where not expected.".into(),
        ("START_ARRAY", _) => "Start of list found where not expected".into(),
        (_, Kind::Structure { .. } | Kind::Map { .. }) => "Unexpected field type".into(),
        (_, Kind::List { .. }) => "Expected list or null".into(),
        (token, Kind::Text { .. }) => format!("{token} can not be converted to a String"),
        (token, Kind::Integer { bits: 64, .. }) => format!("{token} can not be converted to a Long"),
        (token, Kind::Integer { .. }) => format!("{token} can not be converted to an Integer"),
        (token, Kind::Boolean) => format!("{token} can not be converted to a Boolean"),
        (token, Kind::Float) => format!("{token} can not be converted to a Float"),
        (token, Kind::Timestamp) => format!("{token} can not be converted to a Timestamp"),
    })
}

fn serialization(message: &str) -> ApiError {
    ApiError::new(ErrorCode::Serialization, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::LazyLock;

    use http::Method;
    use serde_json::json;

    use super::*;
    use crate::routing::Routes;

    static MODEL: LazyLock<Model> = LazyLock::new(|| Model::load().unwrap());
    static ROUTES: LazyLock<Routes> = LazyLock::new(|| Routes::new(&MODEL).unwrap());

    fn decode(method: Method, path: &str, query: &str, body: &str) -> Result<Value, ApiError> {
        input(&MODEL, &ROUTES.find(&MODEL, &method, path).unwrap(), query, body.as_bytes())
    }

    #[test]
    fn path_query_and_body_become_one_object() {
        let tags = decode(Method::DELETE, "/2017-03-31/tags/arn%3Ax", "tagKeys=a&tagKeys=b%20c", "").unwrap();
        assert_eq!(tags, json!({"Resource": "arn:x", "TagKeys": ["a", "b c"]}));
        let list = decode(Method::GET, "/2025-09-09/microvms", "maxResults=7&nextToken=t&x=y", "ignored").unwrap();
        assert_eq!(list, json!({"maxResults": 7, "nextToken": "t"}));
        let token = decode(
            Method::POST,
            "/2025-09-09/microvms/m/auth-token",
            "",
            r#"{"expirationInMinutes": 5, "allowedPorts": [{"port": 80}], "microvmIdentifier": "forged", "other": 1}"#,
        );
        assert_eq!(token.unwrap(), json!({"microvmIdentifier": "m", "expirationInMinutes": 5, "allowedPorts": [{"port": 80}]}));
    }

    #[test]
    fn nulls_and_empty_bodies_are_absent_members() {
        assert_eq!(decode(Method::POST, "/2025-09-09/microvms", "", r#"{"imageVersion": null}"#).unwrap(), json!({}));
        assert_eq!(decode(Method::POST, "/2025-09-09/microvms", "", "").unwrap(), json!({}));
    }

    #[test]
    fn types_are_the_models() {
        for (body, message) in [
            (r#"{"imageIdentifier": 1}"#, "NUMBER_VALUE can not be converted to a String"),
            (r#"{"maximumDurationInSeconds": "1"}"#, "STRING_VALUE can not be converted to an Integer"),
            (r#"{"maximumDurationInSeconds": 1.5}"#, "NUMBER_VALUE can not be converted to an Integer"),
            (r#"{"maximumDurationInSeconds": 4294967296}"#, "NUMBER_VALUE can not be converted to an Integer"),
            (r#"{"idlePolicy": {"autoResumeEnabled": "true"}}"#, "STRING_VALUE can not be converted to a Boolean"),
            (r#"{"idlePolicy": []}"#, "Start of list found where not expected"),
            (r#"{"imageIdentifier": {}}"#, "Start of structure or map found where not expected."),
            (r#"{"egressNetworkConnectors": "x"}"#, "Expected list or null"),
            ("[]", "Start of structure or map not found where expected."),
            ("{", "The request body is not valid JSON."),
        ] {
            let error = decode(Method::POST, "/2025-09-09/microvms", "", body).unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (ErrorCode::Serialization, message), "{body}");
        }
        assert!(decode(Method::GET, "/2025-09-09/microvms", "maxResults=many", "").is_err());
    }
}
