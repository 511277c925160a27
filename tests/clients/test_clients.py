"""One story, told by four clients of AWS as they are published. All are told at once; what each saw must be the same."""
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support import paths
from support.images import PROBE_DOCKERFILE, archive

from clients import python

HERE = Path(__file__).parent
TOLD_WITHIN = 600
CLIENTS = {
    "boto3": lambda daemon, story: python.story(python.Boto3(daemon), **story),
    "awscli": lambda daemon, story: python.story(python.Cli(daemon), **story),
    "javascript": lambda daemon, story: program(daemon, story, "node", paths.ROOT / "target/clients/javascript/story.mjs"),
    "rust": lambda daemon, story: program(daemon, story, paths.ROOT / "target/clients/debug/emberbox-clients-rust"),
}


def program(daemon, story, *command):
    variables = {"STORY_BASE": story["base"], "STORY_ROLE": story["role"], "STORY_URI": story["uri"]}
    result = subprocess.run(list(map(str, command)), env=daemon.environment() | variables, capture_output=True, text=True, timeout=TOLD_WITHIN)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture(scope="session")
def told(daemon, images):
    """{client: its report, to be waited for}."""
    uri = images.upload(archive({"Dockerfile": PROBE_DOCKERFILE, "emberbox-probe": paths.require(paths.PROBE, "run `make build`")}))
    definition = images.definition(uri)
    story = {"ca": daemon.endpoint()["ca"], "base": definition["baseImageArn"], "role": definition["buildRoleArn"], "uri": uri}
    with ThreadPoolExecutor() as pool:
        yield {name: pool.submit(tell, daemon, story) for name, tell in CLIENTS.items()}


@pytest.fixture(params=CLIENTS)
def report(request, told):
    return told[request.param].result(TOLD_WITHIN)


def test_the_story(report):
    assert {name: value for name, value in report.items() if name not in ("errors", "image", "microvm", "deleted")} == {
        "created_at_is_a_date": True, "built": "CREATED", "pages": {"largest": 1, "listed": 1}, "run": "PENDING", "running": "RUNNING",
        "answer": {"status": 200, "body": {"application": "probe"}}, "suspended": "SUSPENDED", "resumed": "RUNNING", "terminated": "TERMINATED"}
    assert report["deleted"] in ("DELETING", "DELETED")


def test_errors(report):
    """As each client shows them: those that show the status, the side at fault or the members of the shape show the same."""
    image, microvm = report["image"], report["microvm"]
    validation = ("1 validation error detected: Value 'no such name!' at 'name' failed to satisfy constraint: "
                  "Member must satisfy regular expression pattern: [a-zA-Z0-9-_]+")
    expected = {
        "validation": ("ValidationException", 400, validation, None, None),
        "last_version": ("ConflictException", 409, f"Version 1.0 is the last version of MicroVM image {image} and cannot be deleted; delete the image instead",
                         "MicrovmImage", image),
        "terminated": ("ConflictException", 409, f"MicroVM {microvm} has been terminated and its state cannot be changed.", "Microvm", microvm),
        "not_found": ("ResourceNotFoundException", 404, f"MicroVM image {image} does not exist", "MicrovmImage", image),
    }
    assert set(report["errors"]) == set(expected)
    for error, (name, status, message, kind, resource) in expected.items():
        said = report["errors"][error]
        known = {"name": name, "status": status, "message": message, "fault": "client", "request": True,
                 "resourceType": kind, "resourceId": resource}
        assert said["name"] == name and said["message"] == message
        assert said == {member: known[member] for member in said}
