"""Stock AWS clients against an endpoint: python clients.py http://127.0.0.1:PORT WORK_FOLDER"""

import hashlib
import os
import subprocess
import sys
import urllib.request

import boto3
import botocore.exceptions
from botocore.config import Config

ENDPOINT, WORK = sys.argv[1], sys.argv[2]
KEYS = {"AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
os.environ.update(KEYS, AWS_ENDPOINT_URL=ENDPOINT, AWS_EC2_METADATA_DISABLED="true", AWS_PAGER="")
os.environ.pop("AWS_PROFILE", None)
CONFIG = Config(retries={"total_max_attempts": 1})


def client(name, **options):
    return boto3.client(name, config=options.pop("config", CONFIG), **options)


def refused(code, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except botocore.exceptions.ClientError as error:
        assert error.response["Error"]["Code"] == code, error.response
        assert error.response["ResponseMetadata"]["RequestId"], error.response
        return error.response
    raise AssertionError(f"{code} expected")


def aws(*arguments, ok=True, env=None):
    tool = os.path.join(os.path.dirname(sys.executable), "aws")
    done = subprocess.run([tool, *arguments], capture_output=True, text=True, cwd=WORK, env={**os.environ, **(env or {})})
    assert (done.returncode == 0) == ok, (arguments, done.stdout, done.stderr)
    return done.stdout + done.stderr


def test_health():
    with urllib.request.urlopen(ENDPOINT + "/health") as response:
        assert response.read() == b'{"status":"ok"}' and response.headers["x-amzn-requestid"]


def test_sts():
    identity = client("sts").get_caller_identity()
    assert identity["Account"] == "123456789012" and identity["Arn"].endswith(":user/tester"), identity
    refused("InvalidClientTokenId", client("sts", aws_access_key_id="AKIAOTHER", aws_secret_access_key="x").get_caller_identity)
    refused("SignatureDoesNotMatch", client("sts", aws_secret_access_key="x", aws_access_key_id="AKIATEST").get_caller_identity)
    refused("InvalidAction", client("sts").get_federation_token, Name="x" * 4)
    assert "InvalidClientTokenId" in aws("sts", "get-caller-identity", ok=False, env={"AWS_ACCESS_KEY_ID": "AKIAOTHER"})
    assert "123456789012" in aws("sts", "get-caller-identity")


def test_lambda():
    microvms = client("lambda-microvms")
    arn = "arn:aws:lambda:us-east-1:123456789012:microvm-image:sandbox"
    image = microvms.get_microvm_image(imageIdentifier=arn)
    assert image["imageArn"] == arn and "name" not in image and image["createdAt"].microsecond == 500000, image
    assert microvms.list_microvm_images(maxResults=7)["nextToken"] == "7"
    assert microvms.list_tags(Resource=arn)["Tags"] == {"resource": arn}
    assert microvms.tag_resource(Resource=arn, Tags={"a": "b c"})["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert microvms.untag_resource(Resource=arn, TagKeys=["a", "b c"])["ResponseMetadata"]["HTTPStatusCode"] == 204
    gone = refused("ResourceNotFoundException", microvms.get_microvm, microvmIdentifier="microvm-1")
    assert gone["resourceId"] == "microvm-1" and gone["message"] == "no such MicroVM", gone
    raw = client("lambda-microvms", config=Config(parameter_validation=False, retries={"total_max_attempts": 1}))
    bad = refused("ValidationException", raw.run_microvm, maximumDurationInSeconds=0)
    assert bad["message"].startswith("2 validation errors detected: "), bad
    refused("SerializationException", raw.run_microvm, imageIdentifier=arn, idlePolicy={"maxIdleDurationSeconds": 1 << 40})
    refused("InternalServerException", microvms.terminate_microvm, microvmIdentifier="microvm-1")
    other = client("lambda-microvms", aws_access_key_id="AKIAOTHER", aws_secret_access_key="x")
    refused("RequestTooLargeException", raw.run_microvm, imageIdentifier="x" * (6 << 20))
    refused("UnrecognizedClientException", other.list_microvms)
    wrong = client("lambda-microvms", aws_access_key_id="AKIATEST", aws_secret_access_key="x")
    refused("InvalidSignatureException", wrong.list_microvms)
    refused("InvalidSignatureException", client("lambda-microvms", region_name="eu-west-1").list_microvms)
    refused("UnknownOperationException", client("lambda").list_functions)
    refused("NotImplementedException", client("lambda-core").list_network_connectors)
    message = refused("NotImplementedException", client("logs").describe_log_groups)["Error"]["Message"]
    assert "'logs'" in message and "sts" in message, message
    assert "sandbox" in aws("lambda-microvms", "get-microvm-image", "--image-identifier", arn)


def test_s3_cli():
    os.makedirs(f"{WORK}/tree/sub", exist_ok=True)
    with open(f"{WORK}/big", "wb") as file:
        file.write(os.urandom(20 * 1024 * 1024 + 7))
    for name in ["a", "sub/b c+d%20é", "sub/e"]:
        with open(f"{WORK}/tree/{name}", "w") as file:
            file.write(name)
    aws("s3", "mb", "s3://cli-bucket")
    assert "BucketAlreadyOwnedByYou" in aws("s3", "mb", "s3://cli-bucket", ok=False)
    aws("s3", "cp", "big", "s3://cli-bucket/big")
    aws("s3", "cp", "s3://cli-bucket/big", "s3://cli-bucket/copy/of/big")
    aws("s3", "cp", "s3://cli-bucket/copy/of/big", "back")
    assert open(f"{WORK}/big", "rb").read() == open(f"{WORK}/back", "rb").read()
    aws("s3", "sync", "tree", "s3://cli-bucket/tree")
    assert aws("s3", "sync", "tree", "s3://cli-bucket/tree").strip() == ""
    aws("s3", "sync", "s3://cli-bucket/tree", "tree2")
    assert open(f"{WORK}/tree2/sub/b c+d%20é").read() == "sub/b c+d%20é"
    listing = aws("s3", "ls", "s3://cli-bucket/tree/")
    assert "PRE sub/" in listing and listing.strip().endswith(" a"), listing
    assert "cli-bucket" in aws("s3", "ls")
    assert "NoSuchBucket" in aws("s3", "ls", "s3://no-such-bucket", ok=False)
    assert "InvalidAccessKeyId" in aws("s3", "ls", ok=False, env={"AWS_ACCESS_KEY_ID": "AKIAOTHER"})
    assert "SignatureDoesNotMatch" in aws("s3", "ls", ok=False, env={"AWS_SECRET_ACCESS_KEY": "other"})
    assert "BucketNotEmpty" in aws("s3", "rb", "s3://cli-bucket", ok=False)
    aws("s3", "rm", "--recursive", "s3://cli-bucket/tree")
    aws("s3", "rb", "--force", "s3://cli-bucket")
    assert "cli-bucket" not in aws("s3", "ls")


def test_s3_boto():
    s3 = client("s3")
    s3.create_bucket(Bucket="boto")
    bodies = {"a": b"1", "a/b": b"2", "a/b/": b"", "x/../../y": b"3", "/lead": b"4", "é +%": b"5", "n" * 1024: b"6", "..": b"7"}
    for key, body in bodies.items():
        if key == "..":
            continue
        put = s3.put_object(Bucket="boto", Key=key, Body=body, ContentType="text/x", Metadata={"m": "v"})
        assert put["ETag"] == '"%s"' % hashlib.md5(body).hexdigest() and put["ChecksumCRC32"], put
    for key, body in bodies.items():
        if key == "..":
            continue
        got = s3.get_object(Bucket="boto", Key=key)
        assert got["Body"].read() == body and got["ContentType"] == "text/x" and got["Metadata"] == {"m": "v"}, key
    keys = [entry["Key"] for page in s3.get_paginator("list_objects_v2").paginate(Bucket="boto", PaginationConfig={"PageSize": 2}) for entry in page["Contents"]]
    assert keys == sorted((key for key in bodies if key != ".."), key=str.encode), keys
    for kind in ["list_objects_v2", "list_objects"]:
        found = []
        for page in s3.get_paginator(kind).paginate(Bucket="boto", Delimiter="/", PaginationConfig={"PageSize": 1}):
            found += [entry["Key"] for entry in page.get("Contents", [])] + [entry["Prefix"] for entry in page.get("CommonPrefixes", [])]
        assert found == ["/", "a", "a/", "n" * 1024, "x/", "é +%"], (kind, found)
    for algorithm in ["CRC32", "CRC32C", "SHA1", "SHA256", "CRC64NVME"]:
        try:
            s3.put_object(Bucket="boto", Key="sum", Body=b"sum", ChecksumAlgorithm=algorithm)
        except botocore.exceptions.MissingDependencyException:
            print(f"SKIPPED: {algorithm} needs awscrt")
            continue
        assert s3.get_object(Bucket="boto", Key="sum", ChecksumMode="ENABLED")[f"Checksum{algorithm}"], algorithm
    for name, value in [("ChecksumCRC64NVME", "rosUhgp5mIg="), ("ChecksumCRC32C", "4waSgw==")]:
        assert s3.put_object(Bucket="boto", Key="vector", Body=b"123456789", **{name: value})[name] == value
        refused("BadDigest", s3.put_object, Bucket="boto", Key="vector", Body=b"12345678", **{name: value})
    refused("BadDigest", s3.put_object, Bucket="boto", Key="sum", Body=b"other", ChecksumSHA256="n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=")
    assert s3.get_object(Bucket="boto", Key="sum")["Body"].read() == b"sum", "a refused write must not replace what is there"
    assert s3.get_object(Bucket="boto", Key="sum", Range="bytes=1-")["Body"].read() == b"um"
    ranged = s3.get_object(Bucket="boto", Key="sum", Range="bytes=-1")
    assert ranged["Body"].read() == b"m" and ranged["ContentRange"] == "bytes 2-2/3"
    refused("InvalidRange", s3.get_object, Bucket="boto", Key="sum", Range="bytes=3-")
    refused("PreconditionFailed", s3.put_object, Bucket="boto", Key="sum", Body=b"", IfNoneMatch="*")
    refused("304", s3.get_object, Bucket="boto", Key="sum", IfNoneMatch=s3.head_object(Bucket="boto", Key="sum")["ETag"])
    refused("404", s3.head_object, Bucket="boto", Key="no")
    refused("NoSuchKey", s3.get_object, Bucket="boto", Key="no")
    refused("NoSuchBucket", s3.put_object, Bucket="nobody", Key="k", Body=b"")
    refused("InvalidBucketName", client("s3", config=Config(parameter_validation=False, retries={"total_max_attempts": 1})).create_bucket, Bucket="UPPER_case")
    eu = client("s3")
    refused("IllegalLocationConstraintException", eu.create_bucket, Bucket="else", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    with open(f"{WORK}/multi", "wb") as file:
        file.write(os.urandom(17 * 1024 * 1024))
    s3.upload_file(f"{WORK}/multi", "boto", "multi")
    s3.download_file("boto", "multi", f"{WORK}/multi2")
    assert open(f"{WORK}/multi", "rb").read() == open(f"{WORK}/multi2", "rb").read()
    assert s3.head_object(Bucket="boto", Key="multi")["ETag"].endswith('-3"')
    upload = s3.create_multipart_upload(Bucket="boto", Key="up")["UploadId"]
    one = s3.upload_part(Bucket="boto", Key="up", UploadId=upload, PartNumber=1, Body=b"x")
    copied = s3.upload_part_copy(Bucket="boto", Key="up", UploadId=upload, PartNumber=2, CopySource={"Bucket": "boto", "Key": "multi"}, CopySourceRange="bytes=0-9")
    assert [part["Size"] for part in s3.list_parts(Bucket="boto", Key="up", UploadId=upload)["Parts"]] == [1, 10]
    assert [entry["Key"] for entry in s3.list_multipart_uploads(Bucket="boto")["Uploads"]] == ["up"]
    both = [{"PartNumber": 1, "ETag": one["ETag"]}, {"PartNumber": 2, "ETag": copied["CopyPartResult"]["ETag"]}]
    refused("EntityTooSmall", s3.complete_multipart_upload, Bucket="boto", Key="up", UploadId=upload, MultipartUpload={"Parts": both})
    refused("InvalidPart", s3.complete_multipart_upload, Bucket="boto", Key="up", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 3, "ETag": "x"}]})
    s3.abort_multipart_upload(Bucket="boto", Key="up", UploadId=upload)
    refused("NoSuchUpload", s3.abort_multipart_upload, Bucket="boto", Key="up", UploadId=upload)
    refused("NoSuchUpload", s3.list_parts, Bucket="boto", Key="up", UploadId="../../kept")
    url = s3.generate_presigned_url("get_object", Params={"Bucket": "boto", "Key": "é +%"})
    assert "/boto/" in url, "path style"
    with urllib.request.urlopen(url) as response:
        assert response.read() == b"5"
    try:
        urllib.request.urlopen(ENDPOINT + "/boto/sum")
        raise AssertionError("anonymous")
    except urllib.error.HTTPError as error:
        assert error.code == 403 and b"AccessDenied" in error.read()
    refused("NotImplemented", s3.put_bucket_versioning, Bucket="boto", VersioningConfiguration={"Status": "Enabled"})
    resource = boto3.resource("s3")
    resource.Bucket("boto").objects.all().delete()
    s3.delete_bucket(Bucket="boto")
    local = client("s3", endpoint_url=ENDPOINT.replace("127.0.0.1", "localhost"))
    local.create_bucket(Bucket="kept")
    local.put_object(Bucket="kept", Key="dir/app.zip", Body=b"zip")


def test_s3_tampering():
    """A body that is not what was signed is refused, and nothing is stored."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    request = AWSRequest("PUT", ENDPOINT + "/kept/forged", data=b"signed", headers={"x-amz-content-sha256": hashlib.sha256(b"signed").hexdigest()})
    S3SigV4Auth(Credentials("AKIATEST", "secret"), "s3", "us-east-1").add_auth(request)
    forged = urllib.request.Request(request.url, data=b"forged", headers=dict(request.headers), method="PUT")
    try:
        urllib.request.urlopen(forged)
        raise AssertionError("a forged body was taken")
    except urllib.error.HTTPError as error:
        assert error.code in (400, 403), (error.code, error.read())
    refused("404", client("s3").head_object, Bucket="kept", Key="forged")


def test_s3_trailers():
    """The chunked form with a checksum trailer, which SDKs use over TLS."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    for value, status in [("rosUhgp5mIg=", 200), ("rosUhgp5mIk=", 400)]:
        body = b"9\r\n123456789\r\n0\r\nx-amz-checksum-crc64nvme:" + value.encode() + b"\r\n\r\n"
        headers = {"content-encoding": "aws-chunked", "x-amz-decoded-content-length": "9", "x-amz-trailer": "x-amz-checksum-crc64nvme"}
        request = AWSRequest("PUT", f"{ENDPOINT}/kept/trailer{status}", data=body, headers=headers)
        request.context["checksum"] = {"request_algorithm": {"in": "trailer", "algorithm": "crc64nvme"}}
        S3SigV4Auth(Credentials("AKIATEST", "secret"), "s3", "us-east-1").add_auth(request)
        assert request.headers["X-Amz-Content-SHA256"] == "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
        sent = urllib.request.Request(request.url, data=body, headers=dict(request.headers), method="PUT")
        try:
            answer = urllib.request.urlopen(sent).status
        except urllib.error.HTTPError as error:
            answer = error.code
        assert answer == status, answer
    s3 = client("s3")
    assert s3.get_object(Bucket="kept", Key="trailer200")["Body"].read() == b"123456789"
    refused("404", s3.head_object, Bucket="kept", Key="trailer400")


os.makedirs(WORK, exist_ok=True)
for name, test in list(globals().items()):
    if name.startswith("test_"):
        test()
        print("ok", name, flush=True)
