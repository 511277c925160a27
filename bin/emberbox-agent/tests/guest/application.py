"""The application of the guest suite: answers hooks and says what it sees."""
import ctypes, http.server, json, os, socket, subprocess, sys, threading, time

COUNTS = {}
SECRET = os.urandom(8).hex()
TICKS = [0]


def tick():
    while True:
        TICKS[0] += 1
        time.sleep(0.01)


def view():
    """What a process of the container sees of its world."""
    read = lambda path: open(path).read()

    def attempt(action):
        try:
            action()
            return "allowed"
        except OSError as error:
            return error.strerror

    libc = ctypes.CDLL(None, use_errno=True)

    def mount():
        if libc.mount(b"tmpfs", b"/mnt", b"tmpfs", 0, None):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    return {
        "pid": os.getpid(), "uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(), "cwd": os.getcwd(),
        "environment": dict(os.environ), "hostname": socket.gethostname(), "boot_id": read("/proc/sys/kernel/random/boot_id").strip(),
        "machine_id": read("/etc/machine-id").strip(), "hosts": read("/etc/hosts"), "etc_hostname": read("/etc/hostname").strip(),
        "resolv": read("/etc/resolv.conf"), "dev": sorted(os.listdir("/dev")), "pids": [p for p in os.listdir("/proc") if p.isdigit()],
        "status": [line for line in read("/proc/self/status").splitlines() if line.startswith(("Cap", "NoNew", "Sig"))],
        "cgroup": read("/proc/self/cgroup").strip(), "mounts": read("/proc/self/mounts"), "fds": sorted(os.listdir("/proc/self/fd")),
        "limits": [line for line in read("/proc/self/limits").splitlines() if "open files" in line or "core" in line],
        "oom": read("/proc/self/oom_score_adj").strip(), "mount": attempt(mount),
        "sysctl": attempt(lambda: open("/proc/sys/kernel/panic", "w").write("0")),
        "sysrq": attempt(lambda: open("/proc/sysrq-trigger", "w").write("h")),
        "stdout": attempt(lambda: open("/dev/stdout", "w").write("through /dev/stdout\n")),
        "sethostname": attempt(lambda: socket.sethostname(socket.gethostname())),
        "random": os.urandom(16).hex(), "time": time.time(), "secret": SECRET, "ticks": TICKS[0],
        "ca": os.path.exists("/run/emberbox/ca.pem") and len(read("/run/emberbox/ca.pem")),
    }


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        name = self.path.rsplit("/", 1)[-1]
        COUNTS[name] = COUNTS.get(name, 0) + 1
        status, text = 200, "ok"
        if name == "ready" and COUNTS[name] < 3:
            status = 503
        elif name == "view":
            text = json.dumps(view())
        elif name == "run":
            text = json.dumps({"random": os.urandom(16).hex(), "time": time.time(), "host": self.headers["Host"], "body": body, "name": socket.gethostname()})
        elif name == "large":
            text = "y" * 100000
        elif name == "slow":
            time.sleep(3)
        elif name == "flood":
            for start in range(0, 100000, 500):
                sys.stdout.write("".join(f"flood {number}\n" for number in range(start, start + 500)))
        elif name == "die":
            sys.stdout.write("last words without a line end")
            sys.stdout.flush()
            os._exit(7)
        elif name == "orphan":
            subprocess.run(["sh", "-c", "sleep 0.2 & exit 0"])
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


class V6(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6


print("application starts", flush=True)
print("a warning", file=sys.stderr, flush=True)
time.sleep(0.3)
threading.Thread(target=tick, daemon=True).start()
threading.Thread(target=V6(("::1", 9090), Handler).serve_forever, daemon=True).start()
http.server.ThreadingHTTPServer(("127.0.0.1", 8080), Handler).serve_forever()
