//! The story of tests/clients, told by AWS's SDK for Rust as it is published. What it is given and what it prints: ../README.md.

use std::env;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use aws_sdk_lambdamicrovms::Client;
use aws_sdk_lambdamicrovms::config::http::HttpResponse;
use aws_sdk_lambdamicrovms::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_lambdamicrovms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_lambdamicrovms::operation::RequestId;
use aws_sdk_lambdamicrovms::operation::create_microvm_image::builders::CreateMicrovmImageFluentBuilder;
use aws_sdk_lambdamicrovms::operation::delete_microvm_image_version::DeleteMicrovmImageVersionError;
use aws_sdk_lambdamicrovms::types::{CodeArtifact, MicrovmImageState, MicrovmState, PortSpecification, Resources};
use serde_json::{Value, json};

const POLL: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(300);

/// What an error looks like to those who use the SDK; `fault` and the members of its shape are the caller's to add.
fn refused<T: std::fmt::Debug, E: ProvideErrorMetadata + std::fmt::Debug>(outcome: Result<T, SdkError<E, HttpResponse>>) -> anyhow::Result<Value> {
    match outcome {
        Err(SdkError::ServiceError(error)) => {
            let (status, metadata) = (error.raw().status().as_u16(), error.err().meta());
            Ok(json!({"name": metadata.code(), "status": status, "message": metadata.message(), "request": metadata.request_id().is_some()}))
        }
        other => bail!("was not refused: {other:?}"),
    }
}

fn with(mut error: Value, members: Value) -> Value {
    for (name, value) in members.as_object().into_iter().flatten() {
        error[name] = value.clone();
    }
    error
}

fn client() -> anyhow::Result<Client> {
    let credentials = Credentials::new(env::var("AWS_ACCESS_KEY_ID")?, env::var("AWS_SECRET_ACCESS_KEY")?, None, None, "environment");
    let http = aws_smithy_http_client::Builder::new().build_http();
    let config = aws_sdk_lambdamicrovms::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(env::var("AWS_ENDPOINT_URL")?)
        .region(Region::new(env::var("AWS_REGION")?))
        .credentials_provider(credentials)
        .http_client(http)
        .build();
    Ok(Client::from_conf(config))
}

async fn until<S: PartialEq + std::fmt::Debug>(states: &[S], look: impl AsyncFn() -> anyhow::Result<S>) -> anyhow::Result<S> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let state = look().await?;
        if states.contains(&state) {
            return Ok(state);
        }
        ensure!(Instant::now() < deadline, "never {states:?}, but {state:?}");
        tokio::time::sleep(POLL).await;
    }
}

fn get(endpoint: &str, headers: &std::collections::HashMap<String, String>) -> anyhow::Result<Value> {
    let pem = std::fs::read(env::var("EMBERBOX_CA")?)?;
    let root = ureq::tls::Certificate::from_pem(&pem).context("the CA's certificate")?;
    let tls = ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::new_with_certs(&[root])).build();
    let agent: ureq::Agent = ureq::Agent::config_builder().tls_config(tls).proxy(None).build().into();
    let request = headers.iter().fold(agent.get(format!("https://{endpoint}/")), |request, (name, value)| request.header(name, value));
    let mut answer = request.call()?;
    Ok(json!({"status": answer.status().as_u16(), "body": serde_json::from_str::<Value>(&answer.body_mut().read_to_string()?)?}))
}

struct Story {
    client: Client,
    name: String,
    report: Value,
}

impl Story {
    fn create(&self, name: &str) -> anyhow::Result<CreateMicrovmImageFluentBuilder> {
        let resources = Resources::builder().minimum_memory_in_mib(512).build()?;
        Ok(self
            .client
            .create_microvm_image()
            .base_image_arn(env::var("STORY_BASE")?)
            .build_role_arn(env::var("STORY_ROLE")?)
            .code_artifact(CodeArtifact::Uri(env::var("STORY_URI")?))
            .resources(resources)
            .name(name))
    }

    async fn image(&mut self) -> anyhow::Result<String> {
        let invalid = self.create("no such name!")?.send().await;
        let is_validation = invalid.as_ref().err().and_then(SdkError::as_service_error).is_some_and(|error| error.is_validation_exception());
        ensure!(is_validation, "the SDK has a type for the error");
        self.report["errors"]["validation"] = refused(invalid)?;
        let created = self.create(&self.name)?.send().await?;
        let arn = created.image_arn().to_owned();
        let age = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() as i64 - created.created_at().secs();
        self.report["created_at_is_a_date"] = (age.abs() < 600).into();
        let ended = [MicrovmImageState::Created, MicrovmImageState::CreateFailed];
        let look = async || Ok(self.client.get_microvm_image().image_identifier(&arn).send().await?.state().clone());
        let built = until(&ended, look).await?;
        self.report["built"] = built.as_str().into();
        self.pages().await?;
        Ok(arn)
    }

    async fn pages(&mut self) -> anyhow::Result<()> {
        let mut pages = self.client.list_microvm_images().into_paginator().page_size(1).send();
        let (mut largest, mut listed) = (0, 0);
        while let Some(page) = pages.next().await {
            let page = page?;
            largest = largest.max(page.items().len());
            listed += page.items().iter().filter(|item| item.name() == self.name).count();
        }
        self.report["pages"] = json!({"largest": largest, "listed": listed});
        Ok(())
    }

    async fn state(&self, microvm: &str, states: &[MicrovmState]) -> anyhow::Result<Value> {
        let look = async || Ok(self.client.get_microvm().microvm_identifier(microvm).send().await?.state().clone());
        Ok(until(states, look).await?.as_str().into())
    }

    async fn microvm(&mut self, image: &str) -> anyhow::Result<String> {
        let (client, running) = (self.client.clone(), [MicrovmState::Running, MicrovmState::Terminated]);
        let started = client.run_microvm().image_identifier(image).send().await?;
        let id = started.microvm_id().to_owned();
        self.report["run"] = started.state().as_str().into();
        self.report["running"] = self.state(&id, &running).await?;
        let token = client.create_microvm_auth_token().microvm_identifier(&id).expiration_in_minutes(5);
        let token = token.allowed_ports(PortSpecification::Port(8080)).send().await?;
        self.report["answer"] = get(started.endpoint(), token.auth_token())?;
        client.suspend_microvm().microvm_identifier(&id).send().await?;
        self.report["suspended"] = self.state(&id, &[MicrovmState::Suspended, MicrovmState::Terminated]).await?;
        client.resume_microvm().microvm_identifier(&id).send().await?;
        self.report["resumed"] = self.state(&id, &running).await?;
        client.terminate_microvm().microvm_identifier(&id).send().await?;
        self.report["terminated"] = self.state(&id, &[MicrovmState::Terminated]).await?;
        self.report["errors"]["terminated"] = refused(client.suspend_microvm().microvm_identifier(&id).send().await)?;
        Ok(id)
    }

    async fn end(&mut self, image: &str) -> anyhow::Result<()> {
        let last_version = self.client.delete_microvm_image_version().image_identifier(image).image_version("1.0").send().await;
        let members = match last_version.as_ref().err().and_then(SdkError::as_service_error) {
            Some(DeleteMicrovmImageVersionError::ConflictException(error)) => {
                json!({"resourceType": error.resource_type(), "resourceId": error.resource_id()})
            }
            _ => Value::Null,
        };
        self.report["errors"]["last_version"] = with(refused(last_version)?, members);
        self.report["deleted"] = self.client.delete_microvm_image().image_identifier(image).send().await?.state().as_str().into();
        let gone = loop {
            let outcome = self.client.get_microvm_image().image_identifier(image).send().await;
            if outcome.is_err() {
                break outcome;
            }
        };
        self.report["errors"]["not_found"] = refused(gone)?;
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let name = format!("rust-{:x}", SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos());
    let mut story = Story { client: client()?, name, report: json!({"errors": {}}) };
    let image = story.image().await?;
    let microvm = story.microvm(&image).await?;
    story.end(&image).await?;
    println!("{}", with(story.report, json!({"image": image, "microvm": microvm})));
    Ok(())
}
