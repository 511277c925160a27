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

static SERVICES: LazyLock<Vec<(Model, Routes)>> = LazyLock::new(|| {
    let models = [emberbox_wire::LAMBDA_MICROVMS_MODEL, emberbox_wire::LAMBDA_CORE_MODEL];
    let service = |text| {
        let model = Model::parse(text).expect("the service model is sound");
        let routes = Routes::new(&model).expect("its paths are");
        (model, routes)
    };
    models.into_iter().map(service).collect()
});

fuzz_target!(|bytes: &[u8]| {
    let mut lines = bytes.splitn(4, |byte| *byte == b'\n');
    let mut line = || lines.next().unwrap_or_default();
    let (method, path, query, body) = (line(), String::from_utf8_lossy(line()), String::from_utf8_lossy(line()), line());
    let Ok(method) = http::Method::from_bytes(method) else { return };
    for (model, routes) in &*SERVICES {
        answer(model, routes, &method, &path, &query, body);
    }
});

fn answer(model: &Model, routes: &Routes, method: &http::Method, path: &str, query: &str, body: &[u8]) {
    let Some(route) = routes.find(model, method, path) else { return };
    let Ok(input) = decode::input(model, &route, query, body) else { return };
    let Some(shape) = route.operation.input else { return };
    match validate::validate(model, shape, &input) {
        Ok(()) => assert!(input.is_object()),
        Err(error) => {
            assert!(error.message.contains("validation error"), "{error}");
            let secret = input.get("runHookPayload").and_then(Value::as_str).filter(|text| text.len() > 4096);
            assert!(secret.is_none_or(|secret| !error.message.contains(secret)));
        }
    }
}
