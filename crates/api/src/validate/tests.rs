#![allow(clippy::unwrap_used)]
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::decode;
use crate::routing::Routes;

static MODEL: LazyLock<Model> = LazyLock::new(|| Model::load().unwrap());
static ROUTES: LazyLock<Routes> = LazyLock::new(|| Routes::new(&MODEL).unwrap());

fn check(operation: &str, input: Value) -> Result<(), String> {
    let operation = MODEL.operations.iter().find(|candidate| candidate.name == operation).unwrap();
    validate(&MODEL, operation.input.unwrap(), &input).map_err(|error| error.message)
}

fn run(mut members: Value) -> Result<(), String> {
    members.as_object_mut().unwrap().entry("imageIdentifier").or_insert("arn:x".into());
    check("RunMicrovm", members)
}

fn token(ports: Value) -> Result<(), String> {
    check("CreateMicrovmAuthToken", json!({"microvmIdentifier": "m", "expirationInMinutes": 1, "allowedPorts": ports}))
}

fn image(members: Value) -> Result<(), String> {
    let mut image =
        json!({"name": "n", "baseImageArn": "b", "buildRoleArn": "arn:aws:iam::123456789012:role/r", "codeArtifact": {"uri": "s3://b/k"}});
    image.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    check("CreateMicrovmImage", image)
}

#[test]
fn what_the_model_allows_passes() {
    run(json!({"idlePolicy": {"maxIdleDurationSeconds": 60, "suspendedDurationSeconds": 0, "autoResumeEnabled": true}, "maximumDurationInSeconds": 28800}))
        .unwrap();
    token(json!([{"port": 1}, {"range": {"startPort": 1, "endPort": 65535}}, {"allPorts": {}}])).unwrap();
    image(json!({"environmentVariables": {"A": ""}, "tags": {"größe": "1 2"}, "logging": {"disabled": {}}})).unwrap();
}

#[test]
fn every_kind_of_violation_in_awss_words() {
    let one = |words: &str| Err(format!("1 validation error detected: {words}"));
    assert_eq!(
        check("GetMicrovm", json!({})),
        one("Value null at 'microvmIdentifier' failed to satisfy constraint: Member must not be null")
    );
    assert_eq!(
        run(json!({"maximumDurationInSeconds": 28801})),
        one("Value '28801' at 'maximumDurationInSeconds' failed to satisfy constraint: Member must have value less than or equal to 28800")
    );
    assert_eq!(
        run(json!({"clientToken": "x".repeat(129)})),
        one(&format!(
            "Value '{}' at 'clientToken' failed to satisfy constraint: Member must have length less than or equal to 128",
            "x".repeat(129)
        ))
    );
    assert_eq!(
        image(json!({"name": "a b"})),
        one("Value 'a b' at 'name' failed to satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9-_]+")
    );
    assert_eq!(
        image(json!({"hooks": {"microvmHooks": {"run": "ON"}}})),
        one("Value 'ON' at 'hooks.microvmHooks.run' failed to satisfy constraint: Member must satisfy enum value set: [DISABLED, ENABLED]")
    );
    assert_eq!(
        token(json!([])),
        one("Value '[]' at 'allowedPorts' failed to satisfy constraint: Member must have length greater than or equal to 1")
    );
}

#[test]
fn nested_paths_name_the_member() {
    assert_eq!(
        run(json!({"idlePolicy": {"maxIdleDurationSeconds": 59, "suspendedDurationSeconds": -1}})).unwrap_err(),
        "3 validation errors detected: \
         Value null at 'idlePolicy.autoResumeEnabled' failed to satisfy constraint: Member must not be null; \
         Value '59' at 'idlePolicy.maxIdleDurationSeconds' failed to satisfy constraint: Member must have value greater than or equal to 60; \
         Value '-1' at 'idlePolicy.suspendedDurationSeconds' failed to satisfy constraint: Member must have value greater than or equal to 0"
    );
    assert_eq!(
        token(json!([{"port": 1}, {"port": 0}])).unwrap_err(),
        "1 validation error detected: Value '0' at 'allowedPorts.2.member.port' failed to satisfy constraint: Member must have value greater than or equal to 1"
    );
    assert!(token(json!([null])).unwrap_err().contains("Value null at 'allowedPorts.1.member'"));
}

#[test]
fn unions_have_exactly_one_member() {
    for ports in [json!([{}]), json!([{"port": 1, "allPorts": {}}])] {
        let message = token(ports).unwrap_err();
        assert!(message.contains("'allowedPorts.1.member'") && message.contains("exactly one"), "{message}");
    }
}

#[test]
fn lists_of_scalars_and_maps_are_judged_as_a_whole() {
    assert_eq!(
        run(json!({"egressNetworkConnectors": ["ok", ""]})).unwrap_err(),
        "1 validation error detected: Value '[ok, ]' at 'egressNetworkConnectors' failed to satisfy constraint: Member must satisfy constraint: \
         [Member must have length less than or equal to 2048, Member must have length greater than or equal to 1]"
    );
    let message = image(json!({"tags": {"a#": "v"}})).unwrap_err();
    assert!(message.starts_with("1 validation error detected: Value '{a#=v}' at 'tags' failed to satisfy constraint: Map keys must satisfy constraint: [Member must have length less than or equal to 128, "), "{message}");
    let message = image(json!({"tags": {"a": "#"}})).unwrap_err();
    assert!(message.contains("Map value must satisfy constraint: [Member must have length less than or equal to 256"), "{message}");
}

#[test]
fn lengths_are_in_characters() {
    image(json!({"tags": {"a": "ü".repeat(256)}})).unwrap();
    assert!(image(json!({"tags": {"a": "ü".repeat(257)}})).is_err());
}

#[test]
fn sensitive_values_are_not_echoed_and_long_ones_are_cut() {
    let message = run(json!({"runHookPayload": "s".repeat(4097)})).unwrap_err();
    assert_eq!(
        message,
        "1 validation error detected: Value at 'runHookPayload' failed to satisfy constraint: Member must have length less than or equal to 4096"
    );
    let many: Map<String, Value> = (0..101).map(|n| (format!("K{n}"), "hush".into())).collect();
    for variables in [json!({"a": "hush".repeat(2000)}), json!({"a b": "hush"}), Value::Object(many)] {
        let message = image(json!({"environmentVariables": variables})).unwrap_err();
        assert!(message.contains("Value at 'environmentVariables'") && !message.contains("hush"), "{message}");
    }
    assert!(image(json!({"name": "n".repeat(100_000)})).unwrap_err().len() < 2 * MAX_ECHO + 500);
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from)
    ];
    let name = prop_oneof![
        Just("imageIdentifier"),
        Just("idlePolicy"),
        Just("logging"),
        Just("disabled"),
        Just("cloudWatch"),
        Just("tags"),
        Just("hooks"),
        Just("name"),
        Just("microvmHooks"),
        Just("allowedPorts"),
        Just("port"),
        Just("range"),
        Just("codeArtifact"),
        Just("resources"),
        Just("environmentVariables")
    ];
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((name.clone().prop_map(String::from), inner), 0..6)
                .prop_map(|entries| Value::Object(entries.into_iter().collect()))
        ]
    })
}

proptest! {
    /// Any body at any operation is answered, never a panic; and what passes has the required members.
    #[test]
    fn decode_and_validate_never_panic(body in any_json(), garbage in prop::collection::vec(any::<u8>(), 0..64), query in ".{0,40}") {
        for operation in &MODEL.operations {
            let path = operation.uri.replace(['{', '}'], "");
            let route = ROUTES.find(&MODEL, &operation.method, &path).unwrap();
            let _ = decode::input(&MODEL, &route, &query, &garbage);
            if let Ok(input) = decode::input(&MODEL, &route, &query, body.to_string().as_bytes())
                && validate(&MODEL, operation.input.unwrap(), &input).is_ok()
            {
                for member in MODEL.members(operation.input.unwrap()).iter().filter(|member| member.required) {
                    prop_assert!(input.get(&member.name).is_some_and(|value| !value.is_null()));
                }
            }
        }
    }
}
