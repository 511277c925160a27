#!/usr/bin/env python3
"""What a request to the API costs, with few records and with many:  make bench SUITE=api

health                the daemon's own route without a signature or a record: the baseline of the same run
<operation>           milliseconds on one connection, with 10,000 MicroVMs and 1,000 images; list_* are pages of 50
<operation>.few       the same with 100 MicroVMs and 100 images, so that a page is as long
<what>.per_second     answers per second on four connections, likewise
auth_us               microseconds of signature and policies in one request (the daemon's own log); auth_us.user is a user's with a policy of its own
memory_*_kib          the daemon's, before there are records and after the requests above

The records are put into a stopped daemon's database (tests/support/seed.py). No guest is started. EMBERBOX_BENCH_REQUESTS (2000) changes how many requests.
"""
import os
import time

from common import load
from common.report import Progress, Report, Samples
from support.daemon import Daemon
from support.images import Images
from support.seed import Seed

REQUESTS = int(os.environ.get("EMBERBOX_BENCH_REQUESTS", 2000))
FEW, MANY = (100, 100), (1000, 10_000)
CONNECTIONS, SECONDS, ROUNDS = 4, 1.0, 5
# Every operation's requests name this many different records.
SUBJECTS = 100
MOST_SLOWER = 2
IMAGES_IN_USE = 2


class Bench:
    def __init__(self, daemon):
        self.daemon, self.samples = daemon, Samples()
        self.account = daemon.endpoint()["account"]
        self.images, self.microvms = [], []

    def template(self):
        """An image whose build fails at once, to be copied."""
        images = Images(self.daemon)
        image = images.create_from("template", f"s3://{images.bucket}/nothing-here.zip")
        image.ended()
        return image.arn

    def seed(self, arn, images, microvms):
        self.daemon.stop()
        with Seed(self.daemon, self.account) as seed:
            while len(self.images) < images:
                self.images.append(seed.copy_image(arn, f"seeded-{len(self.images):05}"))
            while len(self.microvms) < microvms:
                # Of a few images, so that a page of one image's is as long as one of all.
                self.microvms.append(seed.add_microvm(self.images[len(self.microvms) % IMAGES_IN_USE], len(self.microvms)))
        self.daemon.start()

    def requests(self):
        signed = load.Requests(self.daemon)
        every = lambda records: records[::max(1, len(records) // SUBJECTS)]  # noqa: E731
        page = {"maxResults": 50}
        return {
            "health": [signed.health()],
            "get_microvm": [signed.of("GetMicrovm", {"microvmIdentifier": microvm}) for microvm in every(self.microvms)],
            "get_microvm_image": [signed.of("GetMicrovmImage", {"imageIdentifier": image["arn"]}) for image in every(self.images)],
            "list_microvms": [signed.of("ListMicrovms", page)],
            "list_microvms_of_image": [signed.of("ListMicrovms", page | {"imageIdentifier": image["arn"], "imageVersion": "1.0"})
                                       for image in self.images[:IMAGES_IN_USE]],
            "list_microvm_images": [signed.of("ListMicrovmImages", page)],
            "list_microvm_images_by_name": [signed.of("ListMicrovmImages", page | {"nameFilter": "seeded-0000"})],
            "list_microvms_deep": [signed.of("ListMicrovms", page | {"nextToken": self.token_in_the_middle()})],
        }

    def token_in_the_middle(self):
        pages, token = len(self.microvms) // 50 // 2, None
        for _ in range(max(1, pages)):
            token = self.daemon.microvms.list_microvms(maxResults=50, **({"nextToken": token} if token else {}))["nextToken"]
        return token

    def measure(self, suffix):
        requests, address = self.requests(), load.Requests(self.daemon).address
        done = Progress(f"requests with {len(self.microvms)} MicroVMs and {len(self.images)} images", ROUNDS * len(requests))
        load.latencies(address, [request for named in requests.values() for request in named], 500)
        for _ in range(ROUNDS):
            # In turns, so that what else happens on the machine happens to all.
            for name, named in requests.items():
                self.samples[name + suffix] += load.latencies(address, named, REQUESTS // ROUNDS)
                self.samples[f"{name}{suffix}.per_second"].append(load.throughput(address, named, SECONDS, CONNECTIONS))
                done()

    def measure_authentication(self):
        for name, identity in (("auth_us", {}), ("auth_us.user", self.user())):
            signed, start = load.Requests(self.daemon, **identity), self.daemon.log.stat().st_size
            load.latencies(signed.address, [signed.of("GetMicrovm", {"microvmIdentifier": microvm}) for microvm in self.microvms[:SUBJECTS]], REQUESTS)
            time.sleep(0.5)
            self.samples[name] += [event["auth_us"] for event in self.daemon.events(start) if event.get("message") == "answered" and "auth_us" in event]

    def user(self):
        """A user who may read because a policy says so."""
        iam = self.daemon.client("iam")
        iam.create_user(UserName="reader")
        policy = ('{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["lambda:Get*", "lambda:List*"], "Resource": "*"},'
                  '{"Effect": "Deny", "Action": "lambda:*", "Resource": "arn:aws:lambda:*:*:microvm-image:secret-*"}]}')
        iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=policy)
        key = iam.create_access_key(UserName="reader")["AccessKey"]
        return {"key": key["AccessKeyId"], "secret": key["SecretAccessKey"]}

    def measure_memory(self, name):
        rollup = open(f"/proc/{self.daemon.process.pid}/smaps_rollup").read().splitlines()[1:]
        kib = {line.split(":")[0]: int(line.split()[1]) for line in rollup}
        self.samples[f"memory_rss_{name}_kib"].append(kib["Rss"])
        self.samples[f"memory_pss_{name}_kib"].append(kib["Pss"])


GETS = ("get_microvm", "get_microvm_image")
LISTS = ("list_microvms", "list_microvms_deep", "list_microvms_of_image", "list_microvm_images", "list_microvm_images_by_name")
RATIOS = [(name, f"{name}.few", MOST_SLOWER, "<=") for name in (*LISTS, *GETS)]
RATIOS += [(name, "health", None, "<=") for name in (*GETS, *LISTS)]
RATIOS += [(f"{name}.per_second", "health.per_second", None, ">=") for name in (*GETS, *LISTS)]
REPORT = Report("api", "milliseconds unless the name says otherwise", {"auth_us": 200, "auth_us.user": 200}, RATIOS)


def main():
    with Daemon().serving() as daemon:
        bench = Bench(daemon)
        bench.measure_memory("empty")
        arn = bench.template()
        for records, suffix in ((FEW, ".few"), (MANY, "")):
            bench.seed(arn, *records)
            bench.measure(suffix)
        bench.measure_authentication()
        bench.measure_memory("full")
        REPORT.write(bench.samples)


if __name__ == "__main__":
    main()
