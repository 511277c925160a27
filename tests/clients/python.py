"""The story of tests/clients, told by boto3 and by the AWS CLI, as they are published."""
import json
import re
import time
import uuid

import requests
from botocore.exceptions import ClientError

from support.waiting import until

PATIENCE = 300


class Refused(Exception):
    """What a client says of an error."""

    def __init__(self, **said):
        super().__init__(said)
        self.said = said


class Boto3:
    name = "boto3"

    def __init__(self, endpoint):
        # Not the suites' own clients, which are made to be looked into.
        import boto3

        variables = endpoint.environment()
        self.client = boto3.client("lambda-microvms", endpoint_url=variables["AWS_ENDPOINT_URL"], region_name=variables["AWS_REGION"],
                                   aws_access_key_id=variables["AWS_ACCESS_KEY_ID"], aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"])

    def call(self, operation, **members):
        try:
            return getattr(self.client, operation.replace("-", "_"))(**members)
        except ClientError as error:
            shape, metadata = error.response["Error"], error.response["ResponseMetadata"]
            typed = isinstance(error, getattr(self.client.exceptions, shape["Code"]))
            assert typed, "the client has a type for the error"
            members = {name: error.response[name] for name in ("resourceType", "resourceId") if name in error.response}
            said = {"name": shape["Code"], "status": metadata["HTTPStatusCode"], "message": shape["Message"], "request": bool(metadata.get("RequestId"))}
            raise Refused(**said, **members) from error

    def pages(self):
        return [page["items"] for page in self.client.get_paginator("list_microvm_images").paginate(PaginationConfig={"PageSize": 1})]

    @staticmethod
    def age(created_at):
        return time.time() - created_at.timestamp()


class Cli:
    name = "awscli"

    def __init__(self, endpoint):
        self.endpoint = endpoint

    def call(self, operation, **members):
        result = self.endpoint.aws_result("lambda-microvms", operation, "--cli-input-json", json.dumps(members))
        if result.returncode:
            # The CLI has no more than a line for people.
            said = re.search(r"An error occurred \((\w+)\) when calling the \w+ operation: (.*)", result.stderr)
            raise Refused(name=said[1], message=said[2])
        return json.loads(result.stdout or "{}")

    def pages(self):
        """The CLI goes through all pages by itself; with --no-paginate it shows one."""
        one = json.loads(self.endpoint.aws_result("lambda-microvms", "list-microvm-images", "--max-results", "1", "--no-paginate").stdout)
        everything = json.loads(self.endpoint.aws_result("lambda-microvms", "list-microvm-images", "--page-size", "1").stdout)
        assert len(one["items"]) == 1
        return [[item] for item in everything["items"]]

    @staticmethod
    def age(created_at):
        return time.time() - created_at


def refused(call):
    try:
        call()
    except Refused as error:
        return error.said
    raise AssertionError("was not refused")


def get(endpoint, token, ca):
    session = requests.Session()
    session.trust_env, session.verify = False, ca
    answer = session.get(f"https://{endpoint}/", headers=token, timeout=60)
    return {"status": answer.status_code, "body": answer.json()}


def story(client, ca, base, role, uri):
    name = f"{client.name}-{uuid.uuid4().hex[:8]}"
    definition = {"baseImageArn": base, "buildRoleArn": role, "codeArtifact": {"uri": uri}, "resources": [{"minimumMemoryInMiB": 512}]}
    report = {"errors": {"validation": refused(lambda: client.call("create-microvm-image", name="no such name!", **definition))}}
    created = client.call("create-microvm-image", name=name, **definition)
    subject = {"imageIdentifier": created["imageArn"]}

    def state(operation, members, states):
        return until(f"{client.name}: {states}", lambda: (found := client.call(operation, **members)["state"]) in states and found, PATIENCE, 0.1)

    report |= {"created_at_is_a_date": abs(client.age(created["createdAt"])) < 600,
               "built": state("get-microvm-image", subject, ("CREATED", "CREATE_FAILED"))}
    pages = client.pages()
    report["pages"] = {"largest": max(map(len, pages)), "listed": sum(item["name"] == name for page in pages for item in page)}
    microvm = client.call("run-microvm", **subject)
    it = {"microvmIdentifier": microvm["microvmId"]}
    report |= {"run": microvm["state"], "running": state("get-microvm", it, ("RUNNING", "TERMINATED"))}
    token = client.call("create-microvm-auth-token", **it, expirationInMinutes=5, allowedPorts=[{"port": 8080}])["authToken"]
    report["answer"] = get(microvm["endpoint"], token, ca)
    client.call("suspend-microvm", **it)
    report["suspended"] = state("get-microvm", it, ("SUSPENDED", "TERMINATED"))
    client.call("resume-microvm", **it)
    report["resumed"] = state("get-microvm", it, ("RUNNING", "TERMINATED"))
    client.call("terminate-microvm", **it)
    report["terminated"] = state("get-microvm", it, ("TERMINATED",))
    report["errors"]["terminated"] = refused(lambda: client.call("suspend-microvm", **it))
    report["errors"]["last_version"] = refused(lambda: client.call("delete-microvm-image-version", **subject, imageVersion="1.0"))
    report["deleted"] = client.call("delete-microvm-image", **subject)["state"]

    def until_gone():
        while True:
            client.call("get-microvm-image", **subject)

    report["errors"]["not_found"] = refused(until_gone)
    return report | {"image": subject["imageIdentifier"], "microvm": it["microvmIdentifier"]}
