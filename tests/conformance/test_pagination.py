"""Listings page by page: every item once, in one order, whatever the size of a page; tokens are of their listing alone."""
import contextlib
import uuid

import pytest
from botocore.exceptions import ClientError


IMAGES = 5


@pytest.fixture(scope="module")
def prefix(endpoint, images):
    """Images whose builds fail at once, found by the prefix of their names."""
    client, prefix = endpoint.microvms, f"pages-{uuid.uuid4().hex[:8]}"
    for number in range(IMAGES):
        client.create_microvm_image(name=f"{prefix}-{number}", baseImageArn=images.managed(), buildRoleArn=images.role,
                                    codeArtifact={"uri": f"s3://{images.bucket}/nothing-here.zip"})
    yield prefix
    for item in client.list_microvm_images(nameFilter=prefix)["items"]:
        # It may still be being built.
        with contextlib.suppress(client.exceptions.ValidationException):
            client.delete_microvm_image(imageIdentifier=item["imageArn"])


@pytest.mark.parametrize("size", [1, 2, 3, IMAGES, 50])
def test_pages(endpoint, prefix, size):
    paginator = endpoint.microvms.get_paginator("list_microvm_images")
    pages = list(paginator.paginate(nameFilter=prefix, PaginationConfig={"PageSize": size}))
    names = [item["name"] for page in pages for item in page["items"]]
    assert names == [f"{prefix}-{number}" for number in reversed(range(IMAGES))]
    assert all(len(page["items"]) <= size for page in pages)
    assert len(pages) == -(-IMAGES // size), "the last page says that it is the last"


def test_a_token_is_of_one_listing(endpoint, prefix):
    client = endpoint.microvms
    token = client.list_microvm_images(nameFilter=prefix, maxResults=1)["nextToken"]
    others = [lambda: client.list_microvm_images(nextToken=token), lambda: client.list_microvm_images(nameFilter="other", nextToken=token),
              lambda: client.list_microvms(nextToken=token), lambda: client.list_managed_microvm_images(nextToken=token),
              lambda: client.list_microvm_images(nameFilter=prefix, nextToken=token[:-2] + ("AA" if token[-2:] != "AA" else "BB")),
              lambda: client.list_microvm_images(nameFilter=prefix, nextToken="x")]
    for other in others:
        with pytest.raises(ClientError) as error:
            other()
        assert error.value.response["Error"]["Code"] == "ValidationException"
    assert client.list_microvm_images(nameFilter=prefix, nextToken=token, maxResults=50)["items"][0]["name"] == f"{prefix}-{IMAGES - 2}"
