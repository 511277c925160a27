"""Network connectors of customers (lambda-core) with the stock CLI and boto3: records with versions, and nothing that goes through one."""
import os

import pytest
from botocore.exceptions import ClientError

from support.waiting import until

CONFIGURATION = {"VpcEgressConfiguration": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"], "NetworkProtocol": "IPv4",
                                            "AssociatedComputeResourceTypes": ["MicroVm"]}}


@pytest.fixture
def core(daemon):
    return daemon.client("lambda-core")


@pytest.fixture
def connector(daemon, core):
    """A connector that is ACTIVE."""
    name = f"net-{os.urandom(4).hex()}"
    role = f"arn:aws:iam::{daemon.endpoint()['account']}:role/operator"
    created = core.create_network_connector(Name=name, Configuration=CONFIGURATION, OperatorRole=role, Tags={"k": "v"})
    assert created["State"] == "PENDING"
    until("the connector is ACTIVE", lambda: core.get_network_connector(Identifier=name)["State"] == "ACTIVE", 10)
    yield created
    core.delete_network_connector(Identifier=created["Arn"])


def refusal(call, **members):
    with pytest.raises(ClientError) as error:
        call(**members)
    response = error.value.response
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Message"]


def test_with_the_cli(daemon, connector):
    found = daemon.aws("lambda-core", "get-network-connector", "--identifier", connector["Name"])
    assert (found["Arn"], found["Configuration"]) == (connector["Arn"], CONFIGURATION)
    listed = daemon.aws("lambda-core", "list-network-connectors", "--state", "ACTIVE")["NetworkConnectors"]
    assert connector["Arn"] in [item["Arn"] for item in listed]
    assert daemon.aws("lambda-core", "list-network-connectors", "--state", "DELETE_FAILED")["NetworkConnectors"] == []


def test_by_id_name_and_arn(core, connector):
    for identifier in (connector["Id"], connector["Name"], connector["Arn"]):
        found = core.get_network_connector(Identifier=identifier)
        assert (found["Id"], found["LatestVersion"]) == (connector["Id"], 1)
        assert "LastUpdateStatus" not in found and "VersionArn" not in found
    version = core.get_network_connector(Identifier=f"{connector['Arn']}:1")
    assert version["VersionArn"] == f"{connector['Arn']}:1" and "LatestVersion" not in version


def test_an_update_is_a_version(core, connector):
    changed = {"VpcEgressConfiguration": CONFIGURATION["VpcEgressConfiguration"] | {"SubnetIds": ["subnet-2", "subnet-3"]}}
    updated = core.update_network_connector(Identifier=connector["Name"], Configuration=changed)
    assert (updated["Version"], updated["LastUpdateStatus"]) == (2, "InProgress")
    until("the update is Successful", lambda: core.get_network_connector(Identifier=connector["Id"]).get("LastUpdateStatus") == "Successful", 10)
    versions = core.list_network_connector_versions(Identifier=connector["Name"])["NetworkConnectorVersions"]
    assert [version["Version"] for version in versions] == [2, 1]
    assert core.get_network_connector(Identifier=f"{connector['Arn']}:1")["Configuration"] == CONFIGURATION
    assert refusal(core.delete_network_connector, Identifier=f"{connector['Arn']}:2")[:2] == ("InvalidParameterValueException", 400)
    core.delete_network_connector(Identifier=f"{connector['Arn']}:1")


def test_deleting_twice_succeeds_and_then_it_is_gone(daemon, core):
    role = f"arn:aws:iam::{daemon.endpoint()['account']}:role/operator"
    name = f"gone-{os.urandom(4).hex()}"
    arn = core.create_network_connector(Name=name, Configuration=CONFIGURATION, OperatorRole=role)["Arn"]
    until("it is ACTIVE", lambda: core.get_network_connector(Identifier=arn)["State"] == "ACTIVE", 10)
    for _ in range(2):
        assert core.delete_network_connector(Identifier=arn)["State"] == "DELETING"

    def gone():
        try:
            core.get_network_connector(Identifier=arn)
        except ClientError as error:
            return error.response["Error"]["Code"] == "ResourceNotFoundException"
    until("it is gone", gone, 10)
    code, status, message = refusal(core.get_network_connector, Identifier=name)
    assert (code, status) == ("ResourceNotFoundException", 404)
    assert message == f"Network connector not found for: {arn.rsplit(':', 1)[0]}:{name}"


def test_what_the_service_requires_though_the_model_does_not(core):
    code, status, message = refusal(core.create_network_connector, Name="x", Configuration=CONFIGURATION)
    assert (code, status, message) == ("InvalidParameterValueException", 400, "NetworkConnectorOperatorRole is required for VPC_EGRESS connector type")


def test_constraints_are_told_in_camel_case(core):
    wrong = {"VpcEgressConfiguration": CONFIGURATION["VpcEgressConfiguration"] | {"SubnetIds": ["subnet-1"] * 17}}
    code, status, message = refusal(core.create_network_connector, Name="x", Configuration=wrong)
    assert (code, status) == ("ValidationException", 400)
    assert "at 'configuration.vpcEgressConfiguration.subnetIds' failed to satisfy constraint: Member must have length less than or equal to 16" in message


def test_a_token_replays(daemon, core):
    role = f"arn:aws:iam::{daemon.endpoint()['account']}:role/operator"
    members = {"Name": f"again-{os.urandom(4).hex()}", "Configuration": CONFIGURATION, "OperatorRole": role, "ClientToken": os.urandom(8).hex()}
    first = core.create_network_connector(**members)
    again = core.create_network_connector(**members)
    assert {name: first[name] for name in ("Arn", "Version", "State")} == {name: again[name] for name in ("Arn", "Version", "State")}
    assert refusal(core.create_network_connector, **(members | {"Name": "other"}))[:2] == ("ResourceConflictException", 409)
    until("it is ACTIVE", lambda: core.get_network_connector(Identifier=first["Arn"])["State"] == "ACTIVE", 10)
    core.delete_network_connector(Identifier=first["Arn"])


def test_tags(daemon, connector):
    client = daemon.microvms
    client.tag_resource(Resource=connector["Arn"], Tags={"a": "b"})
    client.untag_resource(Resource=connector["Arn"], TagKeys=["k"])
    assert client.list_tags(Resource=connector["Arn"])["Tags"] == {"a": "b"}
    assert refusal(client.tag_resource, Resource=connector["Arn"], Tags={"aws:x": "y"})[:2] == ("ValidationException", 400)


def test_nothing_goes_through_one_and_nothing_goes_around_it(daemon, caller, connector):
    """Refused with the reason, never with open egress in its place. What is not built is no error of the model's."""
    image = f"arn:aws:lambda:{daemon.endpoint()['region']}:{daemon.endpoint()['account']}:microvm-image:none"
    answer = caller.send_to("RunMicrovm", {"imageIdentifier": image, "egressNetworkConnectors": [connector["Arn"]]})
    assert (answer.error, answer.status) == ("NotImplementedException", 501) and connector["Arn"] in answer.message
    absent = f"{connector['Arn'].rsplit(':', 1)[0]}:nc-00000000-0000-4000-8000-000000000000"
    answer = caller.send_to("RunMicrovm", {"imageIdentifier": image, "egressNetworkConnectors": [absent]})
    assert (answer.error, answer.status) == ("ResourceNotFoundException", 404)


def test_lambdas_runtimes_are_not_served(caller):
    answer = caller.send("GET", "/2026-10-01/runtimes")
    assert (answer.error, answer.status) == ("NotImplementedException", 501)
