"""A daemon of the tests' own, in a temporary directory, on free ports."""
import contextlib
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

from . import leaks, paths
from .endpoint import Endpoint
from .waiting import until

STARTS_WITHIN = 60
STOPS_WITHIN = 60
SHOWN_LOG_LINES = 60


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Daemon(Endpoint):
    def __init__(self, directory=None, config=None, prepare=None, failpoints=True):
        """`config` is the text of a configuration file. EMBERBOX_ENGINE chooses the engine. `prepare` is called in the daemon's process before it is one.
        Without `failpoints` none can be armed, and the daemon does not look for them all the time."""
        super().__init__()
        self.prepare = prepare
        self.directory = Path(directory or tempfile.mkdtemp(prefix="emberbox-test-"))
        if engine := os.environ.get("EMBERBOX_ENGINE"):
            config = (config or "") + f"\n[engine]\nkind = {engine!r}\n"
        self.config = self.directory / "emberbox.toml" if config else None
        if config:
            self.config.write_text(config)
        self.data = self.directory / "data"
        self.log = self.directory / "daemon.log"
        self.failpoints, self._armed_at = self.directory / "failpoints" if failpoints else None, 0
        # Kept over restarts, so that endpoints stay what they were.
        self.listen, self.ingress_port = f"127.0.0.1:{free_port()}", free_port()
        self.process, self._environment = None, None

    def start(self, quiet=False):
        binary = paths.require(paths.EMBERBOX, "run `make build`")
        base = paths.require(paths.BASE, "run `make build`")
        command = [binary, "serve", "--data", self.data, "--base", base, "--listen", self.listen,
                   "--ingress-port", str(self.ingress_port), "--log", "json", *(["--config", self.config] if self.config else [])]
        environment = os.environ | ({"EMBERBOX_FAILPOINTS": str(self.failpoints)} if self.failpoints else {})
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, preexec_fn=self.prepare)
        try:
            until("the daemon serves", self.serves, STARTS_WITHIN)
        except BaseException:
            if not quiet:
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

    def arm(self, points, wait=True):
        """Arms failpoints, `name=action` on each line, and no others. Without `wait` for a daemon that is yet to be started."""
        self._armed_at = self.log.stat().st_size
        armed = Path(f"{self.failpoints}.armed")
        new = self.failpoints.with_suffix(".new")
        new.write_text(points)
        new.rename(self.failpoints)
        if wait:
            until("the failpoints are armed", lambda: armed.exists() and armed.read_text() == points, 10, 0.005)

    def went_off(self, point, start=None):
        """Whether a failpoint has gone off since it was armed."""
        return any(event.get("failpoint") == point for event in self.events(self._armed_at if start is None else start))

    def environment(self):
        """What `eval "$(emberbox env)"` gives a shell."""
        if self._environment is None:
            script = 'eval "$("$0" env --data "$1")" && env -0'
            clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_") and not name.lower().endswith("_proxy")}
            output = subprocess.run(["bash", "-ec", script, paths.EMBERBOX, self.data], env=clean, capture_output=True, check=True).stdout
            self._environment = dict(line.split("=", 1) for line in output.decode().split("\0") if "=" in line)
        return self._environment

    def engine(self):
        """What its last start said of the engine that it chose."""
        return [event["identity"] for event in self.events() if event.get("message") == "engine chosen"][-1]

    def events(self, start=0):
        """The daemon's log from byte `start` on, as JSON."""
        with open(self.log, "rb") as log:
            log.seek(start)
            for line in log:
                try:
                    yield json.loads(line)
                except json.JSONDecodeError:
                    continue

    @contextlib.contextmanager
    def serving(self):
        """Started, and taken away afterwards. A failure inside shows the log and keeps the files."""
        self.start()
        failed = True
        try:
            yield self
            failed = False
        finally:
            self.end(failed)

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
