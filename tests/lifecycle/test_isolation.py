"""What a guest cannot reach, and what its virtual machine may do on the host."""
import contextlib
import ipaddress
import json
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from support import leaks
from support.microvm import run
from support.waiting import until

AGENT, AGENT_PORT, METADATA = "169.254.169.249", 61001, "169.254.169.254"
DNS = "169.254.169.253"
TIMEOUT_MS = 1000
# Where a mirror may well be and a guest may not go unless the operator says so.
NOT_FOR_GUESTS = ("10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "198.18.0.0/15")


@pytest.fixture(scope="module")
def pair(daemon, probe):
    with run(daemon, probe) as first, run(daemon, probe) as second:
        yield first, second


@pytest.fixture(scope="module")
def guest(pair):
    return pair[0]


def connect(microvm, host, port):
    return microvm.get(f"/connect?host={host}&port={port}&timeout_ms={TIMEOUT_MS}")["result"]


def addresses_of_this_host():
    shown = json.loads(subprocess.run(["ip", "-json", "-4", "address"], capture_output=True, check=True).stdout)
    return {item["local"]: interface["ifname"] for interface in shown for item in interface["addr_info"]}


@contextlib.contextmanager
def listener(kind=socket.SOCK_STREAM):
    """A service of this host on all its addresses; notes who came."""
    with socket.socket(socket.AF_INET, kind) as server:
        server.bind(("0.0.0.0", 0))
        server.settimeout(0.1)
        seen, stop = [], threading.Event()
        if kind == socket.SOCK_STREAM:
            server.listen()

        def serve():
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    if kind == socket.SOCK_STREAM:
                        connection, peer = server.accept()
                        connection.close()
                    else:
                        data, peer = server.recvfrom(100)
                        server.sendto(data, peer)
                    seen.append(peer)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1], seen
        finally:
            stop.set()
            thread.join()


def test_no_service_of_this_host(daemon, guest):
    addresses = addresses_of_this_host()
    prefix = leaks.network_prefix(daemon.data)
    assert any(name.startswith(prefix) for name in addresses.values()), "the host's ends of the cells are among them"
    with listener() as (port, seen):
        with socket.create_connection(("127.0.0.1", port)):
            pass
        until("the listener works", lambda: seen)
        seen.clear()
        # All but the loopback of the guest itself, plus one end of a cell: they are all alike.
        others = [address for address, name in addresses.items() if not name.startswith(prefix) and not address.startswith("127.")]
        cells = [address for address, name in addresses.items() if name.startswith(prefix)]
        for address in [*others, *cells[:6], "127.0.0.1", AGENT, METADATA]:
            assert connect(guest, address, port) != "ok", address
    assert not seen


def test_no_udp_service_of_this_host(daemon, guest):
    with listener(socket.SOCK_DGRAM) as (port, seen):
        for address in [address for address in addresses_of_this_host() if not address.startswith("127.")][:6]:
            assert guest.get(f"/udp?host={address}&port={port}&timeout_ms={TIMEOUT_MS}")["result"] != "ok", address
    assert not seen


def test_not_the_daemon_itself(daemon, guest):
    port = int(daemon.listen.rpartition(":")[2])
    for address in [METADATA, AGENT, *list(addresses_of_this_host())[:4]]:
        for target in (port, daemon.ingress_port):
            assert connect(guest, address, target) != "ok", (address, target)


def test_not_the_endpoint_of_another(daemon, pair):
    first, second = pair
    host, _, port = second.host.partition(":")
    assert connect(first, host, port or 443) != "ok"


def test_not_another_microvm(daemon, pair):
    """The cell's end of every link of this daemon, on the agent's port and the application's."""
    prefix = leaks.network_prefix(daemon.data)
    hosts = [address for address, name in addresses_of_this_host().items() if name.startswith(prefix)]
    assert len(hosts) >= 2
    for host in [hosts[0], hosts[-1], *hosts[1:-1][:2]]:
        for address in (host, ipaddress.ip_address(host) + 1):
            for port in (8080, 9090, AGENT_PORT):
                assert connect(pair[0], address, port) != "ok", (address, port)


def test_not_the_agent(guest):
    assert connect(guest, AGENT, AGENT_PORT) != "ok"
    assert connect(guest, "127.0.0.1", AGENT_PORT) != "ok"


def test_dns_through_the_stub(guest):
    assert guest.get("/nameserver")["nameserver"] == DNS
    answer = guest.get("/resolve?name=deb.debian.org&timeout_ms=10000")
    assert answer["server"] == DNS
    try:
        socket.gethostbyname("deb.debian.org")
    except OSError:
        pytest.skip("THIS MACHINE RESOLVES NO PUBLIC NAMES: that a guest does was not tested")
    assert (answer["result"], answer["rcode"]) == ("ok", 0), answer


def mirror():
    """A public address that this machine reaches."""
    try:
        address = socket.gethostbyname("deb.debian.org")
        with socket.create_connection((address, 80), timeout=10):
            return address
    except OSError as error:
        pytest.skip(f"THIS MACHINE DOES NOT REACH THE INTERNET (deb.debian.org:80: {error}): that a guest does was not tested")


def test_tcp_to_the_internet(guest):
    address = mirror()
    if any(ipaddress.ip_address(address) in ipaddress.ip_network(network) for network in NOT_FOR_GUESTS):
        pytest.skip(f"deb.debian.org IS {address} HERE, A PRIVATE ADDRESS, which guests may not reach: egress was not tested")
    assert guest.get(f"/connect?host={address}&port=80&timeout_ms=10000")["result"] == "ok"


def test_no_udp_but_dns(guest):
    assert guest.get(f"/udp?host=8.8.8.8&port=123&timeout_ms={TIMEOUT_MS}")["result"] != "ok"
    # Another resolver than the stub, on DNS's own port.
    assert guest.get(f"/resolve?name=deb.debian.org&server=8.8.8.8&timeout_ms={TIMEOUT_MS}")["result"] != "ok"


def test_no_private_networks(guest):
    for address in ("10.0.0.1", "172.16.0.1", "192.168.0.1", "100.64.0.1"):
        assert connect(guest, address, 80) != "ok"


def status_of(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.split() for name, value in (line.split(":", 1) for line in lines)}


def test_the_virtual_machine_is_unprivileged(daemon, pair):
    users = set()
    for microvm in pair:
        pid = microvm.process()
        status = status_of(pid)
        assert "0" not in status["Uid"] and "0" not in status["Gid"]
        assert (status["NoNewPrivs"], status["Seccomp"]) == (["1"], ["2"])
        assert {int(status[name][0], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}
        assert all(task["Seccomp"] == ["2"] for task in map(status_of, (f"{pid}/task/{tid.name}" for tid in Path(f"/proc/{pid}/task").iterdir())))
        assert Path(f"/proc/{pid}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
        users.add(status["Uid"][0])
    assert len(users) == 2, "a user of its own for each"


def test_the_daemon_stays_in_no_cell(daemon, pair):
    def elsewhere():
        found = set()
        for thread in Path(f"/proc/{daemon.process.pid}/task").iterdir():
            # Threads come and go.
            with contextlib.suppress(FileNotFoundError):
                found.add((thread / "ns/net").readlink())
        return found - {Path(f"/proc/{daemon.process.pid}/ns/net").readlink()}
    until("all of the daemon's threads are out of the cells", lambda: not elsewhere(), 10)


def test_others_cannot_look_into_the_data(daemon):
    assert daemon.data.stat().st_mode & 0o077 == 0
