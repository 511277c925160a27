//! The listening socket. Owns the choice of address and device; must never listen beyond loopback in loopback mode.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::net::TcpListener;

use crate::authority::AuthorityError;
use crate::config::IngressMode;

/// Connections the kernel holds for us while we are busy.
const BACKLOG: i32 = 1024;

/// Why the endpoints cannot be served; the text says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error(
        "port {} is taken: end what listens there (`ss -ltnp 'sport = :{}'` names it) or set another ingress port",
        .address.port(), .address.port()
    )]
    PortTaken { address: SocketAddr, source: io::Error },
    #[error("listening on port {} needs CAP_NET_BIND_SERVICE: run the daemon as root, or set an ingress port of 1024 or more", .address.port())]
    PortPrivileged { address: SocketAddr, source: io::Error },
    #[error("binding the ingress socket to the loopback device was refused: run the daemon as root, or on Linux 5.7 or newer")]
    DevicePrivileged { source: io::Error },
    #[error("the ingress cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("the ingress has no certificate to serve")]
    Certificate(#[from] AuthorityError),
}

pub(crate) fn listen(mode: &IngressMode, port: u16) -> Result<TcpListener, BindError> {
    let (ip, loopback) = match mode {
        IngressMode::Loopback => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), true),
        IngressMode::Domain { listen, .. } => (*listen, false),
    };
    let address = SocketAddr::new(ip, port);
    let other = |source| BindError::Listen { address, source };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP)).map_err(other)?;
    socket.set_nonblocking(true).map_err(other)?;
    // A restarted daemon takes the port although old connections linger in TIME_WAIT.
    socket.set_reuse_address(true).map_err(other)?;
    if loopback {
        // All of 127.0.0.0/8 by one socket, and nothing that arrives by another interface.
        socket.bind_device(Some(b"lo")).map_err(|source| BindError::DevicePrivileged { source })?;
    }
    socket.bind(&SockAddr::from(address)).map_err(|source| named(address, source))?;
    socket.listen(BACKLOG).map_err(|source| named(address, source))?;
    TcpListener::from_std(socket.into()).map_err(other)
}

fn named(address: SocketAddr, source: io::Error) -> BindError {
    match source.kind() {
        io::ErrorKind::AddrInUse => BindError::PortTaken { address, source },
        io::ErrorKind::PermissionDenied => BindError::PortPrivileged { address, source },
        _ => BindError::Listen { address, source },
    }
}
