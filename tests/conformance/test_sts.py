"""STS on the same endpoint."""


def test_get_caller_identity(daemon):
    identity = daemon.aws("sts", "get-caller-identity")
    assert identity["Account"] == daemon.endpoint()["account"]
    assert identity["Arn"].startswith(f"arn:aws:iam::{identity['Account']}:")
    same = daemon.client("sts").get_caller_identity()
    assert (same["Account"], same["Arn"], same["UserId"]) == (identity["Account"], identity["Arn"], identity["UserId"])
