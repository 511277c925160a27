"""An image registry (OCI distribution, pull only) over plain HTTP:  registry.py <port> <user:password> <access log> <directory>

`<directory>` has one file for each file of the images' only layer. Every repository and tag is that image; credentials are asked for.
"""
import base64
import gzip
import hashlib
import http.server
import io
import json
import sys
import tarfile
from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def layer(directory):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(Path(directory).iterdir()):
            info = tarfile.TarInfo(path.name)
            info.size, info.mode = path.stat().st_size, 0o755
            archive.addfile(info, path.open("rb"))
    return buffer.getvalue()


def image(directory):
    """({digest: blob}, manifest)."""
    plain = layer(directory)
    packed = gzip.compress(plain, mtime=0)
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Entrypoint": ["/probe"]},
                         "rootfs": {"type": "layers", "diff_ids": [digest(plain)]}}).encode()
    describe = lambda kind, blob: {"mediaType": f"application/vnd.oci.image.{kind}", "digest": digest(blob), "size": len(blob)}  # noqa: E731
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": describe("config.v1+json", config), "layers": [describe("layer.v1.tar+gzip", packed)]}
    manifest = json.dumps(manifest).encode()
    return {digest(blob): blob for blob in (config, packed, manifest)}, manifest


def digest(blob):
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def handler(blobs, manifest, credentials, log):
    expected = "Basic " + base64.b64encode(credentials.encode()).decode()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            known = self.headers.get("Authorization") == expected
            log.write(f"{'known' if known else 'unknown'} {self.path}\n")
            log.flush()
            if not known:
                return self.answer(401, b"", "text/plain", ("WWW-Authenticate", 'Basic realm="registry"'))
            kind, _, name = self.path.rpartition("/")
            if self.path.rstrip("/") == "/v2":
                return self.answer(200, b"{}", "application/json")
            body = manifest if kind.endswith("/manifests") else blobs.get(name)
            self.answer(200 if body else 404, body or b"", MANIFEST if body is manifest else "application/octet-stream")

        do_HEAD = do_GET

        def answer(self, status, body, kind, *headers):
            self.send_response(status)
            for header in [("Content-Type", kind), ("Content-Length", str(len(body))), ("Docker-Content-Digest", digest(body)), *headers]:
                self.send_header(*header)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    return Handler


if __name__ == "__main__":
    port, credentials, log, directory = sys.argv[1:]
    with open(log, "a") as log, http.server.ThreadingHTTPServer(("0.0.0.0", int(port)), handler(*image(directory), credentials, log)) as server:
        print("ready", flush=True)
        server.serve_forever()
