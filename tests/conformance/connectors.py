"""Requests that make and change network connectors."""
import uuid

from support.waiting import until


def definition(role, **members):
    egress = {"SubnetIds": ["subnet-0123456789abcdef0"], "SecurityGroupIds": ["sg-0123456789abcdef0"], "NetworkProtocol": "IPv4",
              "AssociatedComputeResourceTypes": ["MicroVm"]}
    return {"Configuration": {"VpcEgressConfiguration": egress | members}, "OperatorRole": role}


def creation(role, name=None, **members):
    return {"Name": name or f"conformance-{uuid.uuid4().hex[:8]}", "ClientToken": uuid.uuid4().hex} | definition(role) | members


def active(core, identifier):
    def settled():
        found = core.get_network_connector(Identifier=identifier)
        return found if (found["State"], found.get("LastUpdateStatus", "Successful")) == ("ACTIVE", "Successful") else None
    return until(f"{identifier} is ACTIVE", settled, 30)
