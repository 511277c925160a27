"""What the models declare and no request can provoke, each with its reason. test_coverage.py refuses an entry that has a case."""

ANSWERS = {
    "CreateMicrovmShellAuthToken": "shells are not built yet; the answer says so (NotImplementedException)",
}

# (operation, error): reason
ERRORS = {
    ("DeleteMicrovmImage", "ConflictException"): "what keeps an image from being deleted is a ValidationException (observed)",
    ("TerminateMicrovm", "ConflictException"): "a MicroVM can be terminated in every state, and terminating a terminated one succeeds (documented)",
    ("ListMicrovms", "ResourceNotFoundException"): "a filter that no MicroVM passes gives an empty list, whether or not its image exists (ours)",
    ("TagResource", "ResourceConflictException"): "tags are written in one transaction, so no two requests can be in each other's way",
    ("UntagResource", "ResourceConflictException"): "tags are written in one transaction, so no two requests can be in each other's way",
}
# The operations on tags declare two names of some errors, of this service and of Lambda's older API; one of them is answered.
ERRORS |= {(operation, older): f"the operation declares it beside {newer}, which says the same and is answered"
           for operation in ("TagResource", "UntagResource", "ListTags")
           for older, newer in (("TooManyRequestsException", "ThrottlingException"), ("ServiceException", "InternalServerException"),
                                ("InvalidParameterValueException", "ValidationException"))}


def error(operation, name):
    return ERRORS.get((operation, name))


def constraint(kind, location):
    """Of a member in the path: it is in every request, and an empty one makes another path (test_an_empty_label_reaches_no_operation)."""
    if location == "uri" and kind in ("required", "min"):
        return "a path has no empty label"
    return None
