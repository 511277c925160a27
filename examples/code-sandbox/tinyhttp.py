"""A small HTTP/1.1 server on sockets and threads.

Debian's python3-minimal comes without http.server, and the packages that hold it more than double the download. On a larger base use the real one.
"""

import json
import socket
import threading
from typing import NamedTuple

REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 500: "Internal Server Error"}
MAX_LINE = 64 * 1024
MAX_BODY = 64 * 1024 * 1024
# Connections served at a time.
WORKERS = 32


class Request(NamedTuple):
    method: str
    path: str
    headers: dict  # by lower-case name
    body: bytes


class Problem(Exception):
    """Raised by a handler to answer with an error."""

    def __init__(self, status, message):
        super().__init__(message)
        self.status = status


def serve(port, handle):
    """Answers every request with handle(request): bytes as they are, anything else as JSON."""
    with socket.create_server(("", port), backlog=128) as listener:
        # Started before the snapshot, they wait in every copy of it: no launch pays for making a thread.
        workers = [threading.Thread(target=_serve_connections, args=(listener, handle), daemon=True) for _ in range(WORKERS)]
        for worker in workers:
            worker.start()
        workers[0].join()


def _serve_connections(listener, handle):
    while True:
        connection, _ = listener.accept()
        _serve_connection(connection, handle)


def _serve_connection(connection, handle):
    with connection, connection.makefile("rwb") as stream:
        try:
            while request := _read_request(stream):
                _write_answer(stream, *_answer(request, handle))
                if request.headers.get("connection", "").lower() == "close":
                    return
        except ValueError as error:
            _write_answer(stream, 400, {"error": str(error)})
        except OSError:
            pass  # the client is gone


def _answer(request, handle):
    try:
        return 200, handle(request)
    except Problem as problem:
        return problem.status, {"error": str(problem)}
    except Exception as error:
        return 500, {"error": repr(error)}


def _read_request(stream):
    """The next request of a connection, or None at its end."""
    first = stream.readline(MAX_LINE).decode("latin-1")
    if not first:
        return None
    method, path, _version = first.split()
    headers = {}
    while line := stream.readline(MAX_LINE).decode("latin-1").strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    if headers.get("expect", "").lower() == "100-continue":
        stream.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        stream.flush()
    return Request(method, path.partition("?")[0], headers, _read_body(stream, headers))


def _read_body(stream, headers):
    if headers.get("transfer-encoding", "").lower() != "chunked":
        return _read_exactly(stream, int(headers.get("content-length", 0)))
    body = b""
    while size := int(stream.readline(MAX_LINE).partition(b";")[0], 16):
        body += _read_exactly(stream, size, MAX_BODY - len(body))
        stream.readline(MAX_LINE)
    while stream.readline(MAX_LINE).strip():
        pass  # trailers
    return body


def _read_exactly(stream, size, limit=MAX_BODY):
    if not 0 <= size <= limit:
        raise ValueError("the body is too large")
    data = stream.read(size)
    if len(data) < size:
        raise ValueError("the body ends early")
    return data


def _write_answer(stream, status, content):
    kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
    body = content if isinstance(content, bytes) else json.dumps(content).encode() + b"\n"
    stream.write(
        f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    )
    stream.flush()
