"""A MicroVM as its user sees it: the API and the HTTPS endpoint."""
import requests

from . import leaks
from .waiting import until

STATE_WITHIN = 60
ANSWER_WITHIN = 60
PROXY_AUTH = "X-aws-proxy-auth"
PROXY_PORT = "X-aws-proxy-port"
AUTO_RESUME = {"maxIdleDurationSeconds": 3600, "suspendedDurationSeconds": 3600, "autoResumeEnabled": True}


def run(daemon, image, **members):
    """RunMicrovm, and waits for RUNNING."""
    return launch(daemon, image, **members).wait("RUNNING")


def launch(daemon, image, **members):
    """RunMicrovm alone."""
    answer = daemon.microvms.run_microvm(imageIdentifier=getattr(image, "arn", image), **members)
    return Microvm(daemon, answer)


class Microvm:
    def __init__(self, daemon, answer):
        self.daemon, self.client, self.answer = daemon, daemon.microvms, answer
        self.id, self.host = answer["microvmId"], answer["endpoint"]
        self.host_name = self.id.removeprefix("microvm-")
        self.tokens, self.session = {}, requests.Session()
        self.session.trust_env, self.session.verify = False, daemon.endpoint()["ca"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.session.close()
        self.terminate()

    def describe(self):
        return self.client.get_microvm(microvmIdentifier=self.id)

    @property
    def state(self):
        return self.describe()["state"]

    def wait(self, state, seconds=STATE_WITHIN):
        def reached():
            found = self.describe()
            if found["state"] == "TERMINATED" and state != "TERMINATED":
                raise AssertionError(f"{self.id} is TERMINATED: {found.get('stateReason')}")
            return found["state"] == state
        until(f"{self.id} is {state}", reached, seconds, 0.02)
        return self

    def suspend(self):
        self.client.suspend_microvm(microvmIdentifier=self.id)
        return self.wait("SUSPENDED")

    def resume(self):
        self.client.resume_microvm(microvmIdentifier=self.id)
        return self.wait("RUNNING")

    def terminate(self):
        self.client.terminate_microvm(microvmIdentifier=self.id)
        return self.wait("TERMINATED")

    def token(self, ports=({"allPorts": {}},), minutes=30):
        key = (repr(ports), minutes)
        if key not in self.tokens:
            answer = self.client.create_microvm_auth_token(microvmIdentifier=self.id, expirationInMinutes=minutes, allowedPorts=list(ports))
            self.tokens[key] = answer["authToken"][PROXY_AUTH]
        return self.tokens[key]

    def request(self, method, path, token=None, port=None, headers=None, timeout=ANSWER_WITHIN, **options):
        """A request through the endpoint. `token` defaults to one for all ports; False sends none."""
        sent = dict(headers or {})
        if token is not False:
            sent[PROXY_AUTH] = token or self.token()
        if port is not None:
            sent[PROXY_PORT] = str(port)
        return self.session.request(method, f"https://{self.host}{path}", headers=sent, timeout=timeout, **options)

    def get(self, path, **options):
        """The JSON the probe answers with."""
        answer = self.request("GET", path, **options)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"
        return answer.json()

    @property
    def directory(self):
        return self.daemon.data / "host/machines" / self.host_name

    def process(self):
        """The process id of its virtual machine, None when there is none."""
        found = list(leaks.virtual_machines_in(self.directory))
        assert len(found) <= 1, found
        return found[0] if found else None
