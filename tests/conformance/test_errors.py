"""Each error that an operation declares, provoked: the status, the name and the members by the model (support/shapes.py), the words where AWS's are known."""
import uuid

import pytest

from support import microvm as microvms
from support import model, roles
from support.daemon import Daemon
from support.raw import Caller

from conformance import connectors, exempt, oracle, samples, violations


def declaring(error):
    """Every operation that declares an error, marked to provoke it."""
    operations = [name for name in model.operations() if error in model.declared_errors(name) and not exempt.error(name, error)]
    return [pytest.param(name, marks=pytest.mark.provokes(name, error)) for name in operations]


def refused(caller, operation, error, members=None):
    answer = caller.call(operation, samples.request(operation) if members is None else members)
    assert answer.error == error, answer
    return answer


@pytest.mark.parametrize("operation", declaring(oracle.ERROR))
def test_constraint_violated(caller, operation):
    """test_constraints.py has them all; this is one of each operation's."""
    case = next(case for case in violations.cases(operation) if case.mistyped is None)
    refused(caller, operation, oracle.ERROR, case.members)


class TestNothingThere:
    ERROR = "ResourceNotFoundException"

    @pytest.mark.parametrize("operation", [param for param in declaring(ERROR) if param.values != ("CreateMicrovmImage",)])
    def test_the_subject(self, caller, operation):
        answer = refused(caller, operation, self.ERROR)
        if operation == "RunMicrovm":
            assert answer.message == f"No active version found for MicroVM image {samples.IMAGE}"

    @pytest.mark.provokes("CreateMicrovmImage", ERROR)
    def test_a_connector(self, endpoint, caller, images):
        region, account = (endpoint.endpoint()[name] for name in ("region", "account"))
        nowhere = f"arn:aws:lambda:{region}:{account}:network-connector:none"
        refused(caller, "CreateMicrovmImage", self.ERROR, images.definition("s3://b/k", egressNetworkConnectors=[nowhere]) | {"name": "none"})


class TestConflict:
    ERROR = "ConflictException"
    REUSED = "The client token was used before with other parameters"

    @pytest.mark.provokes("CreateMicrovmImage", ERROR)
    @pytest.mark.provokes("UpdateMicrovmImage", ERROR)
    @pytest.mark.provokes("DeleteMicrovmImageVersion", ERROR)
    @pytest.mark.provokes("UpdateMicrovmImageVersion", ERROR)
    def test_images(self, caller, images, failed_image):
        """Client tokens with other parameters; the last version; a version that was not built."""
        token, name = uuid.uuid4().hex, f"conflict-{uuid.uuid4().hex[:8]}"
        definition = images.definition("s3://none/nothing", clientToken=token)
        arn = caller.call("CreateMicrovmImage", definition | {"name": name}).json["imageArn"]
        answer = refused(caller, "CreateMicrovmImage", self.ERROR, definition | {"name": name, "description": "other"})
        assert answer.message == self.REUSED
        failed_image(arn)
        update = {"imageIdentifier": arn} | definition
        caller.call("UpdateMicrovmImage", update)
        assert refused(caller, "UpdateMicrovmImage", self.ERROR, update | {"description": "other"}).message == self.REUSED
        failed_image(arn)
        version = {"imageIdentifier": arn, "imageVersion": "2.0"}
        refused(caller, "UpdateMicrovmImageVersion", self.ERROR, version | {"status": "ACTIVE"})
        assert caller.call("DeleteMicrovmImageVersion", version | {"imageVersion": "1.0"}).status == 200
        refused(caller, "DeleteMicrovmImageVersion", self.ERROR, version)

    @pytest.mark.provokes("RunMicrovm", ERROR)
    @pytest.mark.provokes("SuspendMicrovm", ERROR)
    @pytest.mark.provokes("ResumeMicrovm", ERROR)
    @pytest.mark.provokes("CreateMicrovmAuthToken", ERROR)
    @pytest.mark.provokes("CreateMicrovmShellAuthToken", ERROR)
    def test_microvms(self, endpoint, caller, probe):
        """An image in use; a client token with other parameters; a MicroVM that has been terminated."""
        token, region = uuid.uuid4().hex, endpoint.endpoint()["region"]
        ingress = [f"arn:aws:lambda:{region}:aws:network-connector:aws-network-connector:ALL_INGRESS"]
        with microvms.launch(endpoint, probe, clientToken=token, ingressNetworkConnectors=ingress) as microvm:
            words = "Cannot delete microvm image with running microvms."
            assert refused(caller, "DeleteMicrovmImage", "ValidationException", {"imageIdentifier": probe.arn}).message == words
            request = {"imageIdentifier": probe.arn, "clientToken": token, "maximumDurationInSeconds": 77}
            assert refused(caller, "RunMicrovm", self.ERROR, request).message == self.REUSED
        subject = {"microvmIdentifier": microvm.id}
        for operation in ("SuspendMicrovm", "ResumeMicrovm"):
            words = f"MicroVM {microvm.id} has been terminated and its state cannot be changed."
            assert refused(caller, operation, self.ERROR, subject).message == words
        for operation in ("CreateMicrovmAuthToken", "CreateMicrovmShellAuthToken"):
            refused(caller, operation, self.ERROR, samples.request(operation) | subject)


@pytest.fixture(scope="module")
def nobody(endpoint):
    """A caller whose user has no policy."""
    iam, name = endpoint.client("iam"), f"nobody-{uuid.uuid4().hex[:8]}"
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    yield Caller(endpoint, key["AccessKeyId"], key["SecretAccessKey"])
    iam.delete_access_key(UserName=name, AccessKeyId=key["AccessKeyId"])
    iam.delete_user(UserName=name)


@pytest.mark.parametrize("operation", declaring("AccessDeniedException"))
def test_not_allowed(nobody, operation):
    answer = refused(nobody, operation, "AccessDeniedException")
    assert f"is not authorized to perform: lambda:{operation} on resource: " in answer.message
    assert answer.message.endswith(f" because no identity-based policy allows the lambda:{operation} action")


RECORDS = ("images", "image_versions", "builds", "microvms", "tags", "client_tokens", "settings")


@pytest.fixture(scope="module")
def broken(own_daemon):
    """A caller of a daemon whose records have been taken away under it: what no request can do to a sound one."""
    import sqlite3

    daemon = Daemon().start()
    caller = Caller(daemon)
    roles.builder(daemon)
    database = daemon.data / "emberbox.db"
    with sqlite3.connect(database, timeout=10) as connection:
        tables = [name for [name] in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        for table in tables:
            if table in RECORDS or "connector" in table:
                connection.execute(f"ALTER TABLE {table} RENAME TO {table}_taken_away")
    connection.close()
    yield caller
    with sqlite3.connect(database, timeout=10) as connection:
        for [table] in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name LIKE '%_taken_away'").fetchall():
            connection.execute(f"ALTER TABLE {table} RENAME TO {table.removesuffix('_taken_away')}")
    connection.close()
    daemon.end()


INTERNAL = ("InternalServerException", "ServiceException")


@pytest.mark.parametrize("operation", [param for error in INTERNAL for param in declaring(error)])
def test_internal_failure(broken, images, operation):
    """The caller learns that it was the service's fault, and nothing of what is inside."""
    members = samples.request(operation)
    if "baseImageArn" in members:
        members |= images.definition("s3://none/nothing")
    if operation == "CreateNetworkConnector":
        members |= connectors.creation(images.role)
    if operation == "ListManagedMicrovmImageVersions":
        members["imageIdentifier"] = images.managed()
    error = next(error for error in INTERNAL if error in model.declared_errors(operation))
    answer = refused(broken, operation, error, members)
    assert answer.status == 500
    assert not any(word in answer.body.decode().lower() for word in ("sql", "table", "column", "database"))
