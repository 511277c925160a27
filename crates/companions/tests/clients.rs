//! Stock AWS clients (awscli, boto3) against the API front with S3 and STS plugged in and a fake of the operations.
//!
//! Needs a Python that has boto3, botocore with `lambda-microvms`, and awscli: `EMBERBOX_TEST_PYTHON=/path/to/venv/bin/python`. Says so and
//! passes without one. `EMBERBOX_TEST_SERVE=1` serves until it is killed instead, for trying things by hand.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use emberbox_api::{CredentialError, Credentials, Operations, Server, ServerConfig};
use emberbox_companions::{s3, sts};
use emberbox_control::SystemClock;
use emberbox_control::access::Access;
use emberbox_store::{AccessKeyRecord, IdentityId, IdentityRecord, IdentitySettings, Store, UnixMillis};
use emberbox_wire::audit::{AuditEvent, AuditLog};
use emberbox_wire::caller::{AccessKey, Caller};
use emberbox_wire::error::ApiError;
use emberbox_wire::ids::AccountId;
use serde_json::{Value, json};

/// An account with a user `tester`, who may do everything.
async fn access() -> Arc<Access> {
    let (store, account) = (Store::in_memory().await.unwrap(), AccountId("123456789012".into()));
    store.insert_account(&account, UnixMillis(0)).await.unwrap();
    let (id, settings) = (IdentityId("AIDA".into()), IdentitySettings::User);
    let user = IdentityRecord {
        id: id.clone(),
        account: account.clone(),
        name: "tester".into(),
        path: "/".into(),
        created_at: UnixMillis(0),
        settings,
    };
    store.insert_identity(&user).await.unwrap();
    store.attach_policy(&id, "arn:aws:iam::aws:policy/AdministratorAccess").await.unwrap();
    let key = AccessKeyRecord { id: "AKIATEST".into(), account, user: Some(id), active: true, created_at: UnixMillis(0) };
    store.insert_access_key(&key, "secret", 1).await.unwrap();
    Access::open(store, "us-east-1", Arc::new(SystemClock)).await.unwrap()
}

struct Keys(Arc<Access>);

#[async_trait]
impl Credentials for Keys {
    async fn access_key(&self, id: &str, session_token: Option<&str>) -> Result<AccessKey, CredentialError> {
        self.0.access_key(id, session_token).await.map_err(|_| CredentialError::Invalid)
    }

    async fn secret(&self, id: &str) -> Result<String, CredentialError> {
        self.0.secret(id).await.map_err(|_| CredentialError::Invalid)
    }
}

/// Answers with what it was asked, in members of the output shapes.
struct Unread;

impl AuditLog for Unread {
    fn event(&self, _: AuditEvent) {}
}

struct Echo;

#[async_trait]
impl Operations for Echo {
    async fn authorize(&self, _: &Caller, _: &str, _: &Value) -> Result<(), ApiError> {
        Ok(())
    }

    async fn call(&self, caller: Caller, operation: &str, input: Value) -> Result<Value, ApiError> {
        assert_eq!(caller.user_id, "AIDA");
        match operation {
            "GetMicrovm" => Err(ApiError::not_found("no such MicroVM", "microvm", input["microvmIdentifier"].as_str().unwrap())),
            "GetMicrovmImage" => Ok(json!({"imageArn": input["imageIdentifier"], "name": null, "createdAt": 1_782_907_200.5})),
            "ListMicrovmImages" => Ok(json!({"items": [], "nextToken": input["maxResults"].to_string()})),
            "ListTags" => Ok(json!({"Tags": {"resource": input["Resource"]}})),
            "TerminateMicrovm" => panic!("an operation may fail like this"),
            _ => Ok(json!({})),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_clients_work() {
    let python = std::env::var("EMBERBOX_TEST_PYTHON");
    let by_hand = std::env::var("EMBERBOX_TEST_SERVE").is_ok();
    if python.is_err() && !by_hand {
        eprintln!("SKIPPED: set EMBERBOX_TEST_PYTHON to a Python with boto3 and awscli to run the stock clients against this server");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (access, account) = (access().await, AccountId("123456789012".into()));
    let (s3, artifacts) = s3::service(folder.path().join("s3"), "us-east-1", account.clone(), access.clone()).unwrap();
    let server = Server::new(ServerConfig::new("us-east-1"), Arc::new(Keys(access.clone())), Arc::new(Echo), Arc::new(Unread)).unwrap();
    let server = server.with_sts(Arc::new(sts::Sts::new(access))).with_s3(Arc::new(s3));
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(listener, async {
        let _ = stopped.await;
    }));
    if by_hand {
        eprintln!("http://{address}, files in {}", folder.path().display());
        std::future::pending::<()>().await;
    }
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients.py");
    let mut client = tokio::process::Command::new(python.unwrap());
    let status = client.arg(script).arg(format!("http://{address}")).arg(folder.path().join("work")).status().await.unwrap();
    assert!(status.success());

    // What the clients left is what builds read.
    let to = folder.path().join("artifact");
    assert_eq!(artifacts.read_object(&account, "kept", "dir/app.zip", &to, 100).await.unwrap(), 3);
    assert_eq!(std::fs::read(&to).unwrap(), b"zip");
    stop.send(()).unwrap();
    serving.await.unwrap();
}
