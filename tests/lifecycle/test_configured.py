"""What an operator configures: a domain for endpoints, registries with credentials and mirrors. A daemon of its own."""
import contextlib
import shutil
import socket
import ssl
import subprocess
import uuid

import pytest
import urllib3.util.connection

from support import outside, paths
from support.daemon import Daemon
from support.images import Images
from support.microvm import run

DOMAIN, LISTEN = "vm.example.test", "127.0.0.1"
REGISTRY_PORT, USER, PASSWORD = 5000, "puller", "a \"quoted\" password"
REGISTRY = f"{outside.PEER}:{REGISTRY_PORT}"
CONFIGURATION = f"""
[ingress]
domain = "{DOMAIN}"
listen = "{LISTEN}"

[[build.registries]]
name = "{REGISTRY}"
insecure = true
username = "{USER}"
password = '{PASSWORD}'

[[build.registries]]
name = "docker.io"
mirrors = ["{REGISTRY}/mirrored"]
insecure = true
username = "{USER}"
password = '{PASSWORD}'
"""
DOCKERFILE = f"FROM docker.io/library/note:1 AS note\nFROM {REGISTRY}/team/probe:1\nCOPY --from=note /note /from-the-mirror\n"


@pytest.fixture(scope="module")
def network():
    with outside.network() as network:
        yield network


@pytest.fixture(scope="module")
def registry(network, tmp_path_factory):
    """Returns what its access log says."""
    directory, log = tmp_path_factory.mktemp("image"), tmp_path_factory.mktemp("registry") / "access.log"
    shutil.copy(paths.require(paths.PROBE, "run `make build`"), directory / "probe")
    (directory / "note").write_text("mirrored")
    with network.python("registry.py", REGISTRY_PORT, f"{USER}:{PASSWORD}", log, directory):
        yield log.read_text


@pytest.fixture(scope="module")
def configured():
    with Daemon(config=CONFIGURATION).serving() as daemon:
        yield daemon


@pytest.fixture(scope="module")
def microvm(configured, registry):
    image = Images(configured).create("registry", {"Dockerfile": DOCKERFILE}).built()
    with names_resolved(), run(configured, image) as microvm:
        yield microvm


@contextlib.contextmanager
def names_resolved():
    """The DNS wildcard that an operator sets up, for `requests` in this process."""
    original = urllib3.util.connection.create_connection
    def create_connection(address, *arguments, **options):
        host, port = address
        return original((LISTEN if host.endswith(f".{DOMAIN}") else host, port), *arguments, **options)
    urllib3.util.connection.create_connection = create_connection
    try:
        yield
    finally:
        urllib3.util.connection.create_connection = original


def test_images_come_from_the_registry_and_its_mirror_with_credentials(microvm, registry):
    """The application runs, so `FROM` was pulled, ENTRYPOINT included."""
    assert microvm.request("GET", "/clock").status_code == 200
    pulled = {line.split()[1] for line in registry().splitlines() if line.startswith("known ")}
    assert any(path.startswith("/v2/team/probe/blobs/") for path in pulled)
    assert any(path.startswith("/v2/mirrored/library/note/blobs/") for path in pulled)


def test_the_password_is_in_no_log(configured, microvm):
    logs = {path: path.read_text() for path in [configured.log, *(path for path in (configured.data / "logs").rglob("*") if path.is_file())]}
    assert any("STEP" in text for text in logs.values()), "the build's own log is among them"
    assert [path for path, text in logs.items() if PASSWORD in text] == []


def test_the_endpoint_is_a_name_under_the_domain(configured, microvm):
    host = microvm.host.rpartition(":")[0] or microvm.host
    label, _, domain = host.partition(".")
    assert domain == DOMAIN and str(uuid.UUID(label)) == label
    assert microvm.request("GET", "/clock").status_code == 200, "its certificate is for that name"


def test_an_unknown_name_under_the_domain(configured, microvm):
    host, known = f"{uuid.uuid4()}.{DOMAIN}:{configured.ingress_port}", microvm.host
    try:
        microvm.host = host
        answer = microvm.request("GET", "/")
    finally:
        microvm.host = known
    assert (answer.status_code, answer.json()["message"]) == (403, "Token authentication failed")


def test_another_name_has_no_certificate(configured, microvm):
    """Nothing is signed for names that are not the domain's."""
    context = ssl.create_default_context(cafile=configured.endpoint()["ca"])
    with socket.create_connection((LISTEN, configured.ingress_port)) as connection, pytest.raises(ssl.SSLError):
        context.wrap_socket(connection, server_hostname="bank.example")


def connect(microvm, host, port):
    return microvm.get(f"/connect?host={host}&port={port}&timeout_ms=2000")["result"]


def test_a_published_port_of_this_host_is_not_the_internet(microvm, registry):
    """A guest reaches a public server; the same server behind an address that this host translates, as container engines do, it does not."""
    assert connect(microvm, outside.PEER, REGISTRY_PORT) == "ok"
    table = f"emberbox_test_{uuid.uuid4().hex[:8]}"
    rule = f"type nat hook prerouting priority dstnat\nip daddr {outside.HOST} tcp dport 81 dnat to {REGISTRY}"
    rules = f"table ip {table} {{\nchain prerouting {{\n{rule}\n}}\n}}\n"
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True)
    try:
        assert connect(microvm, outside.HOST, 81) != "ok"
    finally:
        subprocess.run(["nft", "delete", "table", "ip", table], check=True)
