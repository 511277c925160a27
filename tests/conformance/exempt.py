"""What the models declare and no request can provoke, each with its reason. test_coverage.py refuses an entry that has a case."""

ANSWERS = {
    "CreateMicrovmShellAuthToken": "shells are not built yet; the answer says so (NotImplementedException)",
}

# (operation or *, error): reason
ERRORS = {
    ("*", "TooManyRequestsException"): "the operations on tags declare this beside ThrottlingException, which says the same and is answered",
    ("*", "ServiceException"): "the operations on tags declare this beside InternalServerException, which says the same and is answered",
    ("*", "InvalidParameterValueException"): "the operations on tags declare this beside ValidationException, which says the same and is answered",
    ("*", "ResourceConflictException"): "tags are written in one transaction, so no two requests of this kind can be in each other's way",
    ("DeleteMicrovmImage", "ConflictException"): "what keeps an image from being deleted is a ValidationException (observed)",
    ("TerminateMicrovm", "ConflictException"): "a MicroVM can be terminated in every state, and terminating a terminated one succeeds (documented)",
    ("ListMicrovms", "ResourceNotFoundException"): "a filter that no MicroVM passes gives an empty list, whether or not its image exists (ours)",
}


def error(operation, name):
    return ERRORS.get((operation, name)) or ERRORS.get(("*", name))


def constraint(kind, location):
    """Of a member in the path: it is in every request, and an empty one makes another path (test_an_empty_label_reaches_no_operation)."""
    if location == "uri" and kind in ("required", "min"):
        return "a path has no empty label"
    return None
