"""A public network for guests to reach: a namespace behind a pair of interfaces, at documentation addresses (RFC 5737), of this process alone."""
import contextlib
import ctypes
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

_FIRST = 4 * (os.getpid() % 64)
# This machine's end of the network, and the end inside, where servers are.
HOST, PEER = f"198.51.100.{_FIRST + 1}", f"198.51.100.{_FIRST + 2}"
CLONE_NEWNET = 0x40000000


class Outside:
    def __init__(self):
        self.link = f"out{os.getpid() % 100_000}"
        self.holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        self.namespace = Path(f"/proc/{self.holder.pid}/ns/net")

    def open(self):
        while self.namespace.readlink() == Path("/proc/self/ns/net").readlink():
            assert self.holder.poll() is None, "no network namespace could be made"
        _run("ip", "link", "add", self.link, "type", "veth", "peer", "name", "out", "netns", str(self.holder.pid))
        _run("ip", "address", "add", f"{HOST}/30", "dev", self.link)
        _run("ip", "link", "set", self.link, "up")
        for command in (["address", "add", f"{PEER}/30", "dev", "out"], ["link", "set", "out", "up"], ["link", "set", "lo", "up"],
                        ["route", "add", "default", "via", HOST]):
            _run(*self._inside("ip", *command))
        return self

    def close(self):
        self.holder.kill()
        self.holder.wait()
        # The namespace's end goes when its last process does; both go with either.
        subprocess.run(["ip", "link", "delete", self.link], stderr=subprocess.DEVNULL)

    @contextlib.contextmanager
    def python(self, script, *arguments):
        """A Python program of tests/support at `PEER`; ready when it has printed a line."""
        command = self._inside(sys.executable, Path(__file__).parent / script, *arguments)
        process = subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout.readline(), f"{script} did not start"
            yield process
        finally:
            process.kill()
            process.wait()

    def listener(self):
        """A TCP socket on `PEER`, made by a thread that enters the namespace and ends there."""
        made = []

        def make():
            libc = ctypes.CDLL(None, use_errno=True)
            with self.namespace.open() as namespace:
                if libc.setns(namespace.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(socket.create_server((PEER, 0)))
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        return made[0]

    def _inside(self, *command):
        return ["nsenter", f"--net={self.namespace}", *command]


class Server:
    """Takes connections and holds them; `ended` says how the guest's side of each was."""

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
def network():
    made = Outside()
    try:
        yield made.open()
    finally:
        made.close()


@contextlib.contextmanager
def server():
    """A TCP server on `PEER`."""
    with network() as made, made.listener() as listener:
        yield Server(listener)


def _run(*command):
    subprocess.run(command, check=True)
