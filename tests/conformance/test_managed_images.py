"""The managed bases."""


def test_list_managed_microvm_images(endpoint):
    items = endpoint.aws("lambda-microvms", "list-managed-microvm-images")["items"]
    arns = [item["imageArn"] for item in items]
    region = endpoint.endpoint()["region"]
    assert f"arn:aws:lambda:{region}:aws:microvm-image:al2023-1" in arns, "the name clients use"
    assert len(arns) > 1, "and the base's own name"


def test_list_managed_microvm_image_versions(endpoint):
    for image in endpoint.aws("lambda-microvms", "list-managed-microvm-images")["items"]:
        answer = endpoint.aws("lambda-microvms", "list-managed-microvm-image-versions", "--image-identifier", image["imageArn"])
        assert answer["items"] and all(item["imageVersion"].isdigit() for item in answer["items"]), "bare integers"
        checked = endpoint.microvms.list_managed_microvm_image_versions(imageIdentifier=image["imageArn"])
        assert len(checked["items"]) == len(answer["items"])
