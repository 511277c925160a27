//! Which endpoint a request is for: the address it came to, or the name that TLS and HTTP agree on. Must never believe the Host header alone.

use std::net::Ipv4Addr;

use emberbox_control::traffic::EndpointName;
use hyper::header::HOST;
use hyper::{HeaderMap, Uri};

use crate::error::Refusal;

/// Where a connection came to, as far as TLS has proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Address(Ipv4Addr),
    /// The server name of the handshake, in lower case and within `domain`.
    Name {
        sni: String,
        domain: String,
    },
}

impl Origin {
    pub(crate) fn endpoint(&self, uri: &Uri, headers: &HeaderMap) -> Result<EndpointName, Refusal> {
        match self {
            Self::Address(address) => Ok(EndpointName::Address(*address)),
            Self::Name { sni, domain } => {
                agree(sni, uri, headers)?;
                let label = sni.strip_suffix(domain.as_str()).and_then(|rest| rest.strip_suffix('.'));
                Ok(EndpointName::Label(label.unwrap_or_default().into()))
            }
        }
    }
}

/// The domain itself, or one label below it: what the wildcard certificate covers.
pub(crate) fn within(domain: &str, name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    match name.strip_suffix(domain) {
        Some("") => true,
        Some(rest) => rest.strip_suffix('.').is_some_and(|label| !label.is_empty() && !label.contains('.')),
        None => false,
    }
}

/// A connection may be reused for one name only: the certificate covers every MicroVM, the handshake meant one.
fn agree(sni: &str, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    let (host, more) = (hosts.next(), hosts.next());
    if more.is_some() {
        return Err(Refusal::InvalidHost);
    }
    let host = host.ok_or(Refusal::InvalidHost)?.to_str().map_err(|_| Refusal::InvalidHost)?;
    let mut names = [Some(host_name(host)), uri.host().map(host_name)].into_iter().flatten();
    names.all(|name| name == sni).then_some(()).ok_or(Refusal::Misdirected)
}

fn host_name(authority: &str) -> String {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn located(sni: &str, uri: &str, hosts: &[&str]) -> Result<EndpointName, Refusal> {
        let origin = Origin::Name { sni: sni.into(), domain: "vm.example".into() };
        let mut headers = HeaderMap::new();
        for host in hosts {
            headers.append(HOST, host.parse().unwrap());
        }
        origin.endpoint(&uri.parse().unwrap(), &headers)
    }

    #[test]
    fn a_label_needs_tls_and_http_to_agree() {
        let label = Ok(EndpointName::Label("a".into()));
        assert_eq!(located("a.vm.example", "/", &["a.vm.example"]), label);
        assert_eq!(located("a.vm.example", "/", &["A.VM.example.:8443"]), label);
        assert_eq!(located("a.vm.example", "https://a.vm.example/x", &["a.vm.example"]), label);
        assert_eq!(located("vm.example", "/", &["vm.example"]), Ok(EndpointName::Label(String::new())));
        assert_eq!(located("a.vm.example", "/", &["b.vm.example"]), Err(Refusal::Misdirected));
        assert_eq!(located("a.vm.example", "https://b.vm.example/", &["a.vm.example"]), Err(Refusal::Misdirected));
        assert_eq!(located("a.vm.example", "/", &["a.vm.example", "a.vm.example"]), Err(Refusal::InvalidHost));
        assert_eq!(located("a.vm.example", "/", &[]), Err(Refusal::InvalidHost));
    }

    #[test]
    fn a_domain_covers_itself_and_one_label() {
        for (name, inside) in [
            ("vm.example", true),
            ("a.vm.example", true),
            ("A.VM.EXAMPLE", true),
            ("a.b.vm.example", false),
            (".vm.example", false),
            ("xvm.example", false),
            ("example", false),
        ] {
            assert_eq!(within("vm.example", name), inside, "{name}");
        }
    }
}
