//! Certificates on demand: one per loopback address, or one wildcard. Owns a bounded cache; must never serve one that has expired.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use rcgen::SanType;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use time::{Duration, OffsetDateTime};

use crate::authority::{Authority, AuthorityError};
use crate::locate;

/// A local process can ask for any of sixteen million addresses; the oldest give way.
const CACHED: usize = 4096;
/// A certificate is replaced this long before it ends.
const RENEWAL: Duration = Duration::days(30);

/// Whose certificate.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    Address(Ipv4Addr),
    /// `*.<domain>` and the domain itself.
    Domain(String),
}

pub(crate) struct Certificates {
    authority: Arc<Authority>,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    entries: HashMap<Subject, Entry>,
    oldest_first: VecDeque<Subject>,
}

struct Entry {
    config: Arc<ServerConfig>,
    renew_at: OffsetDateTime,
}

impl Certificates {
    pub(crate) fn new(authority: Arc<Authority>) -> Self {
        Self { authority, cache: Mutex::default() }
    }

    /// What to serve TLS with. Sessions resume within one subject only, never across endpoints.
    pub(crate) fn server_config(&self, subject: &Subject, now: OffsetDateTime) -> Result<Arc<ServerConfig>, AuthorityError> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = cache.entries.get(subject).filter(|entry| now < entry.renew_at) {
            return Ok(entry.config.clone());
        }
        let entry = self.make(subject, now)?;
        let config = entry.config.clone();
        cache.insert(subject.clone(), entry);
        Ok(config)
    }

    fn make(&self, subject: &Subject, now: OffsetDateTime) -> Result<Entry, AuthorityError> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| AuthorityError::Sign { name: format!("{subject:?}"), source };
        let names = subject.names().map_err(|source| failed(source.into()))?;
        let leaf = self.authority.leaf(names, now)?;
        let resolver = Resolver { subject: subject.clone(), key: leaf.key };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|source| failed(source.into()))?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        // HTTP/2 is a later issue: what is not built is not offered.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Entry { config: Arc::new(config), renew_at: leaf.ends - RENEWAL })
    }
}

impl Cache {
    fn insert(&mut self, subject: Subject, entry: Entry) {
        if self.entries.insert(subject.clone(), entry).is_none() {
            self.oldest_first.push_back(subject);
        }
        while self.entries.len() > CACHED {
            let Some(oldest) = self.oldest_first.pop_front() else { break };
            self.entries.remove(&oldest);
        }
    }
}

impl Subject {
    fn names(&self) -> Result<Vec<SanType>, rcgen::Error> {
        match self {
            Self::Address(address) => Ok(vec![SanType::IpAddress(IpAddr::V4(*address))]),
            Self::Domain(domain) => {
                Ok(vec![SanType::DnsName(format!("*.{domain}").try_into()?), SanType::DnsName(domain.as_str().try_into()?)])
            }
        }
    }
}

/// Answers a client hello: an address takes whatever name the client has for it, a domain only its own names.
#[derive(Debug)]
struct Resolver {
    subject: Subject,
    key: Arc<CertifiedKey>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let ours = match &self.subject {
            Subject::Address(_) => true,
            Subject::Domain(domain) => hello.server_name().is_some_and(|name| locate::within(domain, name)),
        };
        ours.then(|| self.key.clone())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn certificates_are_cached_renewed_and_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let certificates = Certificates::new(Arc::new(Authority::load_or_create(dir.path()).unwrap()));
        let now = OffsetDateTime::now_utc();
        let subject = Subject::Address(Ipv4Addr::new(127, 0, 0, 2));
        let first = certificates.server_config(&subject, now).unwrap();
        assert!(Arc::ptr_eq(&first, &certificates.server_config(&subject, now + Duration::days(366)).unwrap()));
        assert!(!Arc::ptr_eq(&first, &certificates.server_config(&subject, now + Duration::days(367)).unwrap()));

        let mut cache = Cache::default();
        for index in 0..(CACHED as u32 + 10) {
            cache.insert(Subject::Address(Ipv4Addr::from(0x7f00_0000 + index)), Entry { config: first.clone(), renew_at: now });
        }
        assert_eq!((cache.entries.len(), cache.oldest_first.len()), (CACHED, CACHED));
        assert!(!cache.entries.contains_key(&Subject::Address(Ipv4Addr::new(127, 0, 0, 0))));
    }
}
