"""The managed bases."""


def test_list_managed_microvm_images(daemon):
    items = daemon.aws("lambda-microvms", "list-managed-microvm-images")["items"]
    arns = [item["imageArn"] for item in items]
    region = daemon.endpoint()["region"]
    assert f"arn:aws:lambda:{region}:aws:microvm-image:al2023-1" in arns, "the name clients use"
    assert len(arns) > 1, "and the base's own name"


def test_list_managed_microvm_image_versions(daemon):
    for image in daemon.aws("lambda-microvms", "list-managed-microvm-images")["items"]:
        answer = daemon.aws("lambda-microvms", "list-managed-microvm-image-versions", "--image-identifier", image["imageArn"])
        assert answer["items"] and all(item["imageVersion"].isdigit() for item in answer["items"]), "bare integers"
        checked = daemon.microvms.list_managed_microvm_image_versions(imageIdentifier=image["imageArn"])
        assert len(checked["items"]) == len(answer["items"])
