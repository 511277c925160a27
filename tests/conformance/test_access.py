"""Users with narrow policies, several accounts, sessions, presigned URLs, and requests that were tampered with: driven by stock clients."""
import json
import subprocess
import time
import uuid
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
import requests
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from support import paths
from support.images import archive
from support.roles import allow, builder, deny, document, trust

OTHER = "210987654321"


def refusal(call, code="AccessDeniedException", status=403):
    with pytest.raises(ClientError) as error:
        call()
    response = error.value.response
    assert (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]) == (code, status), response
    return response["Error"]["Message"]


def keys(key, token=None):
    """Options of a client that signs with this key."""
    options = {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
    return options | ({"aws_session_token": token or key["SessionToken"]} if token or "SessionToken" in key else {})


def environment(key):
    return {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"], "AWS_SESSION_TOKEN": key.get("SessionToken", "")}


class User:
    """A user of the default account with one policy."""

    def __init__(self, daemon):
        self.daemon, self.name, self.iam = daemon, f"u-{uuid.uuid4().hex[:8]}", daemon.client("iam")
        self.arn = self.iam.create_user(UserName=self.name)["User"]["Arn"]
        self.key = self.iam.create_access_key(UserName=self.name)["AccessKey"]

    def may(self, *statements):
        self.iam.put_user_policy(UserName=self.name, PolicyName="p", PolicyDocument=document(*statements))

    def client(self, service):
        return self.daemon.new_client(service, **keys(self.key))

    def end(self):
        for policy in self.iam.list_user_policies(UserName=self.name)["PolicyNames"]:
            self.iam.delete_user_policy(UserName=self.name, PolicyName=policy)
        self.iam.delete_access_key(UserName=self.name, AccessKeyId=self.key["AccessKeyId"])
        self.iam.delete_user(UserName=self.name)


@pytest.fixture
def user(daemon):
    user = User(daemon)
    yield user
    user.end()


@pytest.fixture
def account(daemon):
    return daemon.endpoint()["account"]


@pytest.fixture(scope="module")
def other(daemon):
    """The root's key of a second account."""
    command = [paths.EMBERBOX, "account", "add", "--data", daemon.data, OTHER]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    variables = dict(line.removeprefix("export ").split("=", 1) for line in printed.splitlines())
    return {"AccessKeyId": variables["AWS_ACCESS_KEY_ID"], "SecretAccessKey": variables["AWS_SECRET_ACCESS_KEY"]}


@pytest.fixture
def bucket(daemon):
    name = f"access-{uuid.uuid4().hex[:8]}"
    daemon.client("s3").create_bucket(Bucket=name)
    yield name
    for item in daemon.client("s3").list_objects_v2(Bucket=name).get("Contents", []):
        daemon.client("s3").delete_object(Bucket=name, Key=item["Key"])
    daemon.client("s3").delete_bucket(Bucket=name)


@pytest.fixture
def role(daemon, account):
    """A role that the account's own identities may assume, and Lambda may not."""
    iam, name = daemon.client("iam"), f"r-{uuid.uuid4().hex[:8]}"
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust(AWS=account))["Role"]["Arn"]
    yield name, arn
    for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
        iam.delete_role_policy(RoleName=name, PolicyName=policy)
    iam.delete_role(RoleName=name)


def image(account, name="web"):
    return f"arn:aws:lambda:us-east-1:{account}:microvm-image:{name}"


# --- policies of users -------------------------------------------------------------------------------------------------------------------------

def test_nothing_is_allowed_by_default(user, account):
    message = refusal(user.client("lambda-microvms").list_microvms)
    assert message == (f"User: {user.arn} is not authorized to perform: lambda:ListMicrovms on resource: * because no identity-based policy "
                       "allows the lambda:ListMicrovms action")
    message = refusal(lambda: user.client("iam").create_role(RoleName="x", AssumeRolePolicyDocument=trust()), "AccessDenied")
    assert f"perform: iam:CreateRole on resource: arn:aws:iam::{account}:role/x because" in message
    message = refusal(user.client("s3").list_buckets, "AccessDenied")
    assert "s3:ListAllMyBuckets" in message and user.arn in message
    assert user.client("sts").get_caller_identity()["Arn"] == user.arn


def test_allow_deny_and_a_change_counts_at_once(user, account):
    client = user.client("lambda-microvms")
    user.may(allow("lambda:*"))
    client.list_microvms()
    refusal(lambda: client.get_microvm_image(imageIdentifier=image(account)), "ResourceNotFoundException", 404)
    user.may(allow("lambda:*"), deny("lambda:Get*", image(account)))
    assert refusal(lambda: client.get_microvm_image(imageIdentifier=image(account))) == (
        f"User: {user.arn} is not authorized to perform: lambda:GetMicrovmImage on resource: {image(account)} with an explicit deny in an "
        "identity-based policy")
    refusal(lambda: client.get_microvm_image(imageIdentifier=image(account, "other")), "ResourceNotFoundException", 404)


def test_the_cli_is_told_why(daemon, user):
    result = daemon.aws_result("lambda-microvms", "list-microvms", **environment(user.key))
    assert result.returncode and "AccessDeniedException" in result.stderr and "lambda:ListMicrovms" in result.stderr


def test_conditions(user, account):
    client = user.client("lambda-microvms")
    in_2000 = {"DateLessThan": {"aws:CurrentTime": "2000-01-01T00:00:00Z"}}
    here, elsewhere = ({"IpAddress": {"aws:SourceIp": network}} for network in ("127.0.0.0/8", "203.0.113.0/24"))
    for condition, holds in ((here, True), (elsewhere, False), (in_2000, False),
                             ({"StringEquals": {"aws:username": user.name, "aws:PrincipalAccount": account}}, True),
                             ({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:user/someone-else"}}, False),
                             ({"Null": {"aws:TokenIssueTime": "true"}}, True), ({"Bool": {"aws:SecureTransport": "true"}}, False)):
        user.may(allow("lambda:ListMicrovms", Condition=condition))
        if holds:
            client.list_microvms()
        else:
            refusal(client.list_microvms)


def create(client, account, role, **members):
    return client.create_microvm_image(
        name=f"access-{uuid.uuid4().hex[:6]}", baseImageArn="arn:aws:lambda:us-east-1:aws:microvm-image:al2023-1", buildRoleArn=role,
        codeArtifact={"uri": "s3://no-such-bucket-anywhere/key.zip"}, **members)


def test_roles_and_connectors_have_to_be_passed(daemon, user, account, role):
    client, run = user.client("lambda-microvms"), builder(daemon)
    user.may(allow("lambda:CreateMicrovmImage"), allow("lambda:RunMicrovm", image(account)))
    assert f"perform: iam:PassRole on resource: {run}" in refusal(lambda: create(client, account, run))
    assert "lambda:PassNetworkConnector" in refusal(lambda: client.run_microvm(imageIdentifier=image(account)))
    user.may(allow("lambda:CreateMicrovmImage"), allow("lambda:RunMicrovm", image(account)), allow("lambda:PassNetworkConnector"),
             allow("iam:PassRole", [run, role[1]], Condition={"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}}))
    refusal(lambda: client.run_microvm(imageIdentifier=image(account), executionRoleArn=run), "ResourceNotFoundException", 404)
    # The root may pass anything; that it exists and trusts Lambda counts all the same.
    everything = daemon.microvms
    assert "its trust policy does not allow lambda.amazonaws.com" in refusal(lambda: create(client, account, role[1]), "ValidationException", 400)
    absent = f"arn:aws:iam::{account}:role/no-such-role"
    assert refusal(lambda: create(everything, account, absent), "ValidationException", 400) == f"The role {absent} cannot be assumed by Lambda: it does not exist"
    assert "Cross-account" in refusal(lambda: create(everything, account, f"arn:aws:iam::{OTHER}:role/build"))
    assert "does not exist" in refusal(lambda: everything.run_microvm(imageIdentifier=image(account), executionRoleArn=absent), "ValidationException", 400)


def test_tags_decide(daemon, user, account):
    client, run = user.client("lambda-microvms"), builder(daemon)
    blue = {"StringEquals": {"aws:RequestTag/team": "blue"}, "ForAllValues:StringEquals": {"aws:TagKeys": ["team"]}}
    user.may(allow("iam:PassRole"), allow(["lambda:CreateMicrovmImage", "lambda:TagResource"], Condition=blue),
             allow(["lambda:GetMicrovmImage", "lambda:DeleteMicrovmImage"], Condition={"StringEquals": {"aws:ResourceTag/team": "blue"}}))
    refusal(lambda: create(client, account, run))
    refusal(lambda: create(client, account, run, tags={"team": "red"}))
    mine = create(client, account, run, tags={"team": "blue"})["imageArn"]
    theirs = create(daemon.microvms, account, run)["imageArn"]
    try:
        assert client.get_microvm_image(imageIdentifier=mine)["imageArn"] == mine
        refusal(lambda: client.get_microvm_image(imageIdentifier=theirs))
    finally:
        for arn in (mine, theirs):
            until_built(daemon, arn)
            daemon.microvms.delete_microvm_image(imageIdentifier=arn)


def until_built(daemon, arn):
    while daemon.microvms.get_microvm_image(imageIdentifier=arn)["state"] == "CREATING":
        time.sleep(0.1)


def test_objects_by_policy(daemon, user, bucket):
    daemon.client("s3").put_object(Bucket=bucket, Key="home/a", Body=b"a")
    daemon.client("s3").put_object(Bucket=bucket, Key="other", Body=b"b")
    user.may(allow(["s3:GetObject", "s3:PutObject"], f"arn:aws:s3:::{bucket}/home/*"),
             allow("s3:ListBucket", f"arn:aws:s3:::{bucket}", Condition={"StringLike": {"s3:prefix": "home/*"}}))
    client = user.client("s3")
    assert client.get_object(Bucket=bucket, Key="home/a")["Body"].read() == b"a"
    assert [item["Key"] for item in client.list_objects_v2(Bucket=bucket, Prefix="home/")["Contents"]] == ["home/a"]
    refusal(lambda: client.list_objects_v2(Bucket=bucket), "AccessDenied")
    assert f'on resource: "arn:aws:s3:::{bucket}/other" because' in refusal(lambda: client.get_object(Bucket=bucket, Key="other"), "AccessDenied")
    refusal(lambda: client.copy_object(Bucket=bucket, Key="home/stolen", CopySource={"Bucket": bucket, "Key": "other"}), "AccessDenied")
    client.copy_object(Bucket=bucket, Key="home/b", CopySource={"Bucket": bucket, "Key": "home/a"})
    user.may(allow("s3:DeleteObject", f"arn:aws:s3:::{bucket}/home/*"))
    answer = client.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "home/b"}, {"Key": "other"}]})
    assert [item["Key"] for item in answer["Deleted"]] == ["home/b"]
    assert [(item["Key"], item["Code"]) for item in answer["Errors"]] == [("other", "AccessDenied")]


def test_a_build_reads_with_its_role(daemon, account, bucket):
    """Not with the caller's permissions: the root asks, the role may not."""
    iam, name = daemon.client("iam"), f"r-{uuid.uuid4().hex[:8]}"
    daemon.client("s3").put_object(Bucket=bucket, Key="app.zip", Body=archive({"file": "no Dockerfile"}))
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust(account))["Role"]["Arn"]
    definition = {"baseImageArn": "arn:aws:lambda:us-east-1:aws:microvm-image:al2023-1", "buildRoleArn": role, "codeArtifact": {"uri": f"s3://{bucket}/app.zip"}}
    reasons = []
    try:
        for number, statements in enumerate(([], [allow("s3:GetObject", f"arn:aws:s3:::{bucket}/*")])):
            if statements:
                iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=document(*statements))
            arn = daemon.microvms.create_microvm_image(name=f"{name}-{number}", **definition)["imageArn"]
            until_built(daemon, arn)
            [build] = daemon.microvms.list_microvm_image_builds(imageIdentifier=arn, imageVersion="1.0")["items"]
            reasons.append(build["stateReason"])
            daemon.microvms.delete_microvm_image(imageIdentifier=arn)
    finally:
        for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
            iam.delete_role_policy(RoleName=name, PolicyName=policy)
        iam.delete_role(RoleName=name)
    assert reasons[0].startswith("S3_ACCESS_DENIED: ") and "s3:GetObject" in reasons[0]
    assert reasons[1].startswith("ARCHIVE_DOCKERFILE_NOT_FOUND: ")


# --- accounts ----------------------------------------------------------------------------------------------------------------------------------

def test_accounts_are_apart(daemon, other, account, bucket):
    listed = subprocess.run([paths.EMBERBOX, "account", "list", "--data", daemon.data], capture_output=True, text=True, check=True).stdout.split()
    assert listed == sorted([account, OTHER])
    again = subprocess.run([paths.EMBERBOX, "account", "add", "--data", daemon.data, OTHER], capture_output=True, text=True)
    assert again.returncode and "exists already" in again.stderr
    client = daemon.new_client("lambda-microvms", **keys(other))
    assert daemon.new_client("sts", **keys(other)).get_caller_identity()["Arn"] == f"arn:aws:iam::{OTHER}:root"
    arn = create(daemon.microvms, account, builder(daemon))["imageArn"]
    try:
        assert client.list_microvm_images()["items"] == []
        # Another account's looks absent, in the same words as what never was.
        message = refusal(lambda: client.get_microvm_image(imageIdentifier=arn), "ResourceNotFoundException", 404)
        never = refusal(lambda: client.get_microvm_image(imageIdentifier=image(account, "never")), "ResourceNotFoundException", 404)
        assert message.replace(arn, "") == never.replace(image(account, "never"), "")
        refusal(lambda: client.tag_resource(Resource=arn, Tags={"a": "b"}), "ResourceNotFoundException", 404)
    finally:
        until_built(daemon, arn)
        daemon.microvms.delete_microvm_image(imageIdentifier=arn)
    refusal(lambda: daemon.new_client("iam", **keys(other)).get_role(RoleName="emberbox-test-builder"), "NoSuchEntity", 404)
    # Bucket names are of all; a bucket is its account's.
    s3 = daemon.new_client("s3", **keys(other))
    assert bucket not in [item["Name"] for item in s3.list_buckets()["Buckets"]]
    refusal(lambda: s3.list_objects_v2(Bucket=bucket), "AccessDenied")
    refusal(lambda: s3.put_object(Bucket=bucket, Key="k", Body=b""), "AccessDenied")
    refusal(lambda: s3.create_bucket(Bucket=bucket), "BucketAlreadyExists", 409)


def test_a_role_across_accounts(daemon, other, role):
    """Both sides have to agree."""
    name, arn = role
    sts = daemon.new_client("sts", **keys(other))
    assert "sts:AssumeRole" in refusal(lambda: sts.assume_role(RoleArn=arn, RoleSessionName="s1"), "AccessDenied")
    daemon.client("iam").update_assume_role_policy(RoleName=name, PolicyDocument=trust(AWS=OTHER))
    assert sts.assume_role(RoleArn=arn, RoleSessionName="s1")["AssumedRoleUser"]["Arn"].endswith(f":assumed-role/{name}/s1")


# --- sessions ----------------------------------------------------------------------------------------------------------------------------------

def test_assume_role(daemon, user, role, account, bucket):
    name, arn = role
    daemon.client("iam").put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=document(allow(["lambda:ListMicrovms", "s3:*"])))
    sts = user.client("sts")
    assert f"perform: sts:AssumeRole on resource: {arn}" in refusal(lambda: sts.assume_role(RoleArn=arn, RoleSessionName="ab"), "AccessDenied")
    user.may(allow("sts:AssumeRole", arn))
    answer = sts.assume_role(RoleArn=arn, RoleSessionName="ab", DurationSeconds=900)
    session, lifetime = answer["Credentials"], (answer["Credentials"]["Expiration"].timestamp() - time.time())
    assert session["AccessKeyId"].startswith("ASIA") and 840 < lifetime <= 901
    assert answer["AssumedRoleUser"]["Arn"] == f"arn:aws:sts::{account}:assumed-role/{name}/ab"
    identity = daemon.new_client("sts", **keys(session)).get_caller_identity()
    assert (identity["Arn"], identity["UserId"]) == (answer["AssumedRoleUser"]["Arn"], answer["AssumedRoleUser"]["AssumedRoleId"])
    client = daemon.new_client("lambda-microvms", **keys(session))
    client.list_microvms()
    assert answer["AssumedRoleUser"]["Arn"] in refusal(client.list_microvm_images)
    daemon.new_client("s3", **keys(session)).put_object(Bucket=bucket, Key="k", Body=b"x")
    # Without its token, or with another's, the key is nothing.
    other = sts.assume_role(RoleArn=arn, RoleSessionName="cd")["Credentials"]
    without = {key: value for key, value in session.items() if key != "SessionToken"}
    for options in (keys(without), keys(session, token=other["SessionToken"]), keys(session, token="nonsense")):
        refusal(daemon.new_client("lambda-microvms", **options).list_microvms, "UnrecognizedClientException")
        refusal(daemon.new_client("sts", **options).get_caller_identity, "InvalidClientTokenId")
        refusal(daemon.new_client("s3", **options).list_buckets, "InvalidAccessKeyId")


def test_sessions_with_the_cli(daemon, role):
    """As people do it: `aws sts assume-role`, three variables."""
    name, arn = role
    daemon.client("iam").put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=document(allow("lambda:List*")))
    session = daemon.aws("sts", "assume-role", "--role-arn", arn, "--role-session-name", "cli")["Credentials"]
    variables = environment(session)
    result = daemon.aws_result("lambda-microvms", "list-microvms", **variables)
    assert result.returncode == 0, result.stderr
    assert "AccessDenied" in daemon.aws_result("s3", "ls", **variables).stderr


def test_a_session_policy_narrows(daemon, role):
    name, arn = role
    daemon.client("iam").put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=document(allow("lambda:*")))
    narrow = document(allow("lambda:ListMicrovms"))
    session = daemon.client("sts").assume_role(RoleArn=arn, RoleSessionName="ab", Policy=narrow)["Credentials"]
    client = daemon.new_client("lambda-microvms", **keys(session))
    client.list_microvms()
    assert refusal(client.list_microvm_images).endswith("because no session policy allows the lambda:ListMicrovmImages action")


def test_durations(daemon, role):
    sts, ask = daemon.client("sts"), {"RoleArn": role[1], "RoleSessionName": "ab"}
    refusal(lambda: sts.assume_role(**ask, DurationSeconds=899), "ValidationError", 400)
    assert "MaxSessionDuration" in refusal(lambda: sts.assume_role(**ask, DurationSeconds=3601), "ValidationError", 400)
    refusal(lambda: sts.assume_role(RoleArn=role[1], RoleSessionName="a"), "ValidationError", 400)
    refusal(lambda: sts.assume_role(RoleArn=f"{role[1]}-absent", RoleSessionName="ab"), "AccessDenied")
    refusal(lambda: sts.assume_role(**ask, Policy="{"), "MalformedPolicyDocument", 400)


def test_get_session_token(daemon, user):
    user.may(allow(["sts:GetSessionToken", "lambda:ListMicrovms"]))
    session = user.client("sts").get_session_token(DurationSeconds=900)["Credentials"]
    client = daemon.new_client("lambda-microvms", **keys(session))
    client.list_microvms()
    assert daemon.new_client("sts", **keys(session)).get_caller_identity()["Arn"] == user.arn
    user.may(allow("sts:GetSessionToken"))
    refusal(client.list_microvms)


# --- signatures --------------------------------------------------------------------------------------------------------------------------------

class Signer:
    """Requests to the Lambda API signed with botocore's own signers, then sent by hand."""

    def __init__(self, daemon, key):
        self.url = daemon.endpoint()["api"] + "/2025-09-09/microvms"
        self.credentials = Credentials(key["AccessKeyId"], key["SecretAccessKey"], key.get("SessionToken"))

    def signed(self, method="GET", body=b"", url=None, **headers):
        request = AWSRequest(method=method, url=url or self.url, data=body, headers=headers)
        SigV4Auth(self.credentials, "lambda", "us-east-1").add_auth(request)
        return request.prepare()

    def presigned(self, expires=60):
        request = AWSRequest(method="GET", url=self.url)
        SigV4QueryAuth(self.credentials, "lambda", "us-east-1", expires=expires).add_auth(request)
        return request.url


def send(prepared, url=None, body=None):
    headers = dict(prepared.headers)
    return requests.request(prepared.method, url or prepared.url, headers=headers, data=prepared.body if body is None else body, timeout=10)


def error_of(answer):
    return answer.status_code, answer.headers["x-amzn-errortype"]


@pytest.fixture
def root(daemon):
    variables = daemon.environment()
    return {"AccessKeyId": variables["AWS_ACCESS_KEY_ID"], "SecretAccessKey": variables["AWS_SECRET_ACCESS_KEY"]}


def at(monkeypatch, seconds):
    """botocore's signers see this many seconds from now."""
    import datetime

    import botocore.auth
    shifted = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
    for name in ("get_current_datetime", "get_utc_now"):
        if hasattr(botocore.auth, name):
            monkeypatch.setattr(botocore.auth, name, lambda *a, **k: shifted.replace(tzinfo=None))


def test_clock_skew_and_the_replay_window(daemon, root, monkeypatch):
    signer = Signer(daemon, root)
    prepared = signer.signed()
    assert send(prepared).status_code == 200
    assert send(prepared).status_code == 200, "within its window a signature is good again: two equal requests of a second are one"
    for seconds, words in ((-310, "Signature expired"), (310, "Signature not yet current")):
        at(monkeypatch, seconds)
        answer = send(Signer(daemon, root).signed())
        assert error_of(answer) == (403, "InvalidSignatureException") and words in answer.json()["message"]


def test_tampering(daemon, root):
    signer = Signer(daemon, root)
    body = json.dumps({"imageIdentifier": image("123456789012")}).encode()
    prepared = signer.signed("POST", body, **{"content-type": "application/json"})
    assert send(prepared).status_code == 404
    assert error_of(send(prepared, body=body.replace(b"web", b"wex"))) == (403, "InvalidSignatureException")
    assert error_of(send(prepared, url=prepared.url + "?maxResults=1")) == (403, "InvalidSignatureException")
    other_hash = signer.signed("POST", body, **{"x-amz-content-sha256": "0" * 64})
    assert error_of(send(other_hash)) == (403, "InvalidSignatureException")


def test_presigned_urls(daemon, root, user, monkeypatch):
    url = Signer(daemon, root).presigned()
    assert requests.get(url, timeout=10).status_code == 200
    assert error_of(requests.get(url.replace("X-Amz-Expires=60", "X-Amz-Expires=600"), timeout=10)) == (403, "InvalidSignatureException")
    assert error_of(requests.post(url, timeout=10)) == (403, "InvalidSignatureException")
    assert error_of(requests.get(Signer(daemon, user.key).presigned(), timeout=10)) == (403, "AccessDeniedException")
    session = daemon.client("sts").get_session_token()["Credentials"]
    of_session = Signer(daemon, session).presigned()
    assert "X-Amz-Security-Token" in parse_qs(urlsplit(of_session).query)
    assert requests.get(of_session, timeout=10).status_code == 200
    at(monkeypatch, -120)
    assert error_of(requests.get(Signer(daemon, root).presigned(), timeout=10)) == (403, "InvalidSignatureException")
    assert requests.get(Signer(daemon, root).presigned(expires=600), timeout=10).status_code == 200


def test_presigned_urls_of_objects(daemon, root, user, bucket):
    daemon.client("s3").put_object(Bucket=bucket, Key="key", Body=b"body")
    ask = {"Params": {"Bucket": bucket, "Key": "key"}, "ExpiresIn": 60}
    assert requests.get(daemon.client("s3").generate_presigned_url("get_object", **ask), timeout=10).content == b"body"

    def version_4(key):
        return boto3.client("s3", endpoint_url=daemon.endpoint()["api"], region_name="us-east-1", config=Config(signature_version="s3v4"), **keys(key))

    assert requests.get(version_4(root).generate_presigned_url("get_object", **ask), timeout=10).content == b"body"
    denied = requests.get(user.client("s3").generate_presigned_url("get_object", **ask), timeout=10)
    assert denied.status_code == 403 and "AccessDenied" in denied.text
    expired = daemon.client("s3").generate_presigned_url("get_object", Params=ask["Params"], ExpiresIn=1)
    time.sleep(2.1)
    assert requests.get(expired, timeout=10).status_code == 403
    session = daemon.client("sts").get_session_token()["Credentials"]
    url = version_4(session).generate_presigned_url("get_object", **ask)
    assert requests.get(url, timeout=10).content == b"body"


def test_signatures_of_version_2_are_refused(daemon, root, bucket):
    """In headers: they could be replayed for ever."""
    client = boto3.client("s3", endpoint_url=daemon.endpoint()["api"], region_name="us-east-1", config=Config(signature_version="s3"), **keys(root))
    assert "Please use AWS4-HMAC-SHA256" in refusal(lambda: client.list_objects(Bucket=bucket), "InvalidRequest", 400)


def test_secrets_are_not_in_the_log(daemon, user):
    user.may(allow("sts:GetSessionToken"))
    session = user.client("sts").get_session_token()["Credentials"]
    text = daemon.log.read_text(errors="replace")
    for secret in (user.key["SecretAccessKey"], session["SecretAccessKey"], session["SessionToken"]):
        assert secret not in text


def test_what_authentication_costs_is_in_the_log(daemon, user):
    user.may(allow("lambda:ListMicrovms"))
    start = daemon.log.stat().st_size
    user.client("lambda-microvms").list_microvms()
    answered = [event for event in daemon.events(start) if event.get("message") == "answered" and event.get("span", {}).get("operation") == "ListMicrovms"]
    assert answered and all(event["auth_us"] > 0 for event in answered)
