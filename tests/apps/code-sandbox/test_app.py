"""Unit tests of examples/code-sandbox; any python3 of 3.10 or newer runs them: python3 -m unittest discover tests/apps/code-sandbox"""

import http.client
import json
import os
import socket
import sys
import tempfile
import threading
import unittest
from pathlib import Path

SCRATCH = tempfile.TemporaryDirectory()
os.environ["SANDBOX_FILES"] = SCRATCH.name
sys.path.insert(0, str(Path(__file__).parents[3] / "examples" / "code-sandbox"))
sys.dont_write_bytecode = True

import app  # noqa: E402
import tinyhttp  # noqa: E402


class Execution(unittest.TestCase):
    def setUp(self):
        self.session = app.Session()

    def test_the_last_expression_is_the_result(self):
        self.assertEqual(self.session.execute("print('hi')\n6 * 7"), {"stdout": "hi\n", "result": "42", "error": None})

    def test_variables_stay(self):
        self.session.execute("def double(n): return 2 * n\nx = 4")
        self.assertEqual(self.session.execute("double(x)")["result"], "8")
        self.assertEqual(self.session.names(), ["double", "x"])

    def test_an_error_shows_the_code_alone_and_what_was_printed(self):
        answer = self.session.execute("print('so far')\n1 / 0")
        self.assertEqual(answer["stdout"], "so far\n")
        self.assertIn("ZeroDivisionError", answer["error"])
        self.assertIn("1 / 0", answer["error"])
        self.assertNotIn("app.py", answer["error"])

    def test_a_syntax_error_and_an_exit_are_answers(self):
        self.assertIn("SyntaxError", self.session.execute("1 +")["error"])
        self.assertIn("SystemExit", self.session.execute("raise SystemExit(3)")["error"])
        self.assertEqual(self.session.execute("")["result"], None)


class Service(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with socket.create_server(("127.0.0.1", 0)) as free:
            cls.port = free.getsockname()[1]
        threading.Thread(target=tinyhttp.serve, args=(cls.port, app.handle), daemon=True).start()
        for _ in range(200):
            with socket.socket() as attempt:
                if attempt.connect_ex(("127.0.0.1", cls.port)) == 0:
                    return
            threading.Event().wait(0.01)

    def setUp(self):
        self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        self.addCleanup(self.connection.close)

    def call(self, method, path, body=None, **options):
        self.connection.request(method, path, body, **options)
        answer = self.connection.getresponse()
        return answer.status, answer.read()

    def test_execute_and_info_on_one_connection(self):
        status, body = self.call("POST", "/execute", json.dumps({"code": "answer = 42\nanswer"}))
        self.assertEqual((status, json.loads(body)["result"]), (200, "42"))
        status, body = self.call("GET", "/?x=y")
        self.assertEqual(status, 200)
        self.assertIn("answer", json.loads(body)["variables"])

    def test_files(self):
        content = bytes(range(256))
        self.assertEqual(self.call("POST", "/files/a.bin", content)[0], 200)
        self.assertEqual(self.call("GET", "/files/a.bin"), (200, content))
        self.assertEqual(self.call("POST", "/files/b", iter([b"in ", b"chunks"]), encode_chunked=True)[0], 200)
        self.assertEqual(self.call("GET", "/files/b"), (200, b"in chunks"))
        self.assertEqual(self.call("GET", "/files/none")[0], 404)
        self.assertEqual(self.call("GET", "/files/../app.py")[0], 400)

    def test_hooks(self):
        for name in ["ready", "validate", "suspend", "resume", "terminate"]:
            self.assertEqual(self.call("POST", app.HOOKS + name)[0], 200, name)
        self.assertEqual(self.call("POST", app.HOOKS + "run", '{"microvmId": "microvm-1", "runHookPayload": ""}')[0], 200)
        self.assertEqual(json.loads(self.call("GET", "/")[1])["microvm"], "microvm-1")
        self.assertEqual(self.call("POST", app.HOOKS + "other")[0], 404)

    def test_bad_requests(self):
        for body in ["", "{", "[]", "{}", '{"code": 1}']:
            self.assertEqual(self.call("POST", "/execute", body)[0], 400, body)
        self.assertEqual(self.call("DELETE", "/")[0], 404)
        with socket.create_connection(("127.0.0.1", self.port)) as raw:
            raw.sendall(b"nonsense\r\n\r\n")
            self.assertIn(b"400 Bad Request", raw.recv(1000))


if __name__ == "__main__":
    unittest.main()
