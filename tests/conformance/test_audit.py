"""The audit log: every call, allowed, denied or malformed, of every service; no secrets."""
import json
import os
import subprocess

import pytest
import requests
from botocore.exceptions import ClientError

from support import paths
from support.waiting import until


def records(daemon):
    """Everything written so far, as `emberbox audit` prints it."""
    output = subprocess.run([paths.EMBERBOX, "audit", "--data", daemon.data], capture_output=True, check=True).stdout
    return [json.loads(line) for line in output.splitlines()]


def record(daemon, request_id):
    """The one record of a request; it is written a moment after the answer."""
    found = until(f"{request_id} is in the audit log", lambda: [entry for entry in records(daemon) if entry.get("requestID") == request_id], 10)
    assert len(found) == 1, found
    return found[0]


def request_id(answer):
    return answer["ResponseMetadata"]["RequestId"]


def refused(call, **members):
    with pytest.raises(ClientError) as error:
        call(**members)
    return error.value.response


@pytest.fixture
def log(own_daemon):
    return lambda answer: record(own_daemon, request_id(answer))


def test_a_read(own_daemon, log):
    entry = log(own_daemon.microvms.list_microvm_images(nameFilter="audit"))
    account = own_daemon.endpoint()["account"]
    assert entry["eventVersion"] and entry["eventID"] and entry["eventTime"].endswith("Z")
    assert (entry["eventSource"], entry["eventName"], entry["eventType"]) == ("lambda.amazonaws.com", "ListMicrovmImages", "AwsApiCall")
    assert (entry["awsRegion"], entry["sourceIPAddress"], entry["recipientAccountId"]) == (own_daemon.endpoint()["region"], "127.0.0.1", account)
    assert entry["userAgent"].startswith("Boto3/")
    assert entry["userIdentity"] == {"type": "Root", "principalId": account, "arn": f"arn:aws:iam::{account}:root", "accountId": account,
                                     "accessKeyId": own_daemon.environment()["AWS_ACCESS_KEY_ID"]}
    assert (entry["readOnly"], entry["requestParameters"], entry["responseElements"]) == (True, {"nameFilter": "audit"}, None)
    assert "errorCode" not in entry


def test_a_change_with_secrets(own_daemon, log):
    secret = f"secret-{os.urandom(8).hex()}"
    client, account = own_daemon.microvms, own_daemon.endpoint()["account"]
    image = f"arn:aws:lambda:{own_daemon.endpoint()['region']}:{account}:microvm-image:none"
    entry = log(refused(client.run_microvm, imageIdentifier=image, runHookPayload=secret))
    assert (entry["eventName"], entry["readOnly"], entry["errorCode"]) == ("RunMicrovm", False, "ResourceNotFoundException")
    assert entry["requestParameters"]["runHookPayload"] == "HIDDEN_DUE_TO_SECURITY_REASONS"
    assert {"ARN": image, "type": "AWS::Lambda::MicrovmImage"} in entry["resources"]
    too_long = log(refused(client.run_microvm, imageIdentifier=image, runHookPayload=secret * 1000))
    assert too_long["errorCode"] == "ValidationException"
    for name in os.listdir(own_daemon.data / "audit"):
        assert secret not in (own_daemon.data / "audit" / name).read_text()
    assert own_daemon.environment()["AWS_SECRET_ACCESS_KEY"] not in (own_daemon.data / "audit/audit.jsonl").read_text()


def test_denied(own_daemon, log):
    answer = refused(own_daemon.client("lambda-microvms", aws_secret_access_key="x" * 40).list_microvms)
    entry = log(answer)
    assert (entry["eventName"], entry["errorCode"]) == ("ListMicrovms", "InvalidSignatureException")
    assert entry["userIdentity"]["type"] == "Unknown" and "arn" not in entry["userIdentity"]
    assert entry["userIdentity"]["accessKeyId"] == own_daemon.environment()["AWS_ACCESS_KEY_ID"], "the key it named"


def test_malformed_and_unsigned(own_daemon):
    url = own_daemon.endpoint()["api"]
    for method, path, name in (("GET", "/2025-09-09/microvms/x", "GetMicrovm"), ("PUT", "/2025-09-09/coffee", "Unknown"),
                               ("DELETE", "/2026-04-04/network-connectors/x", "DeleteNetworkConnector")):
        answer = requests.request(method, url + path, timeout=10)
        assert answer.status_code == 403
        entry = record(own_daemon, answer.headers["x-amzn-requestid"])
        assert (entry["eventName"], entry["errorCode"]) == (name, "MissingAuthenticationTokenException")


def test_other_services(own_daemon, log):
    entry = log(own_daemon.client("sts").get_caller_identity())
    assert (entry["eventSource"], entry["eventName"], entry["readOnly"]) == ("sts.amazonaws.com", "GetCallerIdentity", True)
    entry = log(own_daemon.client("iam").list_roles())
    assert (entry["eventSource"], entry["eventName"]) == ("iam.amazonaws.com", "ListRoles")
    s3, bucket = own_daemon.client("s3"), f"audit-{os.urandom(4).hex()}"
    entry = log(s3.create_bucket(Bucket=bucket))
    assert (entry["eventSource"], entry["eventName"], entry["readOnly"]) == ("s3.amazonaws.com", "CreateBucket", False)
    assert entry["userIdentity"]["type"] == "Root"
    assert entry["resources"] == [{"ARN": f"arn:aws:s3:::{bucket}", "type": "AWS::S3::Bucket"}]
    entry = log(refused(s3.get_object, Bucket=bucket, Key="a b/c"))
    assert (entry["eventName"], entry["errorCode"], entry["requestParameters"]) == ("GetObject", "NoSuchKey", {"bucketName": bucket, "key": "a b/c"})
    entry = log(refused(own_daemon.client("s3", aws_secret_access_key="x" * 40).list_buckets))
    assert (entry["eventName"], entry["errorCode"], entry["userIdentity"]["type"]) == ("ListBuckets", "SignatureDoesNotMatch", "Unknown")
    s3.delete_bucket(Bucket=bucket)
    entry = log(refused(own_daemon.client("sts", aws_secret_access_key="x" * 40).get_caller_identity))
    assert (entry["eventName"], entry["errorCode"]) == ("GetCallerIdentity", "SignatureDoesNotMatch")


def test_health_is_no_call(own_daemon):
    before = len(records(own_daemon))
    requests.get(own_daemon.endpoint()["api"] + "/health", timeout=10)
    marked = own_daemon.microvms.list_microvms()
    record(own_daemon, request_id(marked))
    assert len(records(own_daemon)) == before + 1
