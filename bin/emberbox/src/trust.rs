//! CA bundles: whom guests trust, and whom clients of this daemon must.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::config::CaBundle;

/// Where distributions keep the bundle of the certificates they trust.
const HOST_BUNDLES: [&str; 3] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem"];

/// What builds and applications trust beside their own bundle.
pub(crate) fn for_guests(choice: &CaBundle) -> anyhow::Result<String> {
    match choice {
        CaBundle::None => Ok(String::new()),
        CaBundle::File(path) => std::fs::read_to_string(path).with_context(|| format!("could not read the CA bundle {}", path.display())),
        CaBundle::Host => Ok(host_bundle()),
    }
}

/// Writes `bundle.pem` beside the CA's certificate: the host's bundle and ours, for tools that take a single file.
pub(crate) fn write_client_bundle(ca: &Path) -> anyhow::Result<PathBuf> {
    let own = std::fs::read_to_string(ca).with_context(|| format!("could not read {}", ca.display()))?;
    let bundle = ca.with_file_name("bundle.pem");
    std::fs::write(&bundle, host_bundle() + "\n" + &own).with_context(|| format!("could not write {}", bundle.display()))?;
    Ok(bundle)
}

fn host_bundle() -> String {
    HOST_BUNDLES.iter().find_map(|path| std::fs::read_to_string(path).ok()).unwrap_or_default()
}
