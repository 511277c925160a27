"""A daemon of the tests' own, in a temporary directory, on free ports."""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from . import leaks, paths, shapes
from .waiting import until

STARTS_WITHIN = 60
STOPS_WITHIN = 60
SHOWN_LOG_LINES = 60


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Daemon:
    def __init__(self, directory=None):
        self.directory = Path(directory or tempfile.mkdtemp(prefix="emberbox-test-"))
        self.data = self.directory / "data"
        self.log = self.directory / "daemon.log"
        # Kept over restarts, so that endpoints stay what they were.
        self.listen, self.ingress_port = f"127.0.0.1:{free_port()}", free_port()
        self.process, self._environment, self._clients = None, None, {}

    def start(self):
        binary = paths.require(paths.EMBERBOX, "run `make build`")
        base = paths.require(paths.BASE, "run `make build`")
        command = [binary, "serve", "--data", self.data, "--base", base, "--listen", self.listen,
                   "--ingress-port", str(self.ingress_port), "--log", "json"]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            until("the daemon serves", self.serves, STARTS_WITHIN)
        except BaseException:
            self.show_log()
            raise
        return self

    def serves(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"the daemon ended with {self.process.returncode}")
        try:
            with urllib.request.urlopen(f"http://{self.listen}/health", timeout=2) as answer:
                healthy = json.load(answer) == {"status": "ok"}
        except OSError:
            return False
        # The file is that of this process, not of one before it.
        return healthy and self.endpoint().get("pid") == self.process.pid

    def endpoint(self):
        path = self.data / "endpoint.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def restart(self, how):
        """`how` is `stop` or `kill`."""
        getattr(self, how)()
        return self.start()

    def stop(self):
        """SIGTERM; MicroVMs go on."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(STOPS_WITHIN)
        assert code == 0, f"the daemon ended with {code} on SIGTERM"

    def kill(self):
        self.process.kill()
        self.process.wait()

    def environment(self):
        """What `eval "$(emberbox env)"` gives a shell."""
        if self._environment is None:
            script = 'eval "$("$0" env --data "$1")" && env -0'
            clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_") and not name.lower().endswith("_proxy")}
            output = subprocess.run(["bash", "-ec", script, paths.EMBERBOX, self.data], env=clean, capture_output=True, check=True).stdout
            self._environment = dict(line.split("=", 1) for line in output.decode().split("\0") if "=" in line)
        return self._environment

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
        return subprocess.run(command, env=self.environment() | environment, capture_output=True, text=True, timeout=120)

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
        # No retries: a failure is to be seen. No checks by the client: refusals are to come from the daemon.
        config = Config(retries={"total_max_attempts": 1}, parameter_validation=False, proxies={})
        client = boto3.client(service, endpoint_url=variables["AWS_ENDPOINT_URL"], region_name=variables["AWS_REGION"], config=config,
                              **(credentials | options))
        shapes.watch(client)
        return client

    @property
    def microvms(self):
        return self.client("lambda-microvms")

    def events(self, start=0):
        """The daemon's log from byte `start` on, as JSON."""
        with open(self.log, "rb") as log:
            log.seek(start)
            for line in log:
                try:
                    yield json.loads(line)
                except json.JSONDecodeError:
                    continue

    def live_microvms(self):
        pages = self.microvms.get_paginator("list_microvms").paginate()
        return [item["microvmId"] for page in pages for item in page["items"] if item["state"] != "TERMINATED"]

    def terminate_all(self):
        client = self.microvms
        for microvm in self.live_microvms():
            client.terminate_microvm(microvmIdentifier=microvm)
        until("all MicroVMs are TERMINATED", lambda: not self.live_microvms(), 90, 0.2)

    def end(self, failed=False):
        """Takes everything away and says what stayed all the same."""
        if failed:
            self.show_log()
        if self.process.poll() is not None:
            self.start()
        self.terminate_all()
        self.stop()
        left = leaks.left_behind(self.data)
        for pid in leaks.virtual_machines_in(self.data):
            os.kill(pid, signal.SIGKILL)
        if left or failed:
            print(f"\nthe daemon's directory is kept: {self.directory}", file=sys.stderr)
        else:
            shutil.rmtree(self.directory)
        assert not left, "left behind:\n  " + "\n  ".join(left)

    def show_log(self):
        # What the daemon does, not each answer it gave.
        lines = [in_words(line) for line in self.log.read_text(errors="replace").splitlines()] if self.log.exists() else []
        lines = [line for line in lines if line]
        print(f"\n--- the last lines of {self.log}", *lines[-SHOWN_LOG_LINES:], "---", sep="\n", file=sys.stderr)


def in_words(line):
    """An event of the log as a line for people; None for an answer that was no failure."""
    try:
        event = json.loads(line)
    except json.JSONDecodeError:
        return line
    if event.get("message") == "answered" and event.get("status", 0) < 500:
        return None
    ids = [f"{name}={span[name]}" for span in event.get("spans", []) for name in ("operation", "id", "image", "build") if name in span]
    fields = [f"{name}={value}" for name, value in event.items() if name not in ("timestamp", "level", "message", "target", "span", "spans")]
    return " ".join([event.get("timestamp", "")[11:23], event.get("level", ""), event.get("message", ""), *fields, *ids])


class AwsError(Exception):
    """The AWS CLI failed; the message is what it printed."""

    def __init__(self, result):
        super().__init__(result.stderr.strip())
        self.returncode, self.stderr = result.returncode, result.stderr
