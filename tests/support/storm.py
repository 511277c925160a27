"""A storm: several clients use MicroVMs of their own at random while the daemon is killed at random.

Each client knows what it was told: the value of a counter in the guest's memory, and files it was told are on the disk. Whatever is killed, what was
acknowledged is there, and nothing moves backwards. A MicroVM may end unasked only while it is being launched, which is what is documented of a daemon's end.
"""
import collections
import random
import threading
import time
import uuid

import requests
from botocore.exceptions import BotoCoreError, ClientError

from . import leaks
from .microvm import AUTO_RESUME, Microvm
from .waiting import until

# Seconds between deaths of the daemon.
PEACE = (0.5, 6)
# Of a hundred deaths.
ORDERLY = 10
# A client that gets no answer for so long has found a MicroVM that is stuck.
ANSWERED_WITHIN = 90
TOUCHED_MIB = 8
# What a client of a daemon that has just died sees.
UNANSWERED = (requests.RequestException, BotoCoreError)
# What the API may say beside success: the MicroVM is in between, as after a resume that another request has begun.
IN_BETWEEN = {"ConflictException", "InternalServerException", "ThrottlingException", "TooManyRequestsException", "InsufficientCapacityException"}


class Lost(AssertionError):
    """A promise was broken."""


class Client(threading.Thread):
    def __init__(self, storm, number):
        super().__init__(name=f"client-{number}")
        self.storm, self.random = storm, random.Random(f"{storm.seed}-{number}")
        self.microvm, self.done, self.error = None, collections.Counter(), None
        self.operations = ((self.add, 30), (self.write, 20), (self.check, 12), (self.suspend, 14), (self.resume, 14), (self.replace, 2))

    def run(self):
        try:
            self.replace()
            while not self.storm.over.is_set():
                [operation] = self.random.choices([op for op, _ in self.operations], [weight for _, weight in self.operations])
                operation()
                self.done[operation.__name__] += 1
                time.sleep(self.random.uniform(0, 0.2))
        except Exception as error:  # noqa: BLE001  whatever it is ends the storm and is raised by it
            self.error = error
            self.storm.over.set()

    def persist(self, what, attempt):
        """Tries until it is answered: the daemon comes back."""
        since = time.monotonic()
        while True:
            try:
                return attempt()
            except UNANSWERED as error:
                last = error
            except ClientError as error:
                last = error
                if error.response["Error"]["Code"] not in IN_BETWEEN:
                    raise Lost(f"{what}: {error}; {self.story()}") from error
            if time.monotonic() - since > ANSWERED_WITHIN:
                raise Lost(f"{what}: not within {ANSWERED_WITHIN} s, last {last!r}; {self.story()}")
            time.sleep(0.1)

    def story(self):
        try:
            shown = self.microvm.describe()
            return f"{self.microvm.id} is {shown['state']}: {shown.get('stateReason')}"
        except Exception as error:  # noqa: BLE001
            return f"and its state is not known: {error!r}"

    def ask(self, method, path, **options):
        """A request through the endpoint, until it is answered with 200."""
        def attempt():
            answer = self.microvm.request(method, path, **options)
            if answer.status_code != 200:
                if self.microvm.describe()["state"] in ("TERMINATING", "TERMINATED"):
                    raise Lost(self.story())
                raise requests.RequestException(f"{answer.status_code} {answer.text[:200]}")
            return answer
        return self.persist(f"{method} {path}", attempt)

    # What clients do.

    def replace(self):
        """A new MicroVM in place of the one before."""
        if self.microvm:
            self.check_all()
            old = self.microvm
            self.persist("terminate", lambda: old.client.terminate_microvm(microvmIdentifier=old.id))
            self.persist("terminated", lambda: old.wait("TERMINATED"))
            old.session.close()
        while True:
            token = uuid.uuid4().hex
            answer = self.persist("run", lambda: self.storm.client.run_microvm(
                imageIdentifier=self.storm.image.arn, idlePolicy=AUTO_RESUME, clientToken=token))
            self.microvm = Microvm(self.storm.daemon, answer)
            if self.launched():
                break
            self.done["launches cut off"] += 1
        self.counter, self.attempts, self.files, self.written = 0, 0, {}, 0
        self.boot = self.ask("GET", "/boot-id").json()
        self.checksum = self.ask("GET", f"/touch?mib={TOUCHED_MIB}").json()["checksum"]
        # A touch whose answer was lost was made twice; what counts is what is there now.
        self.checksum = self.ask("GET", "/touched").json()["checksum"]

    def launched(self):
        """False when the daemon died during the launch."""
        def state():
            found = self.microvm.describe()
            if found["state"] == "PENDING":
                raise requests.RequestException("PENDING")
            return found
        found = self.persist("launch", state)
        if found["state"] in ("TERMINATING", "TERMINATED"):
            if "restarted during the launch" not in (found.get("stateReason") or ""):
                raise Lost(self.story())
            return False
        return True

    def add(self):
        def attempt():
            self.attempts += 1
            return self.microvm.request("GET", "/counter?add=1")
        value = self.persist("add", lambda: self.answered(attempt())).json()["counter"]
        self.grown(value, self.counter + 1)

    def answered(self, answer):
        if answer.status_code != 200:
            if self.microvm.describe()["state"] in ("TERMINATING", "TERMINATED"):
                raise Lost(self.story())
            raise requests.RequestException(f"{answer.status_code} {answer.text[:200]}")
        return answer

    def grown(self, value, least):
        if not least <= value <= self.attempts:
            raise Lost(f"the counter is {value}; {self.counter} were acknowledged and {self.attempts} tried; {self.story()}")
        self.counter = value

    def write(self):
        self.written += 1
        name, content = f"storm-{self.written}", f"{self.microvm.id} {self.written} {uuid.uuid4()}\n".encode() * self.random.randint(1, 400)
        self.ask("PUT", f"/files/{name}?sync=1", data=content)
        self.files[name] = content

    def check(self):
        self.grown(self.ask("GET", "/counter?add=0").json()["counter"], self.counter)
        touched = self.ask("GET", "/touched").json()
        if not touched["intact"] or touched["checksum"] != self.checksum:
            raise Lost(f"memory has changed: {touched}; {self.story()}")
        if self.ask("GET", "/boot-id").json() != self.boot:
            raise Lost(f"another guest answers; {self.story()}")
        for name in self.random.sample(sorted(self.files), min(3, len(self.files))):
            self.check_file(name)

    def check_file(self, name):
        if self.ask("GET", f"/files/{name}").content != self.files[name]:
            raise Lost(f"the file {name} is not what was written; {self.story()}")

    def check_all(self):
        self.check()
        for name in self.files:
            self.check_file(name)

    def suspend(self):
        self.change("SUSPENDED", lambda: self.microvm.client.suspend_microvm(microvmIdentifier=self.microvm.id))

    def resume(self):
        self.change("RUNNING", lambda: self.microvm.client.resume_microvm(microvmIdentifier=self.microvm.id))

    def change(self, state, ask):
        def attempt():
            ask()
            if self.random.random() < 0.5:
                return  # And goes on at once: what comes next meets it in between.
            found = self.microvm.describe()
            if found["state"] in ("TERMINATING", "TERMINATED"):
                raise Lost(self.story())
            if found["state"] != state:
                raise requests.RequestException(found["state"])
        self.persist(state, attempt)


class Storm:
    """`rage` for so many seconds; raises when a promise was broken."""

    def __init__(self, daemon, image, clients=3, seed=None):
        self.daemon, self.image = daemon, image
        self.seed = seed or uuid.uuid4().hex[:8]
        self.over, self.deaths = threading.Event(), 0
        # One connection pool for all, made before anybody is killed.
        self.client = daemon.microvms
        self.clients = [Client(self, number) for number in range(clients)]
        self.recovery_seconds = []

    def rage(self, seconds):
        dice = random.Random(self.seed)
        print(f"\n  storm with seed {self.seed} for {seconds:.0f} s")
        for client in self.clients:
            client.start()
        try:
            self.kill_now_and_then(time.monotonic() + seconds, dice)
        finally:
            self.over.set()
        for client in self.clients:
            client.join(ANSWERED_WITHIN * 2)
        self.calm()

    def kill_now_and_then(self, end, dice):
        while time.monotonic() < end and not self.over.wait(dice.uniform(*PEACE)):
            how = "stop" if dice.randrange(100) < ORDERLY else "kill"
            getattr(self.daemon, how)()
            began = time.monotonic()
            self.daemon.start()
            self.recovery_seconds.append(time.monotonic() - began)
            self.deaths += 1

    def calm(self):
        """Everything is as promised, and nothing is left that nobody owns."""
        total = sum((client.done for client in self.clients), collections.Counter())
        print(f"  the daemon died {self.deaths} times; clients did {dict(total)}")
        for client in self.clients:
            if client.error:
                raise client.error
            assert not client.is_alive(), f"{client.name} is stuck"
            client.check_all()
            client.microvm.terminate()
            client.microvm.session.close()

    def leaks(self):
        """What this daemon has of MicroVMs that the API does not list as living."""
        living = {microvm.removeprefix("microvm-") for microvm in self.daemon.live_microvms()}
        machines = self.daemon.data / "host/machines"
        gone = lambda: [name for name in leaks.entries(machines) if name not in living]
        try:
            until("files are gone", lambda: not gone(), 15)
        except TimeoutError:
            pass
        processes = [pid for pid in leaks.virtual_machines_in(self.daemon.data)]
        return gone() + [f"process {pid}" for pid in processes[len(living):]]
