//! Any request line and body: routed, decoded and validated without a panic; what validation lets through is of the JSON types the model says, and no
//! refusal repeats what the model calls sensitive.
//!
//! The input is the method, the path and the query on a line each, then the body.
#![no_main]

use std::sync::LazyLock;

use emberbox_api::model::Model;
use emberbox_api::routing::Routes;
use emberbox_api::{decode, validate};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

static MODEL: LazyLock<Model> = LazyLock::new(|| Model::load().expect("the service model is sound"));
static ROUTES: LazyLock<Routes> = LazyLock::new(|| Routes::new(&MODEL).expect("its paths are"));

fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.splitn(4, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (method, path, query, body) = (line(), String::from_utf8_lossy(line()), String::from_utf8_lossy(line()), line());
    let Ok(method) = http::Method::from_bytes(method) else { return };
    let Some(route) = ROUTES.find(&MODEL, &method, &path) else { return };
    let Ok(input) = decode::input(&MODEL, &route, &query, body) else { return };
    let Some(shape) = route.operation.input else { return };
    match validate::validate(&MODEL, shape, &input) {
        Ok(()) => assert!(input.is_object()),
        Err(error) => {
            assert!(error.message.contains("validation error"), "{error}");
            let secret = input.get("runHookPayload").and_then(Value::as_str).filter(|text| text.len() > 4096);
            assert!(secret.is_none_or(|secret| !error.message.contains(secret)));
        }
    }
});
