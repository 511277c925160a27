//! The whole story through [`Control::call`], on a fake host.
#![allow(clippy::unwrap_used)]

mod admission;
mod any_order;
mod bad_input;
mod connectors;
mod images;
mod limits;
mod lives;
mod microvms;
mod restart;
mod sequences;
mod shapes;
mod storm;
mod timers;
mod traffic;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use emberbox_host::MachineId;
use emberbox_wire::caller::Caller;
use emberbox_wire::error::{ApiError, ErrorCode};
use emberbox_wire::ids::{AccountId, MicrovmId};
use serde_json::{Value, json};

use crate::config::EndpointSettings;
use crate::control::Control;
use crate::limits::Limits;
use crate::testing::Parts;

pub(crate) const ARN: &str = "arn:aws:lambda:us-east-1:123456789012:microvm-image:web";
pub(crate) const BASE: &str = "arn:aws:lambda:us-east-1:aws:microvm-image:al2023-1";
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub(crate) parts: Parts,
    pub(crate) control: Arc<Control>,
}

pub(crate) fn caller(account: &str) -> Caller {
    Caller::root(AccountId(account.into()), "AKIAROOT")
}

pub(crate) fn definition() -> Value {
    json!({
        "baseImageArn": BASE, "buildRoleArn": "arn:aws:iam::123456789012:role/build", "codeArtifact": {"uri": "s3://bucket/key.zip"},
        "hooks": {"port": 9000, "microvmHooks": {"run": "ENABLED", "suspend": "ENABLED", "resume": "ENABLED", "terminate": "ENABLED"}},
    })
}

pub(crate) fn with(mut value: Value, members: Value) -> Value {
    value.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    value
}

pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let wait = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never happened: {what}"));
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with_endpoint(EndpointSettings::Loopback { port: 8443 }).await
    }

    pub(crate) async fn with_endpoint(endpoint: EndpointSettings) -> Self {
        let parts = Parts::new().await.unwrap();
        let control = parts.start(endpoint).await.unwrap();
        Self { parts, control }
    }

    /// A world with other limits than none.
    pub(crate) async fn limited(set: impl FnOnce(&mut Limits)) -> Self {
        let mut parts = Parts::new().await.unwrap();
        set(&mut parts.limits);
        let control = parts.start(EndpointSettings::Loopback { port: 8443 }).await.unwrap();
        Self { parts, control }
    }

    /// As [`World::limited`], with the image `web` built.
    pub(crate) async fn limited_with_image(set: impl FnOnce(&mut Limits)) -> Self {
        let world = Self::limited(set).await;
        world.ok("CreateMicrovmImage", with(definition(), json!({"name": "web"}))).await;
        world.image_state("CREATED").await;
        world
    }

    /// A world with the image `web` built.
    pub(crate) async fn with_image() -> Self {
        let world = Self::new().await;
        world.ok("CreateMicrovmImage", with(definition(), json!({"name": "web"}))).await;
        world.image_state("CREATED").await;
        world
    }

    pub(crate) async fn restart(&mut self) {
        self.control.shutdown().await;
        self.control = self.parts.start(EndpointSettings::Loopback { port: 8443 }).await.unwrap();
    }

    pub(crate) async fn call(&self, operation: &str, input: Value) -> Result<Value, ApiError> {
        let answer = self.control.call(&caller("123456789012"), operation, input).await;
        if let Ok(answer) = &answer {
            shapes::check_answer(operation, answer);
        }
        answer
    }

    pub(crate) async fn ok(&self, operation: &str, input: Value) -> Value {
        self.call(operation, input).await.unwrap_or_else(|error| panic!("{operation}: {error:?}"))
    }

    pub(crate) async fn refused(&self, operation: &str, input: Value) -> (ErrorCode, String) {
        let error = self.call(operation, input).await.expect_err("the operation is refused");
        (error.code, error.message)
    }

    pub(crate) async fn image_state(&self, wanted: &str) {
        eventually(&format!("image {wanted}"), async || {
            self.call("GetMicrovmImage", json!({"imageIdentifier": ARN})).await.is_ok_and(|image| image["state"] == wanted)
        })
        .await;
    }

    pub(crate) async fn run(&self, members: Value) -> MicrovmId {
        let answer = self.ok("RunMicrovm", with(json!({"imageIdentifier": ARN}), members)).await;
        assert_eq!(answer["state"], "PENDING");
        answer["microvmId"].as_str().unwrap().parse().unwrap()
    }

    pub(crate) async fn running(&self, members: Value) -> MicrovmId {
        let id = self.run(members).await;
        self.state(id, "RUNNING").await;
        id
    }

    pub(crate) async fn get(&self, id: MicrovmId) -> Value {
        self.ok("GetMicrovm", json!({"microvmIdentifier": id})).await
    }

    pub(crate) async fn state(&self, id: MicrovmId, wanted: &str) {
        eventually(&format!("{id} {wanted}"), async || self.get(id).await["state"] == wanted).await;
    }

    pub(crate) async fn change(&self, operation: &str, id: MicrovmId) {
        assert_eq!(self.ok(operation, json!({"microvmIdentifier": id})).await, json!({}));
    }

    pub(crate) fn machine(id: MicrovmId) -> MachineId {
        MachineId(id.0)
    }
}
