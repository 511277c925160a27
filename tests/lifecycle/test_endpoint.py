"""The HTTPS endpoint: credentials, ports, what the application sees, streaming. Each line of aws-behaviour.md's "Answers"."""
import base64
import json
import socket
import ssl
import threading
import time

import pytest
import requests

from support.microvm import PROXY_AUTH, PROXY_PORT, run


@pytest.fixture(scope="module")
def microvm(daemon, probe):
    with run(daemon, probe) as microvm:
        yield microvm


@pytest.fixture(scope="module")
def other(daemon, probe):
    with run(daemon, probe) as microvm:
        yield microvm


def refused(answer, status, message):
    assert (answer.status_code, answer.json()["message"]) == (status, message)


MISSING, FAILED, DENIED = "Request missing authentication", "Token authentication failed", "Access to port denied"


def test_the_token_is_a_compact_jwe(microvm):
    parts = microvm.token().split(".")
    assert len(parts) == 5
    header = json.loads(base64.urlsafe_b64decode(parts[0] + "=="))
    assert set(header) == {"kid", "alg", "enc"} and (header["alg"], header["enc"]) == ("dir", "A256GCM")


def test_no_token(microvm):
    refused(microvm.request("GET", "/", token=False), 403, MISSING)


@pytest.mark.parametrize("token", ["x", "a.b.c", "....", "Bearer x", "e30....", "e30.a.b.c.d.e"])
def test_malformed_token(microvm, token):
    refused(microvm.request("GET", "/", token=token), 403, MISSING)


@pytest.mark.parametrize("part", [2, 3, 4])
def test_tampered_token(microvm, part):
    """One bit of the IV, the ciphertext or the tag."""
    parts = microvm.token().split(".")
    content = bytearray(base64.urlsafe_b64decode(parts[part] + "=="))
    content[0] ^= 1
    parts[part] = base64.urlsafe_b64encode(content).decode().rstrip("=")
    refused(microvm.request("GET", "/", token=".".join(parts)), 403, FAILED)


def test_foreign_token(microvm, other):
    refused(microvm.request("GET", "/", token=other.token()), 403, FAILED)
    assert other.request("GET", "/", token=other.token()).status_code == 200


def test_unknown_host(daemon, microvm):
    """An address that no MicroVM has."""
    taken = {microvm.host.partition(":")[0]}
    address = next(f"127.99.99.{n}" for n in range(1, 255) if f"127.99.99.{n}" not in taken)
    try:
        answer = requests.get(f"https://{address}:{daemon.ingress_port}/", headers={PROXY_AUTH: microvm.token()}, verify=daemon.endpoint()["ca"],
                              timeout=10, proxies={"https": ""})
    except requests.exceptions.SSLError:
        return  # No certificate for a host that is nobody's: no answer at all.
    refused(answer, 403, FAILED)


def test_ports_of_the_token(microvm):
    one, span = ({"port": 8080},), ({"range": {"startPort": 9000, "endPort": 9100}},)
    assert microvm.request("GET", "/", token=microvm.token(one)).status_code == 200
    refused(microvm.request("GET", "/", token=microvm.token(one), port=9090), 403, DENIED)
    assert microvm.request("GET", "/", token=microvm.token(span), port=9090).text == "second port"
    refused(microvm.request("GET", "/", token=microvm.token(span)), 403, DENIED)
    assert microvm.request("GET", "/", token=microvm.token(one + span), port=9090).status_code == 200


def test_nothing_listening(microvm):
    assert microvm.request("GET", "/", port=9999).status_code == 502


def test_expiry(microvm):
    """A minute is the shortest life of a token."""
    token, minted = microvm.client.create_microvm_auth_token(
        microvmIdentifier=microvm.id, expirationInMinutes=1, allowedPorts=[{"allPorts": {}}])["authToken"][PROXY_AUTH], time.monotonic()
    assert microvm.request("GET", "/", token=token).status_code == 200
    time.sleep(max(0, 62 - (time.monotonic() - minted)))
    refused(microvm.request("GET", "/", token=token), 403, FAILED)
    assert microvm.request("GET", "/").status_code == 200


def test_what_the_application_sees(microvm):
    seen = microvm.get("/headers?a=b%20c", headers={"X-Mine": "yes", "x-aws-proxy-anything": "no"}, port=8080)
    names = {name.lower(): value for name, value in seen["headers"]}
    assert seen["target"] == "/headers?a=b%20c"
    assert names["x-mine"] == "yes" and names["host"] == "localhost:8080"
    assert not [name for name in names if name.startswith("x-aws-proxy-")]


def test_methods_and_bodies(microvm):
    body = bytes(range(256)) * 4096
    assert microvm.request("POST", "/echo", data=body).content == body
    assert microvm.request("PUT", "/files/body", data=body).status_code == 200
    assert microvm.request("GET", "/files/body").content == body
    assert microvm.request("GET", "/no-such-path").status_code == 404


def test_answers_stream(microvm):
    """Each piece arrives before the next one is made."""
    arrived = []
    with microvm.request("GET", "/stream?chunks=4&interval_ms=500", stream=True) as answer:
        for line in answer.iter_lines(chunk_size=1):
            arrived.append((line, time.monotonic()))
    assert [line for line, _ in arrived] == [b"chunk 0", b"chunk 1", b"chunk 2", b"chunk 3"]
    assert arrived[-1][1] - arrived[0][1] > 1.0, "they did not come at once"


def test_requests_stream(daemon, microvm):
    """The echo of the first half comes back before the second half is sent."""
    half, received = b"x" * 1000, bytearray()
    with _open(daemon, microvm) as link:
        send = lambda data: link.sendall(b"%x\r\n%s\r\n" % (len(data), data))
        send(half)
        while half not in received.replace(b"\r\n", b""):
            piece = link.recv(65536)
            assert piece, received
            received += piece
        send(half)
        link.sendall(b"0\r\n\r\n")
        while not received.endswith(b"0\r\n\r\n"):
            piece = link.recv(65536)
            assert piece, received
            received += piece
    assert received.count(b"x") == 2 * len(half)


def _open(daemon, microvm):
    host, _, port = microvm.host.partition(":")
    context = ssl.create_default_context(cafile=daemon.endpoint()["ca"])
    link = context.wrap_socket(socket.create_connection((host, int(port or 443)), timeout=30), server_hostname=host)
    link.sendall(f"POST /echo HTTP/1.1\r\nHost: {microvm.host}\r\n{PROXY_AUTH}: {microvm.token()}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    return link


def test_many_connections(microvm):
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(microvm.request("GET", "/stream?chunks=3&interval_ms=200").text)) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["chunk 0\nchunk 1\nchunk 2\n"] * 20


def test_a_large_answer_is_whole(microvm):
    content = microvm.request("GET", "/big?mib=20").content
    pattern = bytes(range(251)) * (len(content) // 251 + 1)
    assert len(content) == 20 << 20 and content == pattern[:len(content)]


def test_the_certificate_is_of_our_ca_alone(microvm):
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(f"https://{microvm.host}/", timeout=10, proxies={"https": ""})


def test_a_request_while_pending_waits(daemon, probe):
    from support.microvm import launch
    with launch(daemon, probe) as microvm:
        assert microvm.get("/hostname")["hostname"] == microvm.host_name


def test_terminated(daemon, probe):
    with run(daemon, probe) as microvm:
        token = microvm.token()
        assert microvm.request("GET", "/", token=token).status_code == 200
    assert microvm.request("GET", "/", token=token).status_code == 502


def test_the_application_ends(daemon, probe):
    """An application that is gone is nothing listening, or the MicroVM's end; never a hang."""
    with run(daemon, probe) as microvm:
        microvm.request("POST", "/exit?code=3")
        deadline = time.monotonic() + 30
        while microvm.request("GET", "/").status_code != 502 and time.monotonic() < deadline:
            time.sleep(0.2)
        assert microvm.request("GET", "/").status_code == 502


@pytest.mark.parametrize("value", ["0", "65536", "http", "80,81", "-1"])
def test_a_port_that_is_none(microvm, value):
    answer = microvm.request("GET", "/", headers={PROXY_PORT: value})
    assert answer.status_code in (400, 403)
