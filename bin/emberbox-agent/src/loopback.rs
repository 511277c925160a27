//! Connections to the application, over loopback as on AWS.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::TcpStream;

/// Connects to 127.0.0.1, or to ::1 where only that is listened on.
pub(crate) async fn connect(port: u16) -> io::Result<TcpStream> {
    let stream = match TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await {
        Ok(stream) => stream,
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            TcpStream::connect(SocketAddr::from((Ipv6Addr::LOCALHOST, port))).await.map_err(|_| error)?
        }
        Err(error) => return Err(error),
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}
