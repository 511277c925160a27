"""The service models botocore ships: the oracle of the conformance suite. Nothing in the suites repeats a limit, a shape or a list of operations."""
import functools

from botocore.loaders import Loader
from botocore.model import ServiceModel

VERSIONS = {"lambda-microvms": "2025-09-09", "lambda-core": "2026-04-30"}


@functools.cache
def document(service):
    """The model as the JSON it is."""
    return Loader().load_service_model(service, "service-2", VERSIONS[service])


@functools.cache
def service(name):
    return ServiceModel(document(name), name)


def serves(name):
    """lambda-core also has Lambda's runtimes, which are not MicroVMs' affair."""
    return "Runtime" not in name


@functools.cache
def names(service_name):
    return tuple(name for name in document(service_name)["operations"] if serves(name))


@functools.cache
def operations():
    """{name: botocore's OperationModel} of everything Emberbox serves; no name occurs in both services."""
    found = {}
    for name in VERSIONS:
        for operation in names(name):
            assert operation not in found, operation
            found[operation] = service(name).operation_model(operation)
    return found


def service_of(operation):
    return next(name for name in VERSIONS if operation in names(name))


def declared_errors(operation):
    return [shape.name for shape in operations()[operation].error_shapes]


def location(member):
    return member.serialization.get("location", "body")


def wire_name(name, member):
    return member.serialization.get("name", name)
