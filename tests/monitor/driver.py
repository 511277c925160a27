"""Drives emberbox-vmm by its control socket, as the daemon does, without the daemon: its process, the machine in it, the agent in the guest."""
import array, contextlib, ctypes, fcntl, json, os, re, shutil, socket, struct, subprocess, sys, time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "bin/emberbox-agent/tests/guest"))
from machine import GUEST, GUEST_MAC, HOST, HOST_MAC, Agent, sh  # noqa: E402

GENERATION = 1
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
BASE = Path(os.environ.get("EMBERBOX_BASE", TARGET / "base"))
COMMAND_LINE = ("console=ttyS0 quiet reboot=t panic=-1 edd=off 8250.nr_uarts=1 cryptomgr.notests rcupdate.rcu_expedited=1 random.trust_cpu=off")
# The malicious guest (tests/apps/hostile).
HOSTILE = TARGET / "x86_64-unknown-linux-gnu/release/emberbox-hostile"
UID = 61000
CONSOLE, REPORT = "console.log", "report.log"
# Of the environment, to the monitor: what a build with a sanitizer is to do.
PASSED_ON = ("ASAN_OPTIONS",)
CLONE_NEWPID = 0x2000_0000


FLAGS = re.search(r"^flags.*$", open("/proc/cpuinfo").read(), re.M)[0].split()
NEEDS_KVM = pytest.mark.skipif(
    os.geteuid() != 0 or not {"vmx", "svm"} & set(FLAGS) or not os.path.exists("/dev/kvm"),
    reason="needs root and hardware virtualization: cargo xtask lab -- /opt/venv/bin/python -m pytest -c tests/pytest.ini --rootdir tests tests/monitor",
)


def overlay(work, base, size="1G"):
    """A disk: an overlay in `work` on the raw file in `base`, both made where there are none."""
    raw, top = base / "raw", work / "top.qcow2"
    if not raw.exists():
        subprocess.run(["truncate", "-s", "64M", raw], check=True)
    if not top.exists():
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", raw, top, size], check=True)
    return {"root": (False, [("qcow2", top), ("raw", raw)])}


def clone(frozen, work, prepared=True, **options):
    """A running machine from the files of the fixture `frozen`."""
    shutil.copy(frozen / "top.qcow2", work / "top.qcow2")
    machine = Monitor(work, **options)
    if prepared:
        machine.call({"prepare": {"vcpus": 2}})
    machine.restore(overlay(work, frozen), frozen / "memory", frozen / "state", vcpus=2)
    return machine


def binary():
    """The monitor; another build of it where EMBERBOX_VMM names one."""
    if "EMBERBOX_VMM" in os.environ:
        return Path(os.environ["EMBERBOX_VMM"])
    found = [TARGET / "release/emberbox-vmm", TARGET / "x86_64-unknown-linux-gnu/release/emberbox-vmm"]
    return next(path for path in found if path.exists())


def enter_network():
    """Moves this process into a network namespace of its own."""
    if ctypes.CDLL(None, use_errno=True).unshare(0x4000_0000):
        raise OSError(ctypes.get_errno(), "unshare")
    sh("ip link set lo up")


def make_tap(name="tap0"):
    """The tap that the guest's card is on; `tap0` with the host's end of the link. It goes with the descriptor."""
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, 0x4004_54CA, struct.pack("16sH22x", name.encode(), 0x0002 | 0x1000 | 0x4000))
    if name != "tap0":
        sh(f"ip link set {name} up")
        return tap
    sh(f"""set -e; ip link set tap0 address {HOST_MAC} up
        for a in {HOST}/29 169.254.169.253/29 169.254.169.254/29; do ip addr add $a dev tap0; done
        ip neigh replace {GUEST} lladdr {GUEST_MAC} nud permanent dev tap0""")
    return tap


class Refused(Exception):
    pass


class Monitor(Agent):
    """One monitor process."""
    # Guests of an emulated machine that others use too.
    patience = 120

    def __init__(self, work, uid=UID, wrapper=(), device="/dev/kvm", tap="tap0", io_uring=True):
        self.work, self.uid, self.tap_name = Path(work), uid, tap
        ours, theirs = socket.socketpair()
        kvm = os.open(device, os.O_RDWR)
        # Apart: the monitor's lines would come in the middle of its guest's, and a guest could write some itself.
        self.files = [open(self.work / name, "ab") for name in (CONSOLE, REPORT)]
        command = [*wrapper, str(binary()), "--control", str(theirs.fileno()), "--kvm", str(kvm), "--uid", str(uid), "--io-uring", str(int(io_uring))]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.files[0], stderr=self.files[1],
                                        pass_fds=[theirs.fileno(), kvm],
                                        env={name: os.environ[name] for name in PASSED_ON if name in os.environ})
        theirs.close()
        os.close(kvm)
        self.socket = ours
        self.socket.settimeout(60)
        self.tap = None

    def call(self, request, fds=()):
        line = json.dumps({"generation": GENERATION, "request": request}).encode() + b"\n"
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.socket.sendmsg([line], rights)
        answer = b""
        while not answer.endswith(b"\n"):
            data = self.socket.recv(65536)
            if not data:
                raise Refused(f"the monitor ended ({self.process.wait()}): {self.said()}")
            answer += data
        answer = json.loads(answer)
        if "failed" in answer:
            raise Refused(answer["failed"]["reason"])
        return answer.get("stats") or dict(answer["done"]["steps"])

    def console(self):
        """What the guest has written to its serial port."""
        return (self.work / CONSOLE).read_text(errors="replace")

    def report(self):
        """What the monitor itself has said."""
        return (self.work / REPORT).read_text(errors="replace")

    def said(self):
        """The last of both, for whoever looks for a cause."""
        return f"the guest:\n{self.console()[-2000:]}\nthe monitor:\n{self.report()[-2000:]}"

    def listener(self):
        listener = socket.socket(socket.AF_UNIX)
        path = self.work / "control.sock"
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        listener.bind(str(path))
        listener.listen()
        return listener

    def reconnect(self):
        """As a restarted daemon does."""
        self.socket.close()
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(60)
        self.socket.connect(str(self.work / "control.sock"))

    def machine(self, disks, vcpus, memory):
        """`disks`: serial -> (read only, [(format, path), ...])."""
        mac = [int(part, 16) for part in GUEST_MAC.split(":")]
        named = [{"serial": serial, "read_only": read_only, "layers": [format for format, _ in layers]} for serial, (read_only, layers) in disks.items()]
        fds = []
        for read_only, layers in disks.values():
            for depth, (_, path) in enumerate(layers):
                fds.append(os.open(path, os.O_RDONLY if read_only or depth else os.O_RDWR))
        return {"vcpus": vcpus, "memory_mib": memory, "mac": mac, "disks": named}, fds

    def give(self, request, machine_fds, files):
        self.tap = make_tap(self.tap_name)
        listener = self.listener()
        fds = [listener.fileno(), self.tap, *machine_fds, *files]
        try:
            return self.call(request, fds)
        finally:
            listener.close()
            for fd in fds[1:]:
                os.close(fd)

    def boot(self, disks, memory_file, vcpus=1, memory=512, extra="", kernel=BASE / "vmlinuz", initramfs=BASE / "initramfs"):
        with open(memory_file, "wb") as file:
            file.truncate(memory << 20)
        machine, fds = self.machine(disks, vcpus, memory)
        files = [os.open(kernel, os.O_RDONLY), os.open(initramfs, os.O_RDONLY), os.open(memory_file, os.O_RDWR)]
        return self.give({"boot": {"machine": machine, "command_line": f"{COMMAND_LINE} {extra}".strip()}}, fds, files)

    def restore(self, disks, memory_file, state, vcpus=1, memory=512, layer=None):
        machine, fds = self.machine(disks, vcpus, memory)
        files = [os.open(memory_file, os.O_RDONLY), os.open(state, os.O_RDONLY)]
        files += [os.open(path, os.O_RDONLY) for path in layer or ()]
        return self.give({"restore": {"machine": machine, "layered": layer is not None}}, fds, files)

    def save_state(self, path):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            return self.call("save_state", [file])
        finally:
            os.close(file)

    def end(self):
        self.process.kill()
        self.process.wait()
        self.socket.close()
        for file in self.files:
            file.close()
