"""Every function behind its real agent, over its unix socket, as the gateway uses it."""

import http.client
import json
import pathlib
import socket
import subprocess
import tempfile
import time
import unittest

FUNCTIONS = pathlib.Path(__file__).resolve().parent.parent
NAMES = sorted(path.parent.name for path in FUNCTIONS.glob("*/manifest.json"))


class Connection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=60)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(60)
        self.sock.connect(self.path)


class Agent:
    """An agent process; `with` starts and ends it."""

    def __init__(self, name):
        entry = json.loads((FUNCTIONS / name / "manifest.json").read_text())["entry"]
        self.function = FUNCTIONS / name / entry

    def __enter__(self):
        self.directory = tempfile.TemporaryDirectory(prefix="farmem-agent-")
        self.socket = f"{self.directory.name}/s"
        self.process = subprocess.Popen(
            ["/usr/bin/python3", str(FUNCTIONS / "agent" / "agent.py"), "--socket", self.socket,
             "--function", str(self.function)],
            stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while True:
            try:
                self.connection = Connection(self.socket)
                self.connection.connect()
                return self
            except OSError:
                self.connection.sock.close()
                if time.monotonic() > deadline or self.process.poll() is not None:
                    self.__exit__()
                    raise
                time.sleep(0.02)

    def __exit__(self, *_):
        self.connection.close()
        self.process.terminate()
        self.process.wait(10)
        self.directory.cleanup()

    def ask(self, method, path, body=None, raw=None):
        data = raw if raw is not None else (None if body is None else json.dumps(body).encode())
        try:
            self.connection.request(method, path, body=data)
            response = self.connection.getresponse()
            answer = response.status, json.loads(response.read())
            if response.will_close:
                self.connection.close()
            return answer
        except (http.client.HTTPException, OSError):
            self.connection.close()
            raise


class FunctionTests(unittest.TestCase):
    def test_there_are_functions(self):
        for name in ["float", "graph", "image", "json", "web"]:
            self.assertIn(name, NAMES)

    def test_stages_and_answers(self):
        for name in NAMES:
            with self.subTest(name), Agent(name) as agent:
                self.assertEqual(agent.ask("GET", "/status")[1]["stage"], "runtime")
                self.assertEqual(agent.ask("POST", "/run", {"seed": 1})[0], 409)
                self.assertEqual(agent.ask("POST", "/init")[0], 200)
                self.assertEqual(agent.ask("POST", "/init")[0], 200, "a second init is harmless")
                self.assertEqual(agent.ask("GET", "/status")[1]["stage"], "ready")
                first = agent.ask("POST", "/run", {"seed": 7})
                self.assertEqual(first[0], 200, first)
                self.assertEqual(agent.ask("POST", "/run", {"seed": 7}), first, "a function of its seed")
                self.assertNotEqual(agent.ask("POST", "/run", {"seed": 8}), first)
                self.assertEqual(agent.ask("GET", "/status")[1]["requests"], 3)
            with self.subTest(name + " again"), Agent(name) as other:
                other.ask("POST", "/init")
                self.assertEqual(other.ask("POST", "/run", {"seed": 7}), first, "the same in every container")

    def test_bad_input_is_an_answer_and_not_the_end(self):
        for name in NAMES:
            with self.subTest(name), Agent(name) as agent:
                agent.ask("POST", "/init")
                self.assertEqual(agent.ask("GET", "/nothing")[0], 404)
                self.assertEqual(agent.ask("POST", "/run", {})[0], 500)
                self.assertEqual(agent.ask("POST", "/run", {"seed": "x"})[0], 500)
                self.assertEqual(agent.ask("POST", "/run", raw=b"{not json")[0], 400)
                self.assertEqual(agent.ask("POST", "/run", raw=b"\xff\xfe")[0], 400)
                self.assertEqual(agent.ask("POST", "/run", {"seed": 3})[0], 200)

    def test_oversized_bodies_are_refused(self):
        with Agent("float") as agent:
            agent.ask("POST", "/init")
            raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            raw.settimeout(10)
            # One connection is served at a time: this one must end first.
            agent.connection.close()
            raw.connect(agent.socket)
            raw.sendall(b"POST /run HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
            self.assertIn(b" 400 ", raw.recv(4096).split(b"\r\n")[0])
            raw.close()
            self.assertEqual(agent.ask("POST", "/run", {"seed": 3})[0], 200)


if __name__ == "__main__":
    unittest.main()
