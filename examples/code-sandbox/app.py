"""Runs the code it is sent and keeps the session: variables in memory, files on disk.

There is no sandboxing here. The MicroVM is the sandbox: give every user one of their own.
"""

import ast
import contextlib
import io
import json
import linecache
import os
import random
import socket
import sys
import threading
import time
import traceback
from pathlib import Path

from tinyhttp import Problem, Request, serve

PORT = 8080
HOOKS = "/aws/lambda-microvms/runtime/v1/"
FILES = Path(os.environ.get("SANDBOX_FILES", "/home/sandbox"))


class Session:
    """What a user's code leaves behind. It lives in memory, so it survives a suspension."""

    def __init__(self):
        self.started = time.time()
        self.executions = 0
        self.variables = {"__name__": "__main__"}
        self._one_at_a_time = threading.Lock()

    def execute(self, code):
        """Runs code; its last line's value is the result, as in an interactive Python."""
        stdout = io.StringIO()
        result = error = None
        with self._one_at_a_time, contextlib.redirect_stdout(stdout):
            self.executions += 1
            try:
                result = self._run(code, f"<execution {self.executions}>")
            except BaseException as raised:  # SystemExit, too, must end the code and not the service
                error = describe(raised)
        return {"stdout": stdout.getvalue(), "result": result, "error": error}

    def _run(self, code, name):
        # Tracebacks show the code's lines.
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        tree = ast.parse(code, name)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, name, "exec"), self.variables)
        if last is None:
            return None
        value = eval(compile(ast.Expression(last.value), name, "eval"), self.variables)
        return None if value is None else repr(value)

    def names(self):
        return sorted(name for name in self.variables if not name.startswith("__"))


def describe(error):
    """The traceback, without the frames of this service."""
    frames = error.__traceback__
    while frames and not frames.tb_frame.f_code.co_filename.startswith("<execution"):
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames))


session = Session()
microvm_id = None


def handle(request: Request):
    match request.method, request.path:
        case "GET", "/":
            return info()
        case "POST", "/execute":
            return session.execute(code_of(request.body))
        case "POST" | "PUT", path if path.startswith("/files/"):
            return {"bytes": file(path).write_bytes(request.body)}
        case "GET", path if path.startswith("/files/"):
            return read(file(path))
        case "POST", path if path.startswith(HOOKS):
            return hook(path.removeprefix(HOOKS), request.body)
    raise Problem(404, f"nothing at {request.method} {request.path}")


def info():
    return {
        "microvm": microvm_id,
        "hostname": socket.gethostname(),
        "started": session.started,
        "executions": session.executions,
        "variables": session.names(),
    }


def code_of(body):
    try:
        code = json.loads(body)["code"]
    except (ValueError, TypeError, KeyError):
        code = None
    if not isinstance(code, str):
        raise Problem(400, 'the body must be {"code": "..."}')
    return code


def file(path):
    name = path.removeprefix("/files/")
    if not name or "/" in name or name.startswith("."):
        raise Problem(400, "a file's name has no slash and no leading dot")
    return FILES / name


def read(path):
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise Problem(404, f"no file {path.name}") from None


def hook(name, body):
    """Lambda calls these around the snapshot, the launch and every suspension."""
    global microvm_id
    match name:
        case "ready":
            # The snapshot follows. What ran once before it is loaded in every launch.
            Session().execute("1 + 1")
        case "run":
            microvm_id = json.loads(body)["microvmId"]
            # Whatever was drawn before the snapshot, all copies of it would draw next.
            random.seed()
        case "validate" | "suspend" | "resume" | "terminate":
            pass
        case _:
            raise Problem(404, f"no hook {name}")
    log(name)
    return {}


def log(line):
    # Standard output belongs to the posted code. Both end up in the MicroVM's log stream.
    print(f"sandbox: {line}", file=sys.stderr)


if __name__ == "__main__":
    log(f"listening on {PORT}")
    serve(PORT, handle)
