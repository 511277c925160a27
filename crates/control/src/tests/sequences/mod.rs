//! Random sequences of operations against a model of the two state machines: one client at a time, whose every answer and state is foretold
//! ([`alone`]), and several at once, of whom only what must hold in any order can be said ([`together`]). The model ([`model`]) is written from the
//! documentation of the service, not from the code: the two are held against each other.

mod alone;
mod model;
mod together;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::World;
use crate::testing::HostCall;

/// Names and places that sequences speak of: few, so that operations meet.
const NAMES: [&str; 2] = ["one", "two"];
const PLACES: usize = 3;

/// One thing that is done. MicroVMs are named by their place among those of the sequence, images by their place in [`NAMES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    CreateImage(usize),
    UpdateImage(usize),
    DeleteImage(usize),
    /// Of the version with this number.
    DeleteVersion(usize, u32),
    SetVersion(usize, u32, bool),
    Run(usize),
    Suspend(usize),
    Resume(usize),
    Terminate(usize),
    /// A request through the endpoint, which wakes a suspended MicroVM.
    Traffic(usize),
    /// Everything is read, page by page.
    Look,
    /// The next call of the host, or the next build, fails.
    Fail(HostCall),
    FailBuilds(bool),
}

fn steps(length: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Step>> {
    let image = 0..NAMES.len();
    let place = 0..PLACES;
    let step = prop_oneof![
        2 => image.clone().prop_map(Step::CreateImage),
        2 => image.clone().prop_map(Step::UpdateImage),
        1 => image.clone().prop_map(Step::DeleteImage),
        1 => (image.clone(), 1..4u32).prop_map(|(image, version)| Step::DeleteVersion(image, version)),
        1 => (image.clone(), 1..4u32, any::<bool>()).prop_map(|(image, version, active)| Step::SetVersion(image, version, active)),
        4 => image.prop_map(Step::Run),
        4 => place.clone().prop_map(Step::Suspend),
        4 => place.clone().prop_map(Step::Resume),
        2 => place.clone().prop_map(Step::Terminate),
        2 => place.prop_map(Step::Traffic),
        2 => Just(Step::Look),
        1 => prop_oneof![Just(HostCall::Launch), Just(HostCall::Suspend), Just(HostCall::Resume), Just(HostCall::DeleteImage)].prop_map(Step::Fail),
        1 => any::<bool>().prop_map(Step::FailBuilds),
    ];
    proptest::collection::vec(step, length)
}

fn arn(image: usize) -> String {
    format!("arn:aws:lambda:us-east-1:123456789012:microvm-image:{}", NAMES[image])
}

fn version_of(image: usize, version: u32) -> Value {
    json!({"imageIdentifier": arn(image), "imageVersion": format!("{version}.0")})
}

/// Every item of a listing, by pages of this size.
async fn list(world: &World, operation: &str, request: &Value, page: usize) -> Vec<Value> {
    let (mut items, mut token) = (Vec::new(), Value::Null);
    loop {
        let mut request = super::with(request.clone(), json!({"maxResults": page}));
        if token.is_string() {
            request["nextToken"] = token;
        }
        let answer = world.ok(operation, request).await;
        let found = answer["items"].as_array().unwrap();
        assert!(found.len() <= page, "{operation}: a page is no longer than asked");
        items.extend(found.iter().cloned());
        token = answer["nextToken"].clone();
        if token.is_null() {
            return items;
        }
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}
