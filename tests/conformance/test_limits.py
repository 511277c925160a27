"""Rates, quotas and the host's capacity: daemons of the test's own, configured so tightly that the first requests meet them. No guest is started."""
import sqlite3
import uuid

import pytest

from support import model
from support.daemon import Daemon
from support.images import Images
from support.raw import Caller
from support.seed import Seed

from conformance import samples
from conformance.connectors import active, creation, definition
from conformance.test_errors import declaring, refused

GROUPS = ("run", "suspend", "resume", "terminate", "build", "token", "write", "read")
THROTTLED = "[rates]\n" + "\n".join(f"{group} = {{ per_second = 0.001, burst = 1 }}" for group in GROUPS)
LIMITED = "[quotas]\nmemory_mib = 100\nimages = 2\nversions_per_image = 1\nnetwork_connectors = 1\nversions_per_network_connector = 1"
FULL = "[capacity]\nmemory_mib = 100\noversubscription = 1.0"


@pytest.fixture(scope="module")
def throttled(own_daemon):
    daemon = Daemon(config=THROTTLED).start()
    yield Caller(daemon)
    # What looks for things left behind asks more often than this daemon answers.
    daemon.config.write_text("")
    daemon.restart("stop").end()


THROTTLING = ("ThrottlingException", "TooManyRequestsException")


@pytest.mark.parametrize("operation", [param for error in THROTTLING for param in declaring(error)])
def test_rates(throttled, operation):
    """A bucket holds one request here: the second one at the latest finds it empty, and is told when to come again."""
    error = next(name for name in THROTTLING if name in model.declared_errors(operation))
    answers = [throttled.call(operation, samples.request(operation)) for _ in range(2)]
    assert answers[1].error == error and answers[1].status == 429
    assert int(answers[1].headers["Retry-After"]) > 0


class Small:
    """A daemon with one image that looks built: its records say so, which is all that admission reads."""

    def __init__(self, config):
        self.daemon = Daemon(config=config).start()
        self.images = Images(self.daemon)
        self.template = self.images.create_from("template", "s3://none/nothing")
        self.template.ended()
        self.daemon.stop()
        with Seed(self.daemon, self.daemon.endpoint()["account"]) as seed:
            self.image = seed.copy_image(self.template.arn, f"seeded-{uuid.uuid4().hex[:8]}")["arn"]
        self.daemon.start()
        self.caller = Caller(self.daemon)


@pytest.fixture(scope="module")
def limited(own_daemon):
    small = Small(LIMITED)
    yield small
    small.daemon.end()


@pytest.fixture(scope="module")
def full(own_daemon):
    small = Small(FULL)
    yield small
    small.daemon.end()


class TestQuota:
    ERROR = "ServiceQuotaExceededException"

    @pytest.mark.provokes("RunMicrovm", ERROR)
    def test_memory(self, limited):
        answer = refused(limited.caller, "RunMicrovm", self.ERROR, {"imageIdentifier": limited.image})
        assert answer.message == "The base maximum allocated memory limit has been reached for this account."

    @pytest.mark.provokes("CreateMicrovmImage", ERROR)
    def test_images(self, limited):
        refused(limited.caller, "CreateMicrovmImage", self.ERROR, limited.images.definition("s3://none/nothing") | {"name": "another"})

    @pytest.mark.provokes("UpdateMicrovmImage", ERROR)
    def test_versions(self, limited):
        refused(limited.caller, "UpdateMicrovmImage", self.ERROR, limited.images.definition("s3://none/nothing") | {"imageIdentifier": limited.image})


@pytest.mark.provokes("RunMicrovm", "InsufficientCapacityException")
def test_capacity(full):
    answer = refused(full.caller, "RunMicrovm", "InsufficientCapacityException", {"imageIdentifier": full.image})
    assert answer.status == 500


class TestConnectors:
    LIMIT, BUSY = "NetworkConnectorLimitExceededException", "ResourceConflictException"

    @pytest.mark.provokes("CreateNetworkConnector", LIMIT)
    @pytest.mark.provokes("UpdateNetworkConnector", LIMIT)
    @pytest.mark.provokes("DeleteNetworkConnector", BUSY)
    def test_quotas_and_one_that_is_pending(self, limited):
        role = limited.images.role
        core = limited.daemon.client("lambda-core")
        created = core.create_network_connector(**creation(role))
        active(core, created["Id"])
        refused(limited.caller, "CreateNetworkConnector", self.LIMIT, creation(role))
        update = {"Identifier": created["Id"], "ClientToken": uuid.uuid4().hex} | definition(role, NetworkProtocol="DualStack")
        refused(limited.caller, "UpdateNetworkConnector", self.LIMIT, update)
        # PENDING ends at once; it is written by hand, so that it lasts.
        with sqlite3.connect(limited.daemon.data / "emberbox.db", timeout=10) as records:
            records.execute("UPDATE network_connectors SET state = 'PENDING'")
        refused(limited.caller, "DeleteNetworkConnector", self.BUSY, {"Identifier": created["Id"]})
        records.close()
