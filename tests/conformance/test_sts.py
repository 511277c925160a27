"""STS on the same endpoint."""


def test_get_caller_identity(endpoint):
    identity = endpoint.aws("sts", "get-caller-identity")
    assert identity["Account"] == endpoint.endpoint()["account"]
    assert identity["Arn"].startswith(f"arn:aws:iam::{identity['Account']}:")
    same = endpoint.client("sts").get_caller_identity()
    assert (same["Account"], same["Arn"], same["UserId"]) == (identity["Account"], identity["Arn"], identity["UserId"])
