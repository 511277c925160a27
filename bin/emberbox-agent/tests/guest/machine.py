"""A guest under QEMU in a network namespace of its own, and the host's end of the agent's protocol."""
import contextlib, ctypes, json, os, socket, subprocess, time

HOST, GUEST, PORT = "169.254.169.249", "169.254.169.250", 61001
HOST_MAC, GUEST_MAC = "02:eb:00:00:00:01", "02:eb:00:00:00:02"


def sh(line, **options):
    return subprocess.run(line, shell=True, check=True, **options)


def enter_network():
    """Moves this process into a new network namespace, which ends with it, and makes the host's end of the link."""
    if ctypes.CDLL(None, use_errno=True).unshare(0x4000_0000):
        raise OSError(ctypes.get_errno(), "unshare")
    sh(f"""set -e; ip link set lo up; ip tuntap add tap0 mode tap; ip link set tap0 address {HOST_MAC} up
        for a in {HOST}/29 169.254.169.253/29 169.254.169.254/29; do ip addr add $a dev tap0; done
        ip neigh replace {GUEST} lladdr {GUEST_MAC} nud permanent dev tap0""")


class Agent:
    """Requests of the protocol."""
    # Seconds until an agent of a guest that boots has to listen.
    patience = 30

    def open(self, request, timeout=60, wait=True):
        deadline = time.time() + self.patience
        while True:
            try:
                link = socket.create_connection((GUEST, PORT), timeout=1)
                break
            except OSError:
                if not wait or time.time() > deadline:
                    raise
                time.sleep(0.02)
        link.settimeout(timeout)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.sendall(json.dumps({"generation": 2, "request": request}).encode() + b"\n")
        return link

    def replies(self, request, **options):
        with contextlib.closing(self.open(request, **options)) as link, link.makefile("rb") as lines:
            for line in lines:
                reply = json.loads(line)
                yield reply
                if "log" not in reply:
                    return  # the last one; the agent leaves closing to the host

    def ask(self, request, **options):
        return next(self.replies(request, **options))

    def hook(self, name, timeout_ms=20000, retry="never", body="{}", port=8080):
        hook = {"port": port, "path": f"/aws/lambda-microvms/runtime/v1/{name}", "body": body, "timeout_ms": timeout_ms, "retry": retry}
        return self.ask({"call_hook": hook})["hook"]

    def get(self, path, port=8080):
        """One HTTP request through a relay."""
        with contextlib.closing(self.open({"relay": {"port": port}})) as link, link.makefile("rb") as stream:
            assert json.loads(stream.readline()) == "connected"
            link.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n".encode())
            link.shutdown(socket.SHUT_WR)
            head, _, body = stream.read().partition(b"\r\n\r\n")
            return int(head.split()[1]), body.decode()


class Machine(Agent):
    running = []

    def __init__(self, work, kernel, initramfs, disks, memory=512, cpus=1, restore=None):
        self.work, self.started = work, time.time()
        self.console = open(f"{work}/console.log", "ab")  # one log for all machines of a run
        qmp = f"{work}/qmp.sock"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(qmp)
        share = "off" if restore else "on"
        command = ["qemu-system-x86_64", "-M", "microvm,acpi=on,rtc=on,memory-backend=m0", "-cpu", "Nehalem", "-accel", "tcg,tb-size=256",
                   "-object", f"memory-backend-file,id=m0,size={memory}M,mem-path={work}/memory,share={share}",
                   "-m", str(memory), "-smp", str(cpus), "-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-serial", "stdio",
                   "-qmp", f"unix:{qmp},server=on,wait=off", "-kernel", kernel, "-initrd", initramfs,
                   "-append", f"console=ttyS0 reboot=t panic=-1 quiet tsc_early_khz={tsc_khz()}"]
        for serial, original in disks.items():
            path = f"{work}/{serial}.current"
            sh(f"cp --sparse=always {original} {path}")
            command += ["-drive", f"id={serial},file={path},format=raw,if=none", "-device", f"virtio-blk-device,drive={serial},serial={serial}"]
        command += ["-netdev", "tap,id=n0,ifname=tap0,script=no,downscript=no", "-device", f"virtio-net-device,netdev=n0,mac={GUEST_MAC}",
                    "-device", "virtio-rng-device"]
        if restore:
            command += ["-incoming", "defer"]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.console, stderr=self.console,
                                        pass_fds=[restore] if restore else [])
        Machine.running.append(self)
        self.connect(qmp)
        if restore:
            self.command("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}])
            self.command("migrate-incoming", uri=f"fd:{restore}")
            while self.command("query-status")["status"] != "paused":
                time.sleep(0.002)

    def connect(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        while self.socket.connect_ex(path):
            assert self.process.poll() is None, "QEMU ended; see the console"
            time.sleep(0.005)
        self.lines = self.socket.makefile("rwb", 0)
        self.lines.readline()
        self.command("qmp_capabilities")

    def command(self, name, **arguments):
        self.lines.write(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
        while True:
            answer = json.loads(self.lines.readline())
            if "return" in answer:
                return answer["return"]
            assert "error" not in answer, answer

    def snapshot(self):
        """Stops the machine, writes its state beside its memory file and ends the process."""
        self.command("stop")
        self.command("migrate-set-capabilities", capabilities=[{"capability": "x-ignore-shared", "state": True}])
        self.command("migrate", uri=f"exec:cat > {self.work}/state")
        while self.command("query-migrate").get("status") != "completed":
            time.sleep(0.005)
        self.end()

    def end(self):
        self.process.kill()
        self.process.wait()


def tsc_khz():
    for line in open("/proc/cpuinfo"):
        if line.startswith("cpu MHz"):
            return int(float(line.split(":")[1]) * 1000)
