"""Images: artifacts as zips, and builds of the probe that run side by side."""
import io
import subprocess
import uuid
import zipfile

from . import paths, roles
from .waiting import until

PORT = 8080
# The slowest machine is a busy two-core one without hardware virtualization.
BUILT_WITHIN = 300
ENDED = {"CREATED", "CREATE_FAILED", "UPDATED", "UPDATE_FAILED"}


def archive(files):
    """A zip of {name: content}; content is text, bytes or a path."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in files.items():
            info = zipfile.ZipInfo(name, (2025, 1, 1, 0, 0, 0))
            info.external_attr, info.compress_type = 0o100755 << 16, zipfile.ZIP_DEFLATED
            target.writestr(info, content.read_bytes() if hasattr(content, "read_bytes") else content)
    return buffer.getvalue()


def hooks(image=("ready",), microvm=(), timeout=20, **timeouts):
    """The `hooks` member; a timeout of its own for a hook by name, as `run=2`."""
    def group(names):
        return {name: "ENABLED" for name in names} | {f"{name}TimeoutInSeconds": timeouts.get(name, timeout) for name in names}
    return {"port": PORT, "microvmImageHooks": group(image), "microvmHooks": group(microvm)}


PROBE_DOCKERFILE = 'FROM scratch\nCOPY emberbox-probe /probe\nENTRYPOINT ["/probe"]\n'


class Images:
    """Makes images on one daemon. Builds begin at once and are waited for when they are needed."""

    def __init__(self, daemon):
        self.daemon, self.bucket = daemon, f"artifacts-{uuid.uuid4().hex[:8]}"
        self.role = roles.builder(daemon)
        daemon.client("s3").create_bucket(Bucket=self.bucket)

    def upload(self, body, key=None):
        key = key or f"{uuid.uuid4().hex}.zip"
        self.daemon.client("s3").put_object(Bucket=self.bucket, Key=key, Body=body)
        return f"s3://{self.bucket}/{key}"

    def managed(self):
        return self.daemon.microvms.list_managed_microvm_images()["items"][0]["imageArn"]

    def definition(self, uri, **members):
        return {"baseImageArn": self.managed(), "buildRoleArn": self.role, "codeArtifact": {"uri": uri},
                "resources": [{"minimumMemoryInMiB": 512}]} | members

    def create(self, name, files, **members):
        """Begins a build of {name in the zip: content}, or of the zip itself."""
        uri = self.upload(files if isinstance(files, bytes) else archive(files))
        return self.create_from(name, uri, **members)

    def create_from(self, name, uri, **members):
        name = f"{name}-{uuid.uuid4().hex[:6]}"
        answer = self.daemon.microvms.create_microvm_image(name=name, **self.definition(uri, **members))
        return Image(self.daemon, answer["imageArn"], answer["imageVersion"], answer)

    def probe(self, name, environment=None, dockerfile=PROBE_DOCKERFILE, **members):
        files = {"Dockerfile": dockerfile, "emberbox-probe": paths.require(paths.PROBE, "run `make build`")}
        members = {"hooks": hooks()} | members
        return self.create(name, files, environmentVariables=environment or {}, **members)


class Image:
    def __init__(self, daemon, arn, version, answer):
        self.daemon, self.arn, self.version, self.answer = daemon, arn, version, answer

    def describe(self):
        return self.daemon.microvms.get_microvm_image(imageIdentifier=self.arn)

    def ended(self):
        """Waits for the build to end and returns the image."""
        def image():
            found = self.describe()
            return found if found["state"] in ENDED else None
        return until(f"the build of {self.arn}", image, BUILT_WITHIN, 0.2)

    def built(self):
        """Waits for the build to succeed."""
        state = self.ended()["state"]
        assert state in ("CREATED", "UPDATED"), f"{self.arn} is {state}: {self.build().get('stateReason')}"
        return self

    def build(self):
        client = self.daemon.microvms
        [item] = client.list_microvm_image_builds(imageIdentifier=self.arn, imageVersion=self.version)["items"]
        return client.get_microvm_image_build(imageIdentifier=self.arn, imageVersion=self.version, buildId=item["buildId"])

    def logs(self):
        """What its builds have said so far, a text for each."""
        emberbox = [paths.EMBERBOX, "logs", "--data", self.daemon.data, f"/aws/lambda-microvms/{self.arn.rpartition(':')[2]}"]
        streams = subprocess.run(emberbox, capture_output=True, text=True).stdout.splitlines()
        return [subprocess.run([*emberbox, stream], capture_output=True, text=True, check=True).stdout for stream in streams]

    def failure(self):
        """Waits for the build to fail, checks that every record says so, and returns the reason."""
        assert self.ended()["state"] == "CREATE_FAILED", "the build succeeded"
        version = self.daemon.microvms.get_microvm_image_version(imageIdentifier=self.arn, imageVersion=self.version)
        build = self.build()
        assert (version["state"], version["status"], build["buildState"]) == ("FAILED", "INACTIVE", "FAILED")
        assert version["stateReason"] == build["stateReason"]
        return build["stateReason"]

    def delete(self):
        self.daemon.microvms.delete_microvm_image(imageIdentifier=self.arn)
