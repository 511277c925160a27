"""IAM through stock clients: the commands of AWS's tutorials, and each kind of entity from its making to its end."""
import json
import urllib.parse
import uuid

import pytest
from botocore.exceptions import ClientError

from support.roles import allow, document, trust

READ_ONLY = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"


def refused(call, code, status, words=""):
    with pytest.raises(ClientError) as error:
        call()
    response = error.value.response
    assert (response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]) == (code, status)
    assert words in response["Error"]["Message"] and response["ResponseMetadata"]["RequestId"]


@pytest.fixture
def iam(daemon):
    return daemon.client("iam")


@pytest.fixture
def name():
    return f"t-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def role(iam, name):
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust(), Description="a role", Tags=[{"Key": "team", "Value": "blue"}])
    yield name
    for policy in iam.list_role_policies(RoleName=name)["PolicyNames"]:
        iam.delete_role_policy(RoleName=name, PolicyName=policy)
    for policy in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
        iam.detach_role_policy(RoleName=name, PolicyArn=policy["PolicyArn"])
    iam.delete_role(RoleName=name)


@pytest.fixture
def user(iam, name):
    iam.create_user(UserName=name, Path="/team/")
    yield name
    for key in iam.list_access_keys(UserName=name)["AccessKeyMetadata"]:
        iam.delete_access_key(UserName=name, AccessKeyId=key["AccessKeyId"])
    iam.delete_user(UserName=name)


def test_the_commands_of_a_tutorial(daemon, name, tmp_path):
    """As AWS's guides have them: documents from files, a role with inline and managed policies, and its end."""
    trust_file, policy_file = tmp_path / "trust.json", tmp_path / "policy.json"
    trust_file.write_text(trust(daemon.endpoint()["account"]))
    policy_file.write_text(document(allow("s3:GetObject", "arn:aws:s3:::bucket/*")))
    made = daemon.aws("iam", "create-role", "--role-name", name, "--assume-role-policy-document", f"file://{trust_file}")["Role"]
    assert made["Arn"] == f"arn:aws:iam::{daemon.endpoint()['account']}:role/{name}"
    assert made["AssumeRolePolicyDocument"] == json.loads(trust_file.read_text())
    daemon.aws("iam", "put-role-policy", "--role-name", name, "--policy-name", "artifacts", "--policy-document", f"file://{policy_file}")
    daemon.aws("iam", "attach-role-policy", "--role-name", name, "--policy-arn", READ_ONLY)
    assert daemon.aws("iam", "get-role-policy", "--role-name", name, "--policy-name", "artifacts")["PolicyDocument"] == json.loads(policy_file.read_text())
    assert daemon.aws("iam", "list-attached-role-policies", "--role-name", name)["AttachedPolicies"] == [
        {"PolicyName": "AmazonS3ReadOnlyAccess", "PolicyArn": READ_ONLY}]
    assert name in [role["RoleName"] for role in daemon.aws("iam", "list-roles")["Roles"]]
    daemon.aws("iam", "wait", "role-exists", "--role-name", name)
    daemon.aws("iam", "detach-role-policy", "--role-name", name, "--policy-arn", READ_ONLY)
    daemon.aws("iam", "delete-role-policy", "--role-name", name, "--policy-name", "artifacts")
    daemon.aws("iam", "delete-role", "--role-name", name)
    assert "NoSuchEntity" in daemon.aws_result("iam", "get-role", "--role-name", name).stderr


def test_a_role(iam, role):
    found = iam.get_role(RoleName=role)["Role"]
    assert (found["Description"], found["MaxSessionDuration"], found["Tags"]) == ("a role", 3600, [{"Key": "team", "Value": "blue"}])
    assert found["RoleId"].startswith("AROA") and found["AssumeRolePolicyDocument"] == json.loads(trust())
    iam.update_role(RoleName=role, MaxSessionDuration=7200)
    iam.update_assume_role_policy(RoleName=role, PolicyDocument=trust("123456789012"))
    found = iam.get_role(RoleName=role)["Role"]
    assert (found["Description"], found["MaxSessionDuration"]) == ("a role", 7200)
    assert found["AssumeRolePolicyDocument"] == json.loads(trust("123456789012"))
    iam.tag_role(RoleName=role, Tags=[{"Key": "stage", "Value": "test"}])
    iam.untag_role(RoleName=role, TagKeys=["team"])
    assert iam.list_role_tags(RoleName=role)["Tags"] == [{"Key": "stage", "Value": "test"}]
    assert iam.list_instance_profiles_for_role(RoleName=role)["InstanceProfiles"] == []
    refused(lambda: iam.create_role(RoleName=role, AssumeRolePolicyDocument=trust()), "EntityAlreadyExists", 409, f"Role with name {role} already exists.")
    iam.put_role_policy(RoleName=role, PolicyName="p", PolicyDocument=document(allow("s3:*")))
    refused(lambda: iam.delete_role(RoleName=role), "DeleteConflict", 409, "must delete policies first")


def test_a_user_and_its_keys(daemon, iam, user):
    found = iam.get_user(UserName=user)["User"]
    assert found["Arn"] == f"arn:aws:iam::{daemon.endpoint()['account']}:user/team/{user}" and found["UserId"].startswith("AIDA")
    keys = [iam.create_access_key(UserName=user)["AccessKey"] for _ in range(2)]
    refused(lambda: iam.create_access_key(UserName=user), "LimitExceeded", 409, "AccessKeysPerUser: 2")
    listed = iam.list_access_keys(UserName=user)["AccessKeyMetadata"]
    assert [key["AccessKeyId"] for key in listed] == [key["AccessKeyId"] for key in keys] and "SecretAccessKey" not in listed[0]
    sts = daemon.new_client("sts", aws_access_key_id=keys[0]["AccessKeyId"], aws_secret_access_key=keys[0]["SecretAccessKey"])
    identity = sts.get_caller_identity()
    assert (identity["Arn"], identity["UserId"]) == (found["Arn"], found["UserId"])
    iam.update_access_key(UserName=user, AccessKeyId=keys[0]["AccessKeyId"], Status="Inactive")
    refused(sts.get_caller_identity, "InvalidClientTokenId", 403)
    iam.update_access_key(UserName=user, AccessKeyId=keys[0]["AccessKeyId"], Status="Active")
    assert sts.get_caller_identity()["UserId"] == found["UserId"]
    refused(lambda: iam.delete_user(UserName=user), "DeleteConflict", 409, "must delete access keys first")
    iam.delete_access_key(UserName=user, AccessKeyId=keys[0]["AccessKeyId"])
    refused(sts.get_caller_identity, "InvalidClientTokenId", 403)
    iam.put_user_policy(UserName=user, PolicyName="p", PolicyDocument=document(allow("s3:*")))
    assert iam.list_user_policies(UserName=user)["PolicyNames"] == ["p"]
    assert iam.get_user_policy(UserName=user, PolicyName="p")["PolicyDocument"] == json.loads(document(allow("s3:*")))
    iam.delete_user_policy(UserName=user, PolicyName="p")
    refused(lambda: iam.get_user_policy(UserName=user, PolicyName="p"), "NoSuchEntity", 404, "user policy with name p cannot be found")


def test_a_managed_policy(iam, role, name):
    arn = iam.create_policy(PolicyName=name, PolicyDocument=document(allow("s3:GetObject")), Description="reads")["Policy"]["Arn"]
    second = iam.create_policy_version(PolicyArn=arn, PolicyDocument=document(allow("s3:*")), SetAsDefault=True)["PolicyVersion"]
    assert (second["VersionId"], second["IsDefaultVersion"]) == ("v2", True)
    assert iam.get_policy_version(PolicyArn=arn, VersionId="v1")["PolicyVersion"]["Document"] == json.loads(document(allow("s3:GetObject")))
    assert [version["VersionId"] for version in iam.list_policy_versions(PolicyArn=arn)["Versions"]] == ["v2", "v1"]
    iam.attach_role_policy(RoleName=role, PolicyArn=arn)
    policy = iam.get_policy(PolicyArn=arn)["Policy"]
    assert (policy["DefaultVersionId"], policy["AttachmentCount"], policy["Description"]) == ("v2", 1, "reads")
    assert arn in [policy["Arn"] for policy in iam.list_policies(Scope="Local", OnlyAttached=True)["Policies"]]
    refused(lambda: iam.delete_policy(PolicyArn=arn), "DeleteConflict", 409, "attached to entities")
    iam.detach_role_policy(RoleName=role, PolicyArn=arn)
    refused(lambda: iam.delete_policy(PolicyArn=arn), "DeleteConflict", 409, "more than one version")
    iam.set_default_policy_version(PolicyArn=arn, VersionId="v1")
    iam.delete_policy_version(PolicyArn=arn, VersionId="v2")
    iam.delete_policy(PolicyArn=arn)
    refused(lambda: iam.get_policy(PolicyArn=arn), "NoSuchEntity", 404, f"Policy {arn} was not found.")


def test_policies_of_aws(iam):
    names = {policy["PolicyName"] for policy in iam.list_policies(Scope="AWS")["Policies"]}
    assert {"AdministratorAccess", "AmazonS3ReadOnlyAccess", "CloudWatchLogsFullAccess", "AWSLambdaBasicExecutionRole"} <= names
    version = iam.get_policy_version(PolicyArn=READ_ONLY, VersionId="v1")["PolicyVersion"]
    assert "s3:Get*" in version["Document"]["Statement"][0]["Action"]
    refused(lambda: iam.delete_policy(PolicyArn=READ_ONLY), "AccessDenied", 403)


@pytest.mark.parametrize("call, code, words", [
    (lambda iam: iam.create_role(RoleName="x y", AssumeRolePolicyDocument=trust()), "ValidationError", "The specified value for roleName is invalid"),
    (lambda iam: iam.create_role(RoleName="x" * 65, AssumeRolePolicyDocument=trust()), "ValidationError", "length less than or equal to 64"),
    (lambda iam: iam.create_role(RoleName="x"), "ValidationError", "at 'assumeRolePolicyDocument' failed to satisfy constraint: Member must not be null"),
    (lambda iam: iam.create_role(RoleName="x", AssumeRolePolicyDocument="{"), "MalformedPolicyDocument", "Syntax errors in policy."),
    (lambda iam: iam.create_role(RoleName="x", AssumeRolePolicyDocument=document(allow("sts:AssumeRole"))), "MalformedPolicyDocument", "Has prohibited field Resource"),
    (lambda iam: iam.create_policy(PolicyName="x", PolicyDocument=document(allow("GetObject"))), "MalformedPolicyDocument", "prefaced by a vendor"),
    (lambda iam: iam.create_policy(PolicyName="x", PolicyDocument=document(allow("s3:*", "bucket"))), "MalformedPolicyDocument", "must be in ARN format"),
], ids=["name", "length", "missing", "json", "trust", "vendor", "resource"])
def test_bad_input(iam, call, code, words):
    refused(lambda: call(iam), code, 400, words)


def test_what_is_not_there(iam):
    missing = {"RoleName": "no-such-role"}
    for call in (lambda: iam.get_role(**missing), lambda: iam.delete_role(**missing), lambda: iam.list_role_policies(**missing),
                 lambda: iam.update_assume_role_policy(**missing, PolicyDocument=trust())):
        refused(call, "NoSuchEntity", 404, "The role with name no-such-role cannot be found.")
    refused(lambda: iam.get_user(UserName="no-such-user"), "NoSuchEntity", 404, "The user with name no-such-user cannot be found.")
    refused(lambda: iam.create_group(GroupName="g"), "InvalidAction", 400, "no groups")


def test_pages(iam, name):
    names = [f"{name}-{n}" for n in range(3)]
    for user in names:
        iam.create_user(UserName=user, Path=f"/{name}/")
    try:
        pages = list(iam.get_paginator("list_users").paginate(PathPrefix=f"/{name}/", PaginationConfig={"PageSize": 2}))
        assert [len(page["Users"]) for page in pages] == [2, 1]
        assert [user["UserName"] for page in pages for user in page["Users"]] == names
    finally:
        for user in names:
            iam.delete_user(UserName=user)


def test_documents_come_back_as_they_were(iam, role):
    """White space and escapes included: a tool that compares what it wrote must not see a change."""
    text = '{ "Version":"2012-10-17",\n"Statement" : [{"Effect":"Allow","Action":"s3:*","Resource":"arn:aws:s3:::b/${aws:username}/+&<>"}] }'
    iam.put_role_policy(RoleName=role, PolicyName="p", PolicyDocument=text)
    raw = {}
    client_events = iam.meta.events
    client_events.register_first("before-parse.iam.GetRolePolicy", lambda response_dict, **_: raw.update(response_dict))
    assert iam.get_role_policy(RoleName=role, PolicyName="p")["PolicyDocument"] == json.loads(text)
    encoded = raw["body"].decode().split("<PolicyDocument>")[1].split("</PolicyDocument>")[0]
    assert urllib.parse.unquote(encoded) == text
