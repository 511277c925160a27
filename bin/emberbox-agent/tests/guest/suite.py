#!/usr/bin/env python3
"""Drives emberbox-agent in a real guest through every request. Needs root, QEMU and a tap device; no KVM.

    suite.py --kernel vmlinuz --initramfs initramfs --root rootfs-directory [--work directory]

The initramfs holds the agent as /init (guest/build makes both); the root directory is any Debian-like tree with python3.
"""
import argparse, base64, json, os, shutil, socket, tempfile, time, uuid
from machine import Machine, enter_network, sh

HERE = os.path.dirname(os.path.abspath(__file__))


def disk(work, name, tree, megabytes):
    path = f"{work}/{name}.ext4"
    sh(f"truncate -s {megabytes}M {path} && mke2fs -q -F -t ext4 -d {tree} {path}")
    return path


def application(**changes):
    base = {"root_disk": "root", "argv": ["python3", "-u", "/application.py"], "environment": {"COLOUR": "blue"}, "working_directory": "/made/up",
            "user": "", "capabilities": "restricted", "host_name": "image-build", "extra_ca_pem": ""}
    return {"start_application": base | changes}


def restored(hook=None, identity=None, clock=None):
    return {"restored": {"wall_clock_ns": int((clock or time.time()) * 1e9), "entropy": base64.b64encode(os.urandom(64)).decode(),
                         "identity": identity, "hook": hook}}


def identity(name):
    return {"microvm_id": name, "host_name": name, "boot_id": str(uuid.uuid4())}


def run_hook(body="{}"):
    return {"port": 8080, "path": "/aws/lambda-microvms/runtime/v1/run", "body": body, "timeout_ms": 20000, "retry": "never"}


class Timer:
    def __init__(self, name):
        self.name = name

    def __enter__(self):
        self.start = time.time()

    def __exit__(self, *_):
        print(f"    {self.name}: {(time.time() - self.start) * 1000:.0f} ms", flush=True)


def boot(context, **options):
    machine = Machine(context.work, context.kernel, context.initramfs, context.disks, **options)
    with Timer("process start to the agent's first answer"):
        assert machine.ask("ping") == "done"
    return machine


def refusals(context):
    machine = boot(context)
    expect_failure = lambda words, **changes: check_failure(machine.ask(application(**changes)), words)
    expect_failure('exec: "foo": executable file not found in $PATH', argv=["foo"])
    expect_failure("stat /foo: no such file or directory", argv=["/foo"])
    expect_failure("permission denied", argv=["/etc/passwd"])
    expect_failure("no command", argv=[])
    expect_failure("unable to find user nobodyhere", user="nobodyhere")
    expect_failure("no disk with serial nodisk", root_disk="nodisk")
    expect_failure("working directory", working_directory="/etc/passwd/x")
    raw = socket.create_connection(("169.254.169.250", 61001))
    raw.sendall(b'{"generation":99,"request":"ping"}\n')
    check_failure(json.loads(raw.makefile().readline()), "generation 99")
    raw = socket.create_connection(("169.254.169.250", 61001))
    raw.sendall(b"nonsense\n")
    check_failure(json.loads(raw.makefile().readline()), "not understood")
    other = socket.socket()
    other.bind(("169.254.169.254", 0))
    other.settimeout(5)
    other.connect(("169.254.169.250", 61001))
    assert other.recv(1) == b"", "a peer other than the host was served"
    assert machine.ask(application()) == "done"
    check_failure(machine.ask(application()), "already")
    power_off(machine)


def check_failure(reply, words):
    assert words in reply["failed"]["reason"], reply
    print("    refused:", reply["failed"]["reason"])


def power_off(machine):
    with Timer("PowerOff to the process's end"):
        assert machine.ask("power_off") == "done"
        machine.process.wait(timeout=20)


def restricted_container(context):
    machine = boot(context)
    with Timer("StartApplication"):
        assert machine.ask(application(extra_ca_pem="-----EXTRA-----\n", environment={"COLOUR": "blue", "PIP_CERT": "/mine"})) == "done"
    ready(machine)
    assert machine.hook("large")["answered"]["body"] == "y" * 1024
    assert machine.hook("slow", timeout_ms=500) == "timed_out"
    assert "nothing listens on port 81" in machine.hook("x", port=81)["unreachable"]["reason"]
    assert machine.hook("view", port=9090)["answered"]["status"] == 200, "IPv6 loopback"
    status, body = machine.get("/view")
    view = json.loads(body)
    for key, value in view.items():
        if key != "mounts":
            print(f"    {key}: {value}")
    assert view["pid"] == 1 and view["uid"] == 0 and view["cwd"] == "/made/up" and view["hostname"] == "image-build"
    assert view["environment"]["COLOUR"] == "blue" and view["environment"]["HOME"] == "/root" and view["environment"]["PATH"]
    assert view["environment"]["PIP_CERT"] == "/mine" and view["environment"]["SSL_CERT_FILE"] == "/run/emberbox/ca.pem" and view["ca"] > 1000
    assert view["resolv"] == "nameserver 169.254.169.253\n" and view["cgroup"] == "0::/" and view["oom"] == "0"
    assert any(line.split() == ["CapEff:", "00000000a80425fb"] for line in view["status"]), view["status"]
    assert view["mount"] == view["sethostname"] == "Operation not permitted"
    assert "Read-only" in view["sysctl"] and "Read-only" in view["sysrq"], view
    assert not any(name.startswith("vd") for name in view["dev"]) and view["fds"] == ["0", "1", "2", "3", "4", "5", "6", "7"][:len(view["fds"])]
    assert machine.ask({"relay": {"port": 81}}).get("refused")
    half_close(machine)
    assert machine.hook("orphan")["answered"]["status"] == 200
    logs(machine)
    freeze_and_thaw(machine)
    ended_application(machine)
    power_off(machine)


def ready(machine):
    with Timer("CallHook ready, the application's start included"):
        outcome = machine.hook("ready", retry="until_ready", timeout_ms=60000)
    if outcome != {"answered": {"status": 200, "body": "ok"}}:
        print([reply for reply in machine.replies({"follow_logs": {"after": 0}})])
        raise AssertionError(outcome)


def half_close(machine):
    """Two hundred requests through one relay, and one more after the host has said all it has to say."""
    link = machine.open({"relay": {"port": 8080}})
    stream = link.makefile("rb")
    assert json.loads(stream.readline()) == "connected"
    link.sendall(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n" * 200 + b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    link.shutdown(socket.SHUT_WR)
    answers = stream.read()
    assert answers.count(b"HTTP/1.1 200") == 201 and answers.endswith(b"y" * 100000), len(answers)


def logs(machine):
    lines = []
    follower = machine.replies({"follow_logs": {"after": 0}})
    for reply in follower:
        lines.append(reply["log"])
        if len(lines) >= 3:
            break
    follower.close()
    texts = [line["text"] for line in lines]
    assert {"application starts", "a warning", "through /dev/stdout"} <= set(texts), texts
    with Timer("flood of 100000 lines"):
        assert machine.hook("flood", timeout_ms=60000)["answered"]["status"] == 200
    with Timer("ping during nothing"):
        assert machine.ask("ping") == "done"
    time.sleep(0.5)
    sequences, last = [], ""
    for reply in machine.replies({"follow_logs": {"after": 0}}):
        sequences.append(reply["log"]["sequence"])
        last = reply["log"]["text"]
        if len(sequences) == 1:
            assert "lines of output were lost" in last, last
        if last == "flood 99999":
            break
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
    print(f"    kept {len(sequences)} lines, the last is {last!r}")


def freeze_and_thaw(machine):
    follower = machine.open({"follow_logs": {"after": 10**9}})
    with Timer("Freeze"):
        assert machine.ask("freeze") == "done"
    follower.settimeout(5)
    assert follower.recv(100) == b"", "a connection outlived the freeze"
    assert machine.hook("x", timeout_ms=300) == "timed_out"
    check_failure(machine.ask({"restored": restored()["restored"] | {"entropy": ""}}), "reseeding")
    assert machine.hook("x", timeout_ms=300) == "timed_out", "thawed without fresh randomness"
    assert machine.ask("thaw") == "done"
    assert machine.hook("x")["answered"]["status"] == 200


def ended_application(machine):
    ended = machine.hook("die")
    assert ended == {"application_exited": {"code": 7}}, ended
    assert machine.hook("x") == {"application_exited": {"code": 7}}
    replies = list(machine.replies({"follow_logs": {"after": 0}}))
    assert replies[-1] == {"exited": {"code": 7}} and replies[-2]["log"]["text"] == "last words without a line end"
    assert machine.ask("freeze") == "done"


def privileged_user(context):
    machine = boot(context)
    with Timer("StartApplication"):
        assert machine.ask(application(capabilities="all", user="tester", working_directory="")) == "done"
    ready(machine)
    view = json.loads(machine.get("/view")[1])
    assert (view["uid"], view["gid"], view["groups"]) == (1234, 1235, [29]) and view["environment"]["HOME"] == "/home/tester"
    assert view["cwd"] == "/" and "vda" in view["dev"] and {"fuse", "net"} <= set(view["dev"]), view["dev"]
    assert any(line.split() == ["CapEff:", "0" * 16] for line in view["status"])
    assert any(line.split()[0] == "CapBnd:" and line.split()[1].endswith("1ffffffffff") for line in view["status"]), view["status"]
    assert view["stdout"] == "allowed"
    power_off(machine)
    machine = boot(context)
    assert machine.ask(application(capabilities="all")) == "done"
    ready(machine)
    view = json.loads(machine.get("/view")[1])
    assert view["mount"] == view["sethostname"] == view["sysctl"] == "allowed", view
    assert "cgroup2 /sys/fs/cgroup cgroup2 rw" in view["mounts"]
    power_off(machine)


def snapshot(context):
    machine = boot(context)
    assert machine.ask(application()) == "done"
    ready(machine)
    before = json.loads(machine.get("/view")[1])
    with Timer("Freeze"):
        assert machine.ask("freeze") == "done"
    with Timer("snapshot"):
        machine.snapshot()
    frozen = {serial: f"{context.work}/{serial}.frozen" for serial in context.disks}
    for serial, path in frozen.items():
        os.rename(f"{context.work}/{serial}.current", path)
    seen = []
    for number in range(3):
        name = f"microvm-{number}"
        state = os.open(f"{context.work}/state", os.O_RDONLY)
        start = time.time()
        copy = Machine(context.work, context.kernel, context.initramfs, frozen, restore=state)
        print(f"    restore, loaded after {(time.time() - start) * 1000:.0f} ms")
        who, clock = identity(name), time.time() + 86400 * 365
        copy.command("cont")
        if number == 1:  # how much of it is the agent's
            with Timer("cont to the answer of Restored without a hook"):
                assert told(copy, restored(None, who, clock)) is None
        with Timer("cont to the answer of Restored with the /run hook"):
            outcome = told(copy, restored(run_hook('{"runHookPayload":"hello"}'), who, clock))
        answer = json.loads(outcome["answered"]["body"])
        assert abs(answer["time"] - clock) < 5 and answer["host"] == "localhost:8080" and answer["body"] == '{"runHookPayload":"hello"}'
        assert answer["name"] == name
        with Timer("a second hook"):
            assert copy.hook("x")["answered"]["status"] == 200
        view = json.loads(copy.get("/view")[1])
        assert view["boot_id"] == who["boot_id"] and view["machine_id"] == who["boot_id"].replace("-", "")
        assert view["hostname"] == view["etc_hostname"] == name and name in view["hosts"] and "image-build" not in view["hosts"]
        assert view["secret"] == before["secret"] and view["boot_id"] != before["boot_id"]
        seen.append(answer["random"])
        suspend_and_wake(copy, who)
        copy.end()
        os.close(state)
    assert len(set(seen)) == 3, "copies share randomness"


def told(machine, request):
    """The hook's outcome. What the guest accounts for is a part of the exchange, and but for the way there and back all of it."""
    began = time.monotonic()
    reply = machine.ask(request)["restored"]
    took = (time.monotonic() - began) * 1e6
    assert 0 < reply["handled_us"] <= took, reply
    return reply["outcome"]


def suspend_and_wake(copy, who):
    stale = copy.open({"relay": {"port": 8080}})
    assert json.loads(stale.makefile().readline()) == "connected"
    assert copy.ask("freeze") == "done"
    copy.command("stop")
    time.sleep(0.5)
    copy.command("cont")
    with Timer("Restored without a hook"):
        assert told(copy, restored()) is None
    view = json.loads(copy.get("/view")[1])
    assert view["boot_id"] == who["boot_id"] and abs(view["time"] - time.time()) < 5
    stale.settimeout(5)
    assert stale.recv(1) == b""


def builder(context):
    machine = boot(context)

    def run(argv, timeout_ms=30000, **changes):
        command = {"root_disk": "root", "mounts": {}, "argv": argv, "environment": {}, "working_directory": "", "timeout_ms": timeout_ms, "files": {}}
        replies = list(machine.replies({"run": command | changes}))
        return replies[-1], [reply["log"]["text"] for reply in replies[:-1]]

    with Timer("first Run"):
        ended, lines = run(["sh", "-c", "echo $GREETING; pwd; id -u; cat /etc/resolv.conf; ls /dev/emberbox; echo bad >&2; exit 3"],
                           environment={"GREETING": "hi"}, working_directory="/usr")
    assert ended == {"exited": {"code": 3}} and lines[:3] == ["hi", "/usr", "0"] and {"bad", "root", "extra"} <= set(lines), lines
    with Timer("second Run"):
        ended, lines = run(["sh", "-c", "cat /mnt/extra/file /etc/secret; stat -c %a /etc/secret; readlink -f /dev/emberbox/extra; cat /proc/self/cgroup"],
                           mounts={"/mnt/extra": {"serial": "extra", "read_only": True}}, files={"/etc/secret": "s3\n"})
    assert ended == {"exited": {"code": 0}} and lines[:3] == ["on the extra disk", "s3", "600"], lines
    print("   ", lines)
    assert run(["sh", "-c", "mount -t tmpfs none /mnt && echo kept > /mnt/x"])[0] == {"exited": {"code": 0}}
    assert run(["cat", "/mnt/x"])[1] == ["kept"], "mounts persist between commands"
    ended, lines = run(["sh", "-c", "lsmod 2>/dev/null; mkdir -p /tmp/l /tmp/u /tmp/w /tmp/m; mount -t overlay o -o lowerdir=/tmp/l,upperdir=/tmp/u,workdir=/tmp/w /tmp/m && unshare -m -p -f true && echo fine"])
    assert lines[-1:] == ["fine"], lines
    with Timer("Run that is killed after 1 s"):
        ended, lines = run(["sh", "-c", "echo begun; sleep 100 & sleep 100"], timeout_ms=1000)
    assert ended == {"exited": {"code": 137}} and lines[0] == "begun" and "killed" in lines[1], (ended, lines)
    with Timer("Run of 20000 lines"):
        ended, lines = run(["seq", "20000"])
    assert lines == [str(number) for number in range(1, 20001)]
    assert "executable file not found" in run(["nothere"])[0]["failed"]["reason"]
    link = machine.open({"run": {"root_disk": "root", "mounts": {}, "argv": ["sleep", "77"], "environment": {}, "working_directory": "", "timeout_ms": 90000, "files": {}}})
    time.sleep(0.5)
    link.close()
    time.sleep(0.5)
    _, lines = run(["sh", "-c", "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; grep State $p/status; done"])
    assert not any(line.startswith("sleep") or "zombie" in line for line in lines), lines
    power_off(machine)


CASES = [refusals, restricted_container, privileged_user, snapshot, builder]


def main():
    parser = argparse.ArgumentParser()
    for name in ("kernel", "initramfs", "root"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--work")
    parser.add_argument("cases", nargs="*")
    context = parser.parse_args()
    context.work = tempfile.mkdtemp(prefix="agent-guest-", dir=context.work)
    tree = f"{context.work}/tree"
    sh(f"cp -a {context.root} {tree} && cp {HERE}/application.py {tree}/ && rm -f {tree}/etc/machine-id {tree}/etc/resolv.conf "
       f"&& ln -s ../run/somewhere/resolv.conf {tree}/etc/resolv.conf "
       f"&& echo tester:x:1234:1235::/home/tester:/bin/sh >> {tree}/etc/passwd && echo audio2:x:29:tester >> {tree}/etc/group "
       f"&& mkdir {context.work}/extra && echo on the extra disk > {context.work}/extra/file")
    context.disks = {"root": disk(context.work, "root", tree, 600), "extra": disk(context.work, "extra", f"{context.work}/extra", 16)}
    enter_network()
    try:
        for case in CASES:
            if not context.cases or case.__name__ in context.cases:
                print(case.__name__, flush=True)
                case(context)
        print("all passed; the consoles:")
        print(open(f"{context.work}/console.log", errors="replace").read())
        shutil.rmtree(context.work)
    except BaseException:
        print(f"what is left: {context.work}")
        raise
    finally:
        for machine in Machine.running:
            machine.end()


if __name__ == "__main__":
    main()
