"""An endpoint that speaks AWS's APIs, with credentials: what a client of the suites needs, whoever runs the service."""
import json
import os
import subprocess
import sys
from pathlib import Path

from . import shapes
from .waiting import until

REMOTE = "EMBERBOX_CONFORMANCE_ENDPOINT"
AWS_ANSWERS_WITHIN = 120


class Endpoint:
    """Clients of one endpoint. `environment()` is what a shell needs to talk to it; `endpoint()` names region, account, API URL and CA bundle."""

    def __init__(self):
        self._clients = {}

    def environment(self):
        raise NotImplementedError

    def endpoint(self):
        raise NotImplementedError

    def aws(self, *arguments, **options):
        """The stock AWS CLI. Returns its answer as JSON (None when it says nothing), or raises AwsError."""
        result = self.aws_result(*arguments, **options)
        if result.returncode:
            raise AwsError(result)
        try:
            return json.loads(result.stdout) if result.stdout.strip() else None
        except json.JSONDecodeError:
            return result.stdout

    def aws_result(self, *arguments, **environment):
        command = [str(Path(sys.executable).parent / "aws"), *map(str, arguments)]
        return subprocess.run(command, env=self.environment() | environment, capture_output=True, text=True, timeout=AWS_ANSWERS_WITHIN)

    def client(self, service, **options):
        """A boto3 client whose every answer is held against the service's model."""
        key = (service, *sorted(options.items()))
        if key not in self._clients:
            self._clients[key] = self.new_client(service, **options)
        return self._clients[key]

    def new_client(self, service, **options):
        import boto3
        from botocore.config import Config

        variables = self.environment()
        credentials = {"aws_access_key_id": variables["AWS_ACCESS_KEY_ID"], "aws_secret_access_key": variables["AWS_SECRET_ACCESS_KEY"]}
        # No retries: a failure is to be seen. No checks by the client: refusals are to come from the endpoint.
        config = Config(retries={"total_max_attempts": 1}, parameter_validation=False, proxies={})
        client = boto3.client(service, endpoint_url=variables["AWS_ENDPOINT_URL"], region_name=variables["AWS_REGION"], config=config,
                              verify=variables.get("AWS_CA_BUNDLE"), **(credentials | options))
        shapes.watch(client)
        return client

    @property
    def microvms(self):
        return self.client("lambda-microvms")

    def live_microvms(self):
        pages = self.microvms.get_paginator("list_microvms").paginate()
        return [item["microvmId"] for page in pages for item in page["items"] if item["state"] != "TERMINATED"]

    def terminate_all(self):
        client = self.microvms
        for microvm in self.live_microvms():
            client.terminate_microvm(microvmIdentifier=microvm)
        until("all MicroVMs are TERMINATED", lambda: not self.live_microvms(), 90, 0.2)


class Remote(Endpoint):
    """The endpoint that EMBERBOX_CONFORMANCE_ENDPOINT names, with AWS's own variables for credentials, region and CA bundle."""

    def __init__(self, url):
        super().__init__()
        self.url, self._identity = url, None

    def environment(self):
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
        return dict(os.environ) | {"AWS_ENDPOINT_URL": self.url, "AWS_REGION": region}

    def endpoint(self):
        if self._identity is None:
            self._identity = self.client("sts").get_caller_identity()
        variables = self.environment()
        return {"api": self.url, "region": variables["AWS_REGION"], "account": self._identity["Account"], "ca": variables.get("AWS_CA_BUNDLE")}


class AwsError(Exception):
    """The AWS CLI failed; the message is what it printed."""

    def __init__(self, result):
        super().__init__(result.stderr.strip())
        self.returncode, self.stderr = result.returncode, result.stderr
