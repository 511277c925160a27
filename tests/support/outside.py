"""A machine outside, as guests see it: a network namespace with a public address, reached through the host."""
import contextlib
import socket
import subprocess
import threading

# Of the range for documentation: public to the packet filter, and nobody's.
HOST, PEER = "203.0.113.1", "203.0.113.2"
NAME = "emberbox-outside"


def _ip(*arguments, check=True):
    return subprocess.run(["ip", *arguments], check=check, capture_output=True, text=True)


class Server:
    """Takes connections and holds them; `resets` counts those that the guest's side has ended."""

    def __init__(self, listener):
        self.listener, self.connections, self.ended = listener, [], []
        self.port = listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections.append(connection)
            connection.sendall(b"welcome")
            threading.Thread(target=self._follow, args=(connection,), daemon=True).start()

    def _follow(self, connection):
        try:
            how = "end" if not connection.recv(1) else "data"
        except OSError as error:
            how = type(error).__name__
        self.ended.append(how)


@contextlib.contextmanager
def server():
    """A TCP server on PEER."""
    _ip("netns", "delete", NAME, check=False)
    _ip("netns", "add", NAME)
    try:
        _ip("link", "add", "outside0", "type", "veth", "peer", "name", "eth0", "netns", NAME)
        _ip("addr", "add", f"{HOST}/30", "dev", "outside0")
        _ip("link", "set", "outside0", "up")
        _ip("-n", NAME, "addr", "add", f"{PEER}/30", "dev", "eth0")
        _ip("-n", NAME, "link", "set", "eth0", "up")
        _ip("-n", NAME, "route", "add", "default", "via", HOST)
        listener = _socket_in_namespace()
        try:
            yield Server(listener)
        finally:
            listener.close()
    finally:
        _ip("netns", "delete", NAME, check=False)
        _ip("link", "delete", "outside0", check=False)


def _socket_in_namespace():
    """Made by a thread that enters the namespace and ends there."""
    made = []

    def make():
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/run/netns/{NAME}") as namespace:
            if libc.setns(namespace.fileno(), 0x40000000):
                raise OSError(ctypes.get_errno(), "setns")
        made.append(socket.create_server((PEER, 0)))
    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return made[0]
