//! The application's environment: what the image says, completed by what every program expects.

use std::collections::BTreeMap;

use emberbox_agent_protocol::Application;

use super::identity::CA_BUNDLE;
use super::user::User;
use crate::spawn::DEFAULT_PATH;

/// What common clients read the path of a CA bundle from.
const CA_VARIABLES: [&str; 7] =
    ["SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "NODE_EXTRA_CA_CERTS", "AWS_CA_BUNDLE", "GIT_SSL_CAINFO"];

/// Nothing the image sets is changed.
pub(crate) fn complete(application: &Application, user: &User) -> BTreeMap<String, String> {
    let mut environment = application.environment.clone();
    environment.entry("PATH".into()).or_insert_with(|| DEFAULT_PATH.into());
    environment.entry("HOME".into()).or_insert_with(|| user.home.clone());
    if !application.extra_ca_pem.is_empty() {
        for name in CA_VARIABLES {
            environment.entry(name.into()).or_insert_with(|| CA_BUNDLE.into());
        }
    }
    environment
}
