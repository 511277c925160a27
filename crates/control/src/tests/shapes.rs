//! Every answer a test gets is compared with the service model's output shape: members known, required ones present, types and enumerations right.

use std::sync::LazyLock;

use serde_json::Value;

static MODELS: LazyLock<Vec<Value>> =
    LazyLock::new(|| emberbox_wire::MODELS.iter().map(|text| serde_json::from_str(text).unwrap()).collect());

pub(crate) fn operations() -> Vec<String> {
    MODELS.iter().flat_map(|model| model["operations"].as_object().unwrap().keys().cloned()).collect()
}

pub(crate) fn check_answer(operation: &str, answer: &Value) {
    let model = MODELS.iter().find(|model| model["operations"].get(operation).is_some()).unwrap();
    match model["operations"][operation].get("output") {
        Some(output) => check(model, operation, output["shape"].as_str().unwrap(), answer),
        None => assert_eq!(answer, &serde_json::json!({}), "{operation}"),
    }
}

fn check(model: &Value, at: &str, shape_name: &str, value: &Value) {
    let shape = &model["shapes"][shape_name];
    let fits = match shape["type"].as_str().unwrap() {
        "structure" => {
            structure(model, at, shape, value);
            true
        }
        "list" => {
            let items = value.as_array().unwrap_or_else(|| panic!("{at}: not a list"));
            items.iter().for_each(|item| check(model, &format!("{at}[]"), shape["member"]["shape"].as_str().unwrap(), item));
            true
        }
        "map" => value.as_object().is_some_and(|map| map.values().all(Value::is_string)),
        "string" => value.as_str().is_some_and(|text| {
            let length = text.chars().count() as u64;
            let known = shape["enum"].as_array().is_none_or(|words| words.contains(value));
            known && shape["min"].as_u64().is_none_or(|min| length >= min) && shape["max"].as_u64().is_none_or(|max| length <= max)
        }),
        "integer" | "long" => value.is_i64() || value.is_u64(),
        "timestamp" if shape["timestampFormat"] == "iso8601" => value.as_str().is_some_and(|text| text.ends_with('Z')),
        "timestamp" => value.is_f64(),
        "boolean" => value.is_boolean(),
        other => panic!("{at}: unknown type {other}"),
    };
    assert!(fits, "{at}: {value} is no {shape_name}");
}

fn structure(model: &Value, at: &str, shape: &Value, value: &Value) {
    let members = value.as_object().unwrap_or_else(|| panic!("{at}: not an object"));
    for required in shape["required"].as_array().into_iter().flatten() {
        assert!(members.contains_key(required.as_str().unwrap()), "{at}: {required} is missing");
    }
    for (name, member) in members {
        let known = &shape["members"][name]["shape"];
        check(model, &format!("{at}.{name}"), known.as_str().unwrap_or_else(|| panic!("{at}: {name} is unknown")), member);
    }
}

#[tokio::test]
async fn every_operation_of_the_model_is_routed() {
    let world = super::World::new().await;
    for operation in operations() {
        if let Err(error) = world.call(&operation, serde_json::json!({})).await {
            assert_ne!(error.code, emberbox_wire::error::ErrorCode::UnknownOperation, "{operation}");
        }
    }
}
