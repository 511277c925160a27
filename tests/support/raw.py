"""Plain signed HTTP: any JSON to any operation of the models, over one connection, with no client's opinion of it in between."""
import http.client
import json
import ssl
import urllib.parse

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from . import model, shapes

ANSWERS_WITHIN = 30
# Answered before it is known which operation is meant.
FRONT = ("RequestTooLargeException",)


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def error(self):
        """The error's name; None of an answer that is none."""
        name = self.headers.get("x-amzn-errortype")
        return name.split(":")[0] if name else None

    @property
    def json(self):
        return json.loads(self.body) if self.body else {}

    @property
    def message(self):
        return self.json.get("message") or self.json.get("Message")

    def __repr__(self):
        return f"{self.status} {self.error or ''} {self.body[:2000]!r}"


class Caller:
    """Calls operations as one identity. Every answer is held against the model."""

    def __init__(self, endpoint, key=None, secret=None, token=None):
        variables = endpoint.environment()
        self.url, self.region = urllib.parse.urlsplit(variables["AWS_ENDPOINT_URL"]), variables["AWS_REGION"]
        key, secret = key or variables["AWS_ACCESS_KEY_ID"], secret or variables["AWS_SECRET_ACCESS_KEY"]
        self.signer = SigV4Auth(Credentials(key, secret, token), "lambda", self.region)
        self.connection, self.ca = None, variables.get("AWS_CA_BUNDLE")

    def call(self, operation, members, body=None):
        """`members` by the model's names; their values may be anything JSON has. `body` replaces what they make."""
        answer = self.send_to(operation, members, body)
        if answer.error not in FRONT:
            shapes.hold(model.operations()[operation], answer.status, answer.headers, answer.body)
        return answer

    def send_to(self, operation, members, body=None):
        """The same, for what may turn out to be a request of no operation."""
        shape = model.operations()[operation]
        path, made = request_of(shape, members)
        return self.send(shape.http["method"], path, made if body is None else body)

    def send(self, method, path, body=b"", headers=None):
        return self.exchange(method, path, body, self.signed(method, path, body, headers))

    def signed(self, method, path, body=b"", headers=None):
        """The headers of a request, its signature among them."""
        request = AWSRequest(method, f"{self.url.scheme}://{self.url.netloc}{path}", data=body, headers={"content-type": "application/json"} | (headers or {}))
        self.signer.add_auth(request)
        return dict(request.headers.items())

    def exchange(self, method, path, body, headers):
        for fresh in (False, True):
            if self.connection is None or fresh:
                self.connect()
            try:
                self.connection.request(method, path, body, headers)
                answer = self.connection.getresponse()
                return Answer(answer.status, answer.headers, answer.read())
            except (http.client.RemoteDisconnected, ConnectionError):
                # The server may close a connection it kept; a fresh one must do.
                if fresh:
                    raise
        raise AssertionError("unreachable")

    def connect(self):
        if self.url.scheme == "https":
            context = ssl.create_default_context(cafile=self.ca)
            self.connection = http.client.HTTPSConnection(self.url.netloc, timeout=ANSWERS_WITHIN, context=context)
        else:
            self.connection = http.client.HTTPConnection(self.url.netloc, timeout=ANSWERS_WITHIN)


def request_of(operation, members):
    """(path with query, body) of a request of the rest-json protocol."""
    path, query, body = operation.http["requestUri"], [], {}
    shape = operation.input_shape
    for name, value in members.items():
        member = shape.members.get(name)
        where, wire = (model.location(member), model.wire_name(name, member)) if member else ("body", name)
        if where == "uri":
            path = path.replace("{%s}" % wire, urllib.parse.quote(str(value), safe=""))
        elif where == "querystring":
            query += [(wire, str(item)) for item in (value if isinstance(value, list) else [value])]
        else:
            body[wire] = value
    has_body = any(model.location(member) == "body" for member in shape.members.values())
    if query:
        path += "?" + urllib.parse.urlencode(query, quote_via=urllib.parse.quote)
    return path, json.dumps(body).encode() if has_body else b""
