//! The DNS stub of a cell: takes the guest's questions at 169.254.169.253 and asks the host's resolvers from the host's namespace.
//!
//! It passes messages on without reading them, so there is no parser to attack; it bounds their size, their number and the time they may take.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use emberbox_agent_protocol::DNS_ADDRESS;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::NetworkError;
use super::soon::soon;
use crate::sys::namespace::NetworkNamespace;

const PORT: u16 = 53;
/// Larger than any UDP answer a resolver gives (EDNS recommends 1,232 bytes).
const MAX_DATAGRAM: usize = 4096;
/// Questions of one guest under way; more are dropped, and resolvers ask again.
const MAX_QUESTIONS: usize = 64;
/// One resolver gets this long before the next is asked; guests give up after 5 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// A TCP exchange in all.
const TCP_WITHIN: Duration = Duration::from_secs(10);

/// Runs while it is kept.
#[derive(Debug)]
pub(super) struct DnsRelay {
    _tasks: JoinSet<()>,
}

impl DnsRelay {
    pub(super) fn start(
        namespace: &NetworkNamespace,
        resolvers: &[IpAddr],
        runtime: &tokio::runtime::Handle,
    ) -> Result<Self, NetworkError> {
        let failed = |source| NetworkError::Io { attempted: "open the DNS relay's sockets", source };
        let address = SocketAddrV4::new(DNS_ADDRESS, PORT);
        let (udp, tcp) = namespace
            .run(move || {
                let udp = bind_soon(|| std::net::UdpSocket::bind(address))?;
                let tcp = bind_soon(|| std::net::TcpListener::bind(address))?;
                udp.set_nonblocking(true)?;
                tcp.set_nonblocking(true)?;
                Ok((udp, tcp))
            })
            .map_err(failed)?;
        let _entered = runtime.enter();
        let (udp, tcp) = (UdpSocket::from_std(udp).map_err(failed)?, TcpListener::from_std(tcp).map_err(failed)?);
        let resolvers: Arc<[SocketAddr]> = resolvers.iter().map(|resolver| SocketAddr::new(*resolver, PORT)).collect();
        let mut tasks = JoinSet::new();
        tasks.spawn_on(serve_udp(Arc::new(udp), resolvers.clone()), runtime);
        tasks.spawn_on(serve_tcp(tcp, resolvers), runtime);
        Ok(Self { _tasks: tasks })
    }
}

/// Binds an address that a daemon before this one may still hold.
fn bind_soon<T>(bind: impl Fn() -> io::Result<T>) -> io::Result<T> {
    soon(bind, |bound| matches!(bound, Err(error) if error.kind() == io::ErrorKind::AddrInUse))
}

async fn serve_udp(socket: Arc<UdpSocket>, resolvers: Arc<[SocketAddr]>) {
    let places = Arc::new(Semaphore::new(MAX_QUESTIONS));
    let mut questions = JoinSet::new();
    let mut buffer = [0; MAX_DATAGRAM];
    loop {
        // An error here is an ICMP message about an earlier answer.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        while questions.try_join_next().is_some() {}
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let (socket, resolvers, question) = (socket.clone(), resolvers.clone(), buffer[..length].to_vec());
        questions.spawn(async move {
            for resolver in resolvers.iter() {
                if let Ok(Ok(answer)) = timeout(ANSWER_WITHIN, ask(&question, *resolver)).await {
                    let _ = socket.send_to(&answer, from).await;
                    break;
                }
            }
            drop(place);
        });
    }
}

/// One question to one resolver, from a port of its own.
async fn ask(question: &[u8], resolver: SocketAddr) -> io::Result<Vec<u8>> {
    let any: IpAddr = if resolver.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { std::net::Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(resolver).await?;
    socket.send(question).await?;
    let mut answer = vec![0; MAX_DATAGRAM];
    loop {
        let length = socket.recv(&mut answer).await?;
        // The answer bears the question's number; anything else is not for us.
        if length >= 2 && question.len() >= 2 && answer[..2] == question[..2] {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

async fn serve_tcp(listener: TcpListener, resolvers: Arc<[SocketAddr]>) {
    let places = Arc::new(Semaphore::new(MAX_QUESTIONS));
    let mut exchanges = JoinSet::new();
    loop {
        let Ok((mut guest, _)) = listener.accept().await else {
            // Out of descriptors: let some close.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        while exchanges.try_join_next().is_some() {}
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let resolvers = resolvers.clone();
        exchanges.spawn(async move {
            let exchange = async {
                for resolver in resolvers.iter() {
                    if let Ok(mut upstream) = TcpStream::connect(resolver).await {
                        let _ = tokio::io::copy_bidirectional(&mut guest, &mut upstream).await;
                        break;
                    }
                }
            };
            let _ = timeout(TCP_WITHIN, exchange).await;
            drop(place);
        });
    }
}

/// The resolvers of `/etc/resolv.conf`.
pub(super) fn host_resolvers() -> Vec<IpAddr> {
    parse_resolvers(&std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default())
}

fn parse_resolvers(text: &str) -> Vec<IpAddr> {
    text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Instant;

    use super::*;

    #[test]
    fn resolvers_are_the_nameserver_lines() {
        let text = "# comment\nsearch example.com\nnameserver 127.0.0.53\n nameserver  ::1 \nnameserver wrong\n";
        let expected: Vec<IpAddr> = ["127.0.0.53", "::1"].iter().filter_map(|text| text.parse().ok()).collect();
        assert_eq!(parse_resolvers(text), expected);
    }

    #[test]
    fn an_address_that_is_free_in_a_moment_is_waited_for() {
        let holder = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = holder.local_addr().unwrap();
        let releases = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(holder);
        });
        assert_eq!(bind_soon(|| std::net::UdpSocket::bind(address)).unwrap().local_addr().unwrap(), address);
        releases.join().unwrap();
    }

    #[test]
    fn another_failure_is_told_at_once() {
        let began = Instant::now();
        let refused = bind_soon(|| Err::<(), _>(io::ErrorKind::PermissionDenied.into())).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        assert!(began.elapsed() < Duration::from_secs(3));
    }
}
