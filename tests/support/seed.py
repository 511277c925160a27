"""Records put straight into the database of a daemon that is stopped: the API would take hours, and guests, to make ten thousand MicroVMs.

What an image is comes from a real one, made by the API and copied; a MicroVM's row is written out here. They are TERMINATED, so that a daemon that starts has
nothing to adopt: what a listing reads is the same.
"""
import json
import sqlite3
import time
import uuid


class Seed:
    def __init__(self, daemon, account):
        assert daemon.process.poll() is not None, "the daemon is stopped"
        self.connection, self.account = sqlite3.connect(daemon.data / "emberbox.db"), account
        self.connection.row_factory = sqlite3.Row

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.commit()
        self.connection.close()

    def rows(self, table, **where):
        condition = " AND ".join(f"{name} = ?" for name in where)
        return [dict(row) for row in self.connection.execute(f"SELECT * FROM {table} WHERE {condition}", tuple(where.values()))]

    def insert(self, table, row):
        row = {name: value for name, value in row.items() if name != "seq"}
        self.connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))

    def copy_image(self, arn, name):
        """A built image like another one, whose build may have failed."""
        [image] = self.rows("images", arn=arn)
        copy = image | {"id": str(uuid.uuid4()), "name": name, "arn": arn.rsplit(":", 1)[0] + f":{name}", "state": "CREATED"}
        self.insert("images", copy)
        for version in self.rows("image_versions", image=image["id"]):
            key = f"{copy['id']}-{version['major']}"
            self.insert("image_versions", version | {"image": copy["id"], "image_key": key, "state": "SUCCESSFUL", "status": "ACTIVE", "state_reason": None})
        for build in self.rows("builds", image=image["id"]):
            self.insert("builds", build | {"id": str(uuid.uuid4()), "image": copy["id"], "state": "SUCCESSFUL", "state_reason": None})
        return copy

    def add_microvm(self, image, number):
        """A MicroVM that has been terminated. Returns its id."""
        now, microvm = int(time.time() * 1000), f"microvm-{uuid.uuid4()}"
        connector = "arn:aws:lambda:us-east-1:aws:network-connector:aws-network-connector"
        settings = {"ingress_network_connectors": [f"{connector}:HTTP_INGRESS"], "egress_network_connectors": [f"{connector}:INTERNET_EGRESS"],
                    "execution_role_arn": None, "logging": None, "maximum_duration_in_seconds": 28800, "hooks": {},
                    "idle_policy": {"maxIdleDurationSeconds": 600, "suspendedDurationSeconds": 600, "autoResumeEnabled": True}}
        self.insert("microvms", {
            "id": microvm, "account": self.account, "endpoint": str(uuid.uuid4()),
            "address": f"127.{10 + number // 60000}.{number // 250 % 240}.{number % 250 + 1}",
            "image": image["id"], "image_arn": image["arn"], "major": 1, "minor": 0, "image_key": f"{image['id']}-1", "phase": "TERMINATED",
            "settings": json.dumps(settings), "timings": "{}", "started_at": now, "phase_since": now, "terminated_at": now})
        return microvm
