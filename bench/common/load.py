"""Signed requests over kept connections, as fast as the daemon answers them: signed before the clock starts, sent and read without a client's overhead."""
import itertools
import socket
import threading
import time
import urllib.parse

from support.raw import Caller, request_of
from support import model


class Requests:
    """The bytes of requests, signed once each. A signature is good for minutes, and sending one again is not told apart."""

    def __init__(self, daemon, **identity):
        self.caller = Caller(daemon, **identity)
        self.address = urllib.parse.urlsplit(daemon.environment()["AWS_ENDPOINT_URL"])

    def of(self, operation, members):
        shape = model.operations()[operation]
        path, body = request_of(shape, members)
        return self.bytes(shape.http["method"], path, self.caller.signed(shape.http["method"], path, body), body)

    def health(self):
        return self.bytes("GET", "/health", {}, b"")

    def bytes(self, method, path, headers, body):
        lines = [f"{method} {path} HTTP/1.1", f"host: {self.address.netloc}", f"content-length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items() if name.lower() not in ("host", "content-length")]
        return "\r\n".join([*lines, "", ""]).encode() + body


class Connection:
    def __init__(self, address):
        self.socket = socket.create_connection((address.hostname, address.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def exchange(self, request):
        """Sends a request and reads its answer whole. Returns (status, body)."""
        self.socket.sendall(request)
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self.receive()
        head = data[:end].lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        while len(data) < end + 4 + length:
            data += self.receive()
        return int(head[9:12]), data[end + 4:]

    def receive(self):
        part = self.socket.recv(1 << 18)
        assert part, "the daemon closed the connection"
        return part


def latencies(address, requests, count):
    """Milliseconds of each of `count` requests, one after the other on one connection."""
    connection, taken = Connection(address), []
    for request in itertools.islice(itertools.cycle(requests), count):
        began = time.perf_counter()
        status, body = connection.exchange(request)
        taken.append((time.perf_counter() - began) * 1000)
        assert status == 200, body[:500]
    return taken


def throughput(address, requests, seconds, connections):
    """Answers per second on so many connections at once."""
    counts, stop = [0] * connections, time.perf_counter() + seconds

    def work(number):
        connection = Connection(address)
        for request in itertools.cycle(requests[number:] + requests[:number]):
            if time.perf_counter() > stop:
                return
            status, body = connection.exchange(request)
            assert status == 200, body[:500]
            counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(connections)]
    began = time.perf_counter()
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert all(counts), counts
    return sum(counts) / (time.perf_counter() - began)
