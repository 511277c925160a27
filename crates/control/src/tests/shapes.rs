//! Every answer a test gets is compared with the service model's output shape: members known, required ones present, types and enumerations right.

use std::sync::LazyLock;

use serde_json::Value;

static MODEL: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(emberbox_wire::LAMBDA_MICROVMS_MODEL).unwrap());

pub(crate) fn operations() -> Vec<String> {
    MODEL["operations"].as_object().unwrap().keys().cloned().collect()
}

pub(crate) fn check_answer(operation: &str, answer: &Value) {
    match MODEL["operations"][operation].get("output") {
        Some(output) => check(operation, output["shape"].as_str().unwrap(), answer),
        None => assert_eq!(answer, &serde_json::json!({}), "{operation}"),
    }
}

fn check(at: &str, shape_name: &str, value: &Value) {
    let shape = &MODEL["shapes"][shape_name];
    let fits = match shape["type"].as_str().unwrap() {
        "structure" => {
            structure(at, shape, value);
            true
        }
        "list" => {
            let items = value.as_array().unwrap_or_else(|| panic!("{at}: not a list"));
            items.iter().for_each(|item| check(&format!("{at}[]"), shape["member"]["shape"].as_str().unwrap(), item));
            true
        }
        "map" => value.as_object().is_some_and(|map| map.values().all(Value::is_string)),
        "string" => value.as_str().is_some_and(|text| {
            let length = text.chars().count() as u64;
            let known = shape["enum"].as_array().is_none_or(|words| words.contains(value));
            known && shape["min"].as_u64().is_none_or(|min| length >= min) && shape["max"].as_u64().is_none_or(|max| length <= max)
        }),
        "integer" | "long" => value.is_i64() || value.is_u64(),
        "timestamp" => value.is_f64(),
        "boolean" => value.is_boolean(),
        other => panic!("{at}: unknown type {other}"),
    };
    assert!(fits, "{at}: {value} is no {shape_name}");
}

fn structure(at: &str, shape: &Value, value: &Value) {
    let members = value.as_object().unwrap_or_else(|| panic!("{at}: not an object"));
    for required in shape["required"].as_array().into_iter().flatten() {
        assert!(members.contains_key(required.as_str().unwrap()), "{at}: {required} is missing");
    }
    for (name, member) in members {
        let known = &shape["members"][name]["shape"];
        check(&format!("{at}.{name}"), known.as_str().unwrap_or_else(|| panic!("{at}: {name} is unknown")), member);
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
