"""Client tokens across the death of the daemon: what a token made is there once, or not at all."""
import os
import threading

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from support.daemon import Daemon

CONFIGURATION = {"VpcEgressConfiguration": {"SubnetIds": ["subnet-1"], "NetworkProtocol": "IPv4", "AssociatedComputeResourceTypes": ["MicroVm"]}}
ROLE = "arn:aws:iam::123456789012:role/operator"
ROUNDS = 4
CLIENTS = 4


@pytest.fixture
def mortal(own_daemon):
    """A daemon of this test's own: it dies in it."""
    daemon = Daemon().start()
    yield daemon
    daemon.end()


def test_a_killed_daemon_makes_nothing_twice(mortal):
    """Clients ask with tokens while the daemon is killed; each asks again afterwards, as SDKs do. One record for each token, whatever was answered before."""
    wanted, answered = {}, {}
    for number in range(ROUNDS):
        stop = threading.Event()

        def ask(client, name):
            while not stop.is_set():
                key = f"{name}-{os.urandom(4).hex()}"
                wanted[key] = {"Name": key, "ClientToken": key, "Configuration": CONFIGURATION, "OperatorRole": ROLE}
                try:
                    answered[key] = client.create_network_connector(**wanted[key])["Arn"]
                except (BotoCoreError, ClientError):
                    return
        threads = [threading.Thread(target=ask, args=(mortal.new_client("lambda-core"), f"r{number}c{client}")) for client in range(CLIENTS)]
        for thread in threads:
            thread.start()
        stop.wait(0.05 * (number + 1))
        mortal.kill()
        stop.set()
        for thread in threads:
            thread.join()
        mortal.start()
    core = mortal.new_client("lambda-core")
    assert wanted
    for key, members in list(wanted.items()):
        again = core.create_network_connector(**members)["Arn"]
        assert answered.setdefault(key, again) == again, f"{key} was answered before and is made anew"
    pages = core.get_paginator("list_network_connectors").paginate()
    names = [item["Name"] for page in pages for item in page["NetworkConnectors"]]
    assert sorted(names) == sorted(wanted), "one for each token"
