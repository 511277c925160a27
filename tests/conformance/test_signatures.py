"""Requests that nobody with a key has signed."""
import boto3
import pytest
import requests
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError


def refused(call, code):
    with pytest.raises(ClientError) as error:
        call()
    response = error.value.response
    assert (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]) == (code, 403)


CALLS = [
    ("lambda-microvms", lambda client: client.list_microvms(), "InvalidSignatureException", "UnrecognizedClientException"),
    ("s3", lambda client: client.list_buckets(), "SignatureDoesNotMatch", "InvalidAccessKeyId"),
    ("sts", lambda client: client.get_caller_identity(), "SignatureDoesNotMatch", "InvalidClientTokenId"),
]


@pytest.mark.parametrize("service, call, code, _", CALLS, ids=[call[0] for call in CALLS])
def test_wrong_secret(endpoint, service, call, code, _):
    refused(lambda: call(endpoint.client(service, aws_secret_access_key="x" * 40)), code)


@pytest.mark.parametrize("service, call, _, code", CALLS, ids=[call[0] for call in CALLS])
def test_unknown_key(endpoint, service, call, _, code):
    refused(lambda: call(endpoint.client(service, aws_access_key_id="AKIAIOSFODNN7EXAMPLE")), code)


def test_wrong_secret_with_the_cli(endpoint):
    result = endpoint.aws_result("lambda-microvms", "list-microvms", AWS_SECRET_ACCESS_KEY="x" * 40)
    assert result.returncode and "InvalidSignatureException" in result.stderr


def test_no_signature(endpoint):
    url = endpoint.endpoint()["api"]
    for path in ("/2025-09-09/microvms", "/some-bucket/some-key", "/"):
        assert requests.get(url + path, timeout=10).status_code == 403
    client = boto3.client("lambda-microvms", endpoint_url=url, region_name="us-east-1", config=Config(signature_version=UNSIGNED))
    refused(client.list_microvms, "MissingAuthenticationTokenException")


def test_a_changed_body(endpoint):
    """A signature is good for one body."""
    client = endpoint.new_client("lambda-microvms")
    # After signing, before sending.
    client.meta.events.register("before-send.*", lambda request, **_: setattr(request, "body", request.body.replace(b"first", b"other")))
    refused(lambda: client.tag_resource(Resource=f"arn:aws:lambda:us-east-1:{endpoint.endpoint()['account']}:microvm-image:x", Tags={"k": "first"}),
            "InvalidSignatureException")
