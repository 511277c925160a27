//! Emberbox's own certificate authority: what clients are told to trust.
//!
//! Owns `ca-key.pem` and `ca.pem` in one directory. The key is written first, so a crash in between leaves a key nobody trusts yet; a certificate
//! without its key is never replaced silently, because clients trust it already. Must never let the key leave the file's owner.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

const AUTHORITY_LIFE: Duration = Duration::days(3650);
/// The longest that browsers accept.
const LEAF_LIFE: Duration = Duration::days(397);
/// Clients and guests whose clock is a little behind still accept a new certificate.
const CLOCK_SKEW: Duration = Duration::hours(1);

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("{} cannot be read or written", .path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} has lost its key {}: restore the key, or remove the certificate and let clients trust a new one", .certificate.display(), .key.display())]
    KeyMissing { certificate: PathBuf, key: PathBuf },
    #[error("{} is no certificate authority of Emberbox: restore it, or remove it with its key and let clients trust a new one", .path.display())]
    Invalid { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("a certificate for {name} cannot be made")]
    Sign { name: String, source: Box<dyn std::error::Error + Send + Sync> },
}

/// Signs certificates of endpoints.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    path: PathBuf,
}

/// A certificate with its chain, and when it ends.
pub(crate) struct Leaf {
    pub(crate) key: Arc<CertifiedKey>,
    pub(crate) ends: OffsetDateTime,
}

impl Authority {
    /// The authority kept in `dir`, made when there is none.
    pub fn load_or_create(dir: &Path) -> Result<Self, AuthorityError> {
        let (path, key_path) = (dir.join("ca.pem"), dir.join("ca-key.pem"));
        if !exists(&path)? {
            fs::create_dir_all(dir).map_err(|source| AuthorityError::File { path: dir.into(), source })?;
            create(&path, &key_path)?;
        } else if !exists(&key_path)? {
            return Err(AuthorityError::KeyMissing { certificate: path, key: key_path });
        }
        Self::load(path, &key_path)
    }

    /// The PEM file that clients have to trust.
    pub fn certificate_path(&self) -> &Path {
        &self.path
    }

    fn load(path: PathBuf, key_path: &Path) -> Result<Self, AuthorityError> {
        let pem = read(&path)?;
        let key_pem = read(key_path)?;
        let parts = || -> Result<_, Box<dyn std::error::Error + Send + Sync>> {
            let certificate = CertificateDer::from_pem_slice(pem.as_bytes())?;
            let private = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())?;
            let signing = rustls::crypto::ring::sign::any_ecdsa_type(&private)?;
            CertifiedKey::new(vec![certificate.clone()], signing).keys_match()?;
            Ok((Issuer::from_ca_cert_pem(&pem, KeyPair::from_pem(&key_pem)?)?, certificate))
        };
        let (issuer, certificate) = parts().map_err(|source| AuthorityError::Invalid { path: path.clone(), source })?;
        Ok(Self { issuer, certificate, path })
    }

    /// A fresh key and certificate for `names`, valid from an hour before `now`.
    pub(crate) fn leaf(&self, names: Vec<SanType>, now: OffsetDateTime) -> Result<Leaf, AuthorityError> {
        let text = format!("{names:?}");
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name("Emberbox MicroVM endpoint");
        params.subject_alt_names = names;
        params.not_before = now - CLOCK_SKEW;
        params.not_after = params.not_before + LEAF_LIFE;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let ends = params.not_after;
        let key = self.sign(&params).map_err(|source| AuthorityError::Sign { name: text, source })?;
        Ok(Leaf { key: Arc::new(key), ends })
    }

    fn sign(&self, params: &CertificateParams) -> Result<CertifiedKey, Box<dyn std::error::Error + Send + Sync>> {
        let pair = KeyPair::generate()?;
        let certificate = params.signed_by(&pair, &self.issuer)?;
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
        let signing = rustls::crypto::ring::sign::any_ecdsa_type(&private)?;
        Ok(CertifiedKey::new(vec![certificate.der().clone(), self.certificate.clone()], signing))
    }
}

fn create(path: &Path, key_path: &Path) -> Result<(), AuthorityError> {
    let failed = |source: rcgen::Error| AuthorityError::Sign { name: "the local authority".into(), source: source.into() };
    let pair = KeyPair::generate().map_err(failed)?;
    let random = Uuid::new_v4().simple().to_string();
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(&format!("Emberbox local CA {}", &random[..8]));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = OffsetDateTime::now_utc() - CLOCK_SKEW;
    params.not_after = params.not_before + AUTHORITY_LIFE;
    let certificate = params.self_signed(&pair).map_err(failed)?;
    write_atomically(key_path, pair.serialize_pem().as_bytes(), 0o600)?;
    write_atomically(path, certificate.pem().as_bytes(), 0o644)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

fn exists(path: &Path) -> Result<bool, AuthorityError> {
    path.try_exists().map_err(|source| AuthorityError::File { path: path.into(), source })
}

fn read(path: &Path) -> Result<String, AuthorityError> {
    fs::read_to_string(path).map_err(|source| AuthorityError::File { path: path.into(), source })
}

/// Wholly or not at all, and still there after a power cut.
fn write_atomically(path: &Path, bytes: &[u8], mode: u32) -> Result<(), AuthorityError> {
    let temporary = path.with_extension(format!("{}.tmp", Uuid::new_v4().simple()));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
    };
    write().map_err(|source| {
        let _ = fs::remove_file(&temporary);
        AuthorityError::File { path: path.into(), source }
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_authority_survives_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let first = Authority::load_or_create(dir.path()).unwrap();
        let second = Authority::load_or_create(dir.path()).unwrap();
        assert_eq!(first.certificate, second.certificate);
        assert_eq!(fs::metadata(dir.path().join("ca-key.pem")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary file is left");
    }

    #[test]
    fn a_certificate_without_its_own_key_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        Authority::load_or_create(dir.path()).unwrap();
        fs::write(dir.path().join("ca-key.pem"), KeyPair::generate().unwrap().serialize_pem()).unwrap();
        assert!(matches!(Authority::load_or_create(dir.path()), Err(AuthorityError::Invalid { .. })));
        fs::remove_file(dir.path().join("ca-key.pem")).unwrap();
        assert!(matches!(Authority::load_or_create(dir.path()), Err(AuthorityError::KeyMissing { .. })));
    }

    #[test]
    fn a_crash_between_key_and_certificate_is_made_good() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ca-key.pem"), "half").unwrap();
        assert!(Authority::load_or_create(dir.path()).is_ok());
    }
}
