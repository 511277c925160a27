//! `emberbox env`: what a shell needs to use this daemon with any AWS tool.

use std::path::{Path, PathBuf};

use anyhow::Context;
use emberbox_control::{Clock, SystemClock, accounts};
use emberbox_store::Store;
use emberbox_wire::ids::AccountId;
use serde::{Deserialize, Serialize};

use crate::arguments::Data;
use crate::serve::{DATABASE, ENDPOINT};

/// `endpoint.json`: where a daemon serves, written by it for the commands around it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    pub api: String,
    pub ingress_port: u16,
    pub region: String,
    pub account: String,
    /// Certificate of the CA that signs the endpoints' certificates.
    pub ca: PathBuf,
    /// The host's CA bundle with that certificate.
    pub ca_bundle: PathBuf,
    pub pid: u32,
}

impl Endpoint {
    pub(crate) fn read(data: &Path) -> anyhow::Result<Self> {
        let path = data.join(ENDPOINT);
        let text = std::fs::read(&path).with_context(|| {
            format!("no daemon has served from {}: start one with `emberbox serve`, or name its directory with --data", data.display())
        })?;
        serde_json::from_slice(&text).with_context(|| format!("{} is damaged: restart the daemon", path.display()))
    }
}

pub(crate) fn run(arguments: Data) -> anyhow::Result<()> {
    let endpoint = Endpoint::read(&arguments.data)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let key = runtime.block_on(async {
        let store = Store::open(&arguments.data.join(DATABASE)).await.context("could not open the daemon's records (are you root?)")?;
        accounts::ensure_root_key(&store, &AccountId(endpoint.account.clone()), SystemClock.now())
            .await
            .context("could not read the access key")
    })?;
    let path = |path: &Path| path.display().to_string();
    let variables = [
        ("AWS_ENDPOINT_URL", endpoint.api),
        ("AWS_ACCESS_KEY_ID", key.id),
        ("AWS_SECRET_ACCESS_KEY", key.secret),
        ("AWS_REGION", endpoint.region.clone()),
        ("AWS_DEFAULT_REGION", endpoint.region),
        ("AWS_CA_BUNDLE", path(&endpoint.ca_bundle)),
        ("EMBERBOX_CA", path(&endpoint.ca)),
    ];
    // What would win over the variables below, or be signed with too.
    println!("unset AWS_SESSION_TOKEN AWS_PROFILE AWS_DEFAULT_PROFILE AWS_IGNORE_CONFIGURED_ENDPOINT_URLS");
    println!(
        "unset AWS_ENDPOINT_URL_S3 AWS_ENDPOINT_URL_STS AWS_ENDPOINT_URL_IAM AWS_ENDPOINT_URL_LAMBDA_MICROVMS AWS_ENDPOINT_URL_LAMBDA_CORE"
    );
    variables.iter().for_each(|(name, value)| println!("export {name}={}", quoted(value)));
    Ok(())
}

/// As one word of a POSIX shell.
fn quoted(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:+=".contains(&byte);
    match value.bytes().all(plain) {
        true => value.to_owned(),
        false => format!("'{}'", value.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_one_word() {
        assert_eq!(quoted("http://127.0.0.1:4700"), "http://127.0.0.1:4700");
        assert_eq!(quoted("/a b/it's"), r"'/a b/it'\''s'");
    }
}
