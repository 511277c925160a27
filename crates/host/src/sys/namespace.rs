//! Network namespaces: making them, and making sockets inside them.
//!
//! A thread enters the namespace, makes the socket and ends, or serves the next request: no thread of the async runtime ever changes its namespace.

use std::fs::File;
use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use nix::sched::{CloneFlags, setns, unshare};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::sync::oneshot;

const KEEPALIVE_AFTER: Duration = Duration::from_secs(5);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(2);
const KEEPALIVE_RETRIES: u32 = 5;
/// A guest is a hop away: one that acknowledges nothing for this long is gone.
const GONE_AFTER: Duration = Duration::from_secs(20);

nix::ioctl_none!(tun_get_namespace, b'T', 227);

/// An open network namespace. It lives as long as this, or as a process or thread in it.
#[derive(Debug, Clone)]
pub(crate) struct NetworkNamespace(Arc<OwnedFd>);

impl NetworkNamespace {
    /// Runs `inside` on a thread of its own in a new namespace, and returns that namespace with the result.
    pub(crate) fn create<T: Send + 'static>(inside: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<(Self, T)> {
        on_a_thread(move || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let namespace = Self::current()?;
            Ok((namespace, inside()?))
        })
    }

    /// The namespace a process is in.
    pub(crate) fn of_process(pid: i32) -> io::Result<Self> {
        Ok(Self(Arc::new(File::open(format!("/proc/{pid}/ns/net"))?.into())))
    }

    /// The namespace that a tap is in.
    pub(crate) fn of_tap(tap: &OwnedFd) -> io::Result<Self> {
        // SAFETY: TUNGETDEVNETNS takes no argument and returns a new descriptor or -1.
        let fd = unsafe { tun_get_namespace(tap.as_raw_fd())? };
        // SAFETY: the kernel just gave us this descriptor and nobody else knows it.
        Ok(Self(Arc::new(unsafe { OwnedFd::from_raw_fd(fd) })))
    }

    fn current() -> io::Result<Self> {
        Ok(Self(Arc::new(File::open("/proc/thread-self/ns/net")?.into())))
    }

    /// Runs `inside` on a thread of its own in this namespace.
    pub(crate) fn run<T: Send + 'static>(&self, inside: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
        let namespace = self.clone();
        on_a_thread(move || {
            namespace.enter()?;
            inside()
        })
    }

    /// Moves the calling thread in. Only for threads of our own, and for a child between fork and exec.
    pub(crate) fn enter(&self) -> io::Result<()> {
        Ok(setns(self.as_fd(), CloneFlags::CLONE_NEWNET)?)
    }
}

impl AsFd for NetworkNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    let thread = std::thread::Builder::new().name("cell".into()).spawn(work)?;
    thread.join().map_err(|_| io::Error::other("a thread inside a network namespace panicked"))?
}

/// Makes TCP sockets inside namespaces, on one thread that stays: entering a namespace costs microseconds, a new thread more.
#[derive(Debug, Clone)]
pub(crate) struct SocketFactory(mpsc::Sender<Order>);

#[derive(Debug)]
struct Order {
    namespace: NetworkNamespace,
    reply: oneshot::Sender<io::Result<Socket>>,
}

impl SocketFactory {
    /// The thread ends when the last clone is dropped.
    pub(crate) fn start() -> io::Result<Self> {
        let (orders, queue) = mpsc::channel::<Order>();
        let home = NetworkNamespace::current()?;
        std::thread::Builder::new().name("cell-sockets".into()).spawn(move || {
            for order in queue {
                let socket = order.namespace.enter().and_then(|()| Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)));
                // A receiver that is gone has lost interest: the socket closes.
                let _ = order.reply.send(socket);
                // A thread that stayed would keep an ended machine's namespace until the next connection, and have that one wait for its end.
                if let Err(error) = home.enter() {
                    tracing::warn!(%error, "the thread that makes sockets stays in a network namespace");
                }
            }
        })?;
        Ok(Self(orders))
    }

    /// A TCP connection made from inside `namespace`.
    pub(crate) async fn connect(&self, namespace: &NetworkNamespace, address: SocketAddrV4) -> io::Result<tokio::net::TcpStream> {
        let (reply, socket) = oneshot::channel();
        let gone = || io::Error::other("the thread that makes sockets has ended");
        self.0.send(Order { namespace: namespace.clone(), reply }).map_err(|_| gone())?;
        let socket = socket.await.map_err(|_| gone())??;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        tokio::net::TcpSocket::from_std_stream(socket.into()).connect(address.into()).await
    }
}

/// Has the connection break when its guest acknowledges nothing any more.
pub(crate) fn end_when_silent(stream: &tokio::net::TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(
        &TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY).with_retries(KEEPALIVE_RETRIES),
    )?;
    socket.set_tcp_user_timeout(Some(GONE_AFTER))
}
