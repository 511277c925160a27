"""What lambda-core's operations on network connectors declare: an answer and each error. Their constraints are in test_constraints.py, as every operation's."""
import uuid

import pytest

from conformance.connectors import active, creation, definition
from conformance.test_errors import refused


@pytest.fixture
def core(endpoint):
    return endpoint.client("lambda-core")


@pytest.fixture
def role(images):
    """What an operator of connectors would have; nothing asks more of it than to be there."""
    return images.role


@pytest.mark.answers("CreateNetworkConnector", "GetNetworkConnector", "ListNetworkConnectors", "UpdateNetworkConnector", "ListNetworkConnectorVersions",
                     "DeleteNetworkConnector")
def test_every_operation_answers(core, role):
    """What they answer is test_connectors.py's; here each answer is held against its shape."""
    request = creation(role, Tags={"team": "red"})
    created = core.create_network_connector(**request)
    active(core, created["Arn"])
    listed = [item for page in core.get_paginator("list_network_connectors").paginate(PaginationConfig={"PageSize": 1}) for item in page["NetworkConnectors"]]
    assert [item["Name"] for item in listed].count(request["Name"]) == 1
    core.update_network_connector(Identifier=request["Name"], ClientToken=uuid.uuid4().hex, **definition(role, NetworkProtocol="DualStack"))
    active(core, created["Arn"])
    versions = [version for page in core.get_paginator("list_network_connector_versions").paginate(Identifier=created["Id"], PaginationConfig={"PageSize": 1})
                for version in page["NetworkConnectorVersions"]]
    assert [version["Version"] for version in versions] == [2, 1]
    core.delete_network_connector(Identifier=created["Arn"])


class TestInvalidParameter:
    ERROR = "InvalidParameterValueException"

    @pytest.mark.provokes("CreateNetworkConnector", ERROR)
    def test_what_the_service_requires_though_the_model_does_not(self, caller, role):
        for name in ("SubnetIds", "NetworkProtocol", "AssociatedComputeResourceTypes"):
            request = creation(role)
            del request["Configuration"]["VpcEgressConfiguration"][name]
            refused(caller, "CreateNetworkConnector", self.ERROR, request)

    @pytest.mark.provokes("GetNetworkConnector", ERROR)
    @pytest.mark.provokes("UpdateNetworkConnector", ERROR)
    @pytest.mark.provokes("DeleteNetworkConnector", ERROR)
    def test_an_arn_that_is_none(self, caller):
        for operation in ("GetNetworkConnector", "UpdateNetworkConnector", "DeleteNetworkConnector"):
            refused(caller, operation, self.ERROR, {"Identifier": "arn:none"})

    @pytest.mark.provokes("ListNetworkConnectors", ERROR)
    @pytest.mark.provokes("ListNetworkConnectorVersions", ERROR)
    def test_a_marker_of_nothing(self, core, caller, role):
        refused(caller, "ListNetworkConnectors", self.ERROR, {"Marker": "none"})
        created = core.create_network_connector(**creation(role))
        refused(caller, "ListNetworkConnectorVersions", self.ERROR, {"Identifier": created["Id"], "Marker": "none"})
        active(core, created["Id"])
        core.delete_network_connector(Identifier=created["Id"])


class TestConflict:
    ERROR = "ResourceConflictException"

    @pytest.mark.provokes("CreateNetworkConnector", ERROR)
    @pytest.mark.provokes("UpdateNetworkConnector", ERROR)
    def test_names_and_client_tokens(self, core, caller, role):
        request = creation(role)
        created = core.create_network_connector(**request)
        refused(caller, "CreateNetworkConnector", self.ERROR, creation(role, request["Name"]))
        refused(caller, "CreateNetworkConnector", self.ERROR, request | definition(role, NetworkProtocol="DualStack"))
        active(core, created["Id"])
        update = {"Identifier": created["Id"], "ClientToken": uuid.uuid4().hex}
        core.update_network_connector(**update, **definition(role, NetworkProtocol="DualStack"))
        refused(caller, "UpdateNetworkConnector", self.ERROR, update | definition(role))
        active(core, created["Id"])
        core.delete_network_connector(Identifier=created["Id"])
