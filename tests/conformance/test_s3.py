"""S3 on the same endpoint, with the stock CLI and boto3."""
import hashlib
import os

import pytest
from botocore.exceptions import ClientError

MIB = 1 << 20


@pytest.fixture
def bucket(endpoint):
    name = f"conformance-{os.urandom(4).hex()}"
    endpoint.aws("s3", "mb", f"s3://{name}")
    yield name
    endpoint.aws("s3", "rb", f"s3://{name}", "--force")
    assert name not in [bucket["Name"] for bucket in endpoint.client("s3").list_buckets()["Buckets"]]


def test_cli_mb_cp_ls_rm(endpoint, bucket, tmp_path):
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(os.urandom(1000))
    endpoint.aws("s3", "cp", source, f"s3://{bucket}/some/key with spaces+and~signs")
    assert "key with spaces+and~signs" in endpoint.aws_result("s3", "ls", f"s3://{bucket}/some/").stdout
    endpoint.aws("s3", "cp", f"s3://{bucket}/some/key with spaces+and~signs", back)
    assert back.read_bytes() == source.read_bytes()
    endpoint.aws("s3", "rm", f"s3://{bucket}/some/key with spaces+and~signs")
    listing = endpoint.aws_result("s3", "ls", f"s3://{bucket}", "--recursive")
    assert listing.stdout == ""


def test_cli_multipart(endpoint, bucket, tmp_path):
    source, back = tmp_path / "source", tmp_path / "back"
    source.write_bytes(os.urandom(20 * MIB))
    endpoint.aws("s3", "cp", source, f"s3://{bucket}/large")
    head = endpoint.client("s3").head_object(Bucket=bucket, Key="large")
    assert head["ContentLength"] == 20 * MIB
    assert head["ETag"].strip('"').endswith("-3"), "three parts of 8 MiB at most"
    endpoint.aws("s3", "cp", f"s3://{bucket}/large", back)
    assert hashlib.sha256(back.read_bytes()).digest() == hashlib.sha256(source.read_bytes()).digest()


def test_boto3_transfers(endpoint, bucket, tmp_path):
    client = endpoint.client("s3")
    for name, size in (("empty", 0), ("small", 5), ("large", 17 * MIB)):
        source, back = tmp_path / name, tmp_path / f"{name}-back"
        source.write_bytes(os.urandom(size))
        client.upload_file(str(source), bucket, name)
        client.download_file(bucket, name, str(back))
        assert back.read_bytes() == source.read_bytes()
    assert [item["Key"] for item in client.list_objects_v2(Bucket=bucket)["Contents"]] == ["empty", "large", "small"]


def test_objects_that_are_not_there(endpoint, bucket):
    client = endpoint.client("s3")
    for call, code in ((lambda: client.get_object(Bucket=bucket, Key="no"), "NoSuchKey"),
                       (lambda: client.get_object(Bucket=f"{bucket}-no", Key="no"), "NoSuchBucket"),
                       (lambda: client.delete_bucket(Bucket=f"{bucket}-no"), "NoSuchBucket")):
        with pytest.raises(ClientError) as error:
            call()
        assert error.value.response["Error"]["Code"] == code


def test_a_bucket_with_objects_stays(endpoint, bucket):
    client = endpoint.client("s3")
    client.put_object(Bucket=bucket, Key="key", Body=b"body")
    with pytest.raises(ClientError) as error:
        client.delete_bucket(Bucket=bucket)
    assert error.value.response["Error"]["Code"] == "BucketNotEmpty"
    assert client.get_object(Bucket=bucket, Key="key")["Body"].read() == b"body"


def test_traversal_is_only_a_name(endpoint, bucket):
    """Keys are names, not paths: nothing outside the bucket is written or read."""
    client, key = endpoint.client("s3"), "a/../../../../etc/emberbox-was-here"
    client.put_object(Bucket=bucket, Key=key, Body=b"body")
    assert not os.path.exists("/etc/emberbox-was-here")
    assert client.get_object(Bucket=bucket, Key=key)["Body"].read() == b"body"
    assert [item["Key"] for item in client.list_objects_v2(Bucket=bucket)["Contents"]] == [key]
