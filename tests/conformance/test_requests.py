"""What the models do not say of requests: how ARNs stand in paths, the same request several times at once, and what may not be written down."""
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from support import model
from support.raw import Caller

from conformance import samples, violations

AT_ONCE = 8


@pytest.fixture
def image(caller, images, failed_image):
    """An image whose build has failed."""
    arn = caller.call("CreateMicrovmImage", images.definition("s3://none/nothing") | {"name": f"requests-{uuid.uuid4().hex[:8]}"}).json["imageArn"]
    failed_image(arn)
    return arn


@pytest.mark.parametrize("written", [lambda arn: arn, lambda arn: arn.replace(":", "%3A"), lambda arn: arn.replace(":", "%3a"), lambda arn: f"{arn}/"],
                         ids=["raw", "encoded", "encoded in lower case", "with a slash at the end"])
def test_arns_in_paths(caller, image, written):
    answer = caller.send("GET", f"/2025-09-09/microvm-images/{written(image)}")
    assert answer.status == 200 and answer.json["imageArn"] == image


@pytest.mark.parametrize("slash", ["/", "%2F", "%2f"])
def test_slashes_in_labels(caller, slash):
    """They are part of the label, wherever the path goes on."""
    for path in (f"microvm-images/arn:aws:lambda:us-east-1:123456789012:microvm-image:a{slash}b", f"microvms/a{slash}b"):
        answer = caller.send("GET", f"/2025-09-09/{path}")
        assert answer.status in (400, 404) and "a/b" in answer.message, answer


def test_the_same_request_at_once_is_done_once(endpoint, images, failed_image):
    """A client token, brought by several at the same moment."""
    name = f"requests-{uuid.uuid4().hex[:8]}"
    request = images.definition("s3://none/nothing") | {"name": name, "clientToken": uuid.uuid4().hex}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(lambda _: Caller(endpoint).call("CreateMicrovmImage", request), range(AT_ONCE)))
    assert {answer.status for answer in answers} == {201}
    assert len({answer.body for answer in answers}) == 1, "the first answer is replayed"
    failed_image(answers[0].json["imageArn"])
    assert len(endpoint.microvms.list_microvm_images(nameFilter=name)["items"]) == 1


def test_every_answer_has_an_id_of_its_own(caller):
    ids = [caller.call(operation, samples.request(operation)).headers["x-amzn-requestid"] for operation in model.operations()]
    assert len(set(ids)) == len(ids) and all(uuid.UUID(request_id) for request_id in ids)


def test_secrets_are_not_written_down(own_daemon, caller):
    """What a client sends as sensitive, and what it signs with, is in no log."""
    secrets = [case for operation in model.operations() for case in violations.cases(operation) if violations.SECRET in str(case.members)]
    assert secrets
    for case in secrets:
        caller.call(case.operation, case.members)
    written = own_daemon.log.read_bytes() + b"".join(path.read_bytes() for path in own_daemon.data.rglob("*audit*") if path.is_file())
    assert len(written) > 1000
    for secret in (violations.SECRET, own_daemon.environment()["AWS_SECRET_ACCESS_KEY"]):
        assert secret.encode() not in written
