"""Roles and policies, as AWS's tutorials make them."""
import json

from botocore.exceptions import ClientError

BUILDER = "emberbox-test-builder"


def document(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(actions, resources="*", **members):
    return {"Effect": "Allow", "Action": actions, "Resource": resources} | members


def deny(actions, resources="*", **members):
    return {"Effect": "Deny", "Action": actions, "Resource": resources} | members


def trust(account=None, **principal):
    """A trust policy; Lambda's own, for things of `account` alone if it is given."""
    statement = {"Effect": "Allow", "Principal": principal or {"Service": "lambda.amazonaws.com"}, "Action": ["sts:AssumeRole", "sts:TagSession"]}
    if principal:
        statement["Action"] = "sts:AssumeRole"
    if account:
        statement["Condition"] = {"StringEquals": {"aws:SourceAccount": account}}
    return document(statement)


def builder(daemon):
    """The role of builds, made once: it reads every object of the account and writes logs."""
    client = daemon.client("iam")
    try:
        return client.get_role(RoleName=BUILDER)["Role"]["Arn"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchEntity":
            raise
    role = client.create_role(RoleName=BUILDER, AssumeRolePolicyDocument=trust(daemon.endpoint()["account"]))["Role"]
    statements = allow("s3:GetObject"), allow(["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"])
    client.put_role_policy(RoleName=BUILDER, PolicyName="build", PolicyDocument=document(*statements))
    return role["Arn"]
