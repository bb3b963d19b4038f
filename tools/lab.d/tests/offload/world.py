"""What the tests of offloadd in a guest share: the controller, a process in a cgroup, and the kernel's own figures."""

import http.client
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

BIN = pathlib.Path(os.environ["FARMEM_BIN_DIR"])
CGROUPS = pathlib.Path("/sys/fs/cgroup")
SOCKET = "/run/farmem/offloadd.sock"
MIB = 1 << 20


class Failure(Exception):
    pass


def check(condition, text):
    if not condition:
        raise Failure(text)


def wait(what, condition, seconds=60):
    """Waits for an event; how long it takes says nothing."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise Failure(f"not within {seconds} s: {what}")


class UnixConnection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(SOCKET)


class Controller:
    def __init__(self, *options):
        self.log = open("/run/farmem/offloadd.log", "ab")
        ready, announce = os.pipe()
        self.process = subprocess.Popen(
            [BIN / "offloadd", "run", "--listen", f"unix:{SOCKET}", "--state-dir", "/run/farmem/state", "--recycle-guard", "0s",
             "--pressure-max", "1", "--far-reserve", "1MiB", "--log-level", "debug", "--ready-fd", str(announce), *options],
            stderr=self.log, pass_fds=[announce])
        os.close(announce)
        if not os.read(ready, 1):
            raise Failure(f"offloadd did not start: status {self.process.wait()}")
        os.close(ready)

    def stop(self):
        self.process.terminate()
        status = self.process.wait(timeout=30)
        check(status == 0, f"offloadd ended with {status}")

    def get(self, path):
        connection = UnixConnection("offloadd")
        connection.request("GET", path)
        body = connection.getresponse().read()
        connection.close()
        return json.loads(body) if path.startswith("/v1") else body.decode()

    def send(self, event, name, **more):
        connection = UnixConnection("offloadd")
        body = {"event": event, "container": name, "function": "f", "cgroup": f"/{name}", **more}
        connection.request("POST", "/v1/events", json.dumps(body))
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        check(answer.status == 204, f"{event}: {text}")

    def container(self, name):
        return next((c for c in self.get("/v1/containers")["containers"] if c["id"] == name), None)

    def settle(self):
        """Lets what was decided be carried out, for the next request would stop it: no new event for a while."""
        last, since = None, time.monotonic()
        while time.monotonic() - since < 0.4:
            now = self.get("/v1/events?since=0")["last"]
            if now != last:
                last, since = now, time.monotonic()
            time.sleep(0.05)


WORKER = """
import mmap, os, sys
parts = {}
def page(name, number):
    return (name * 8)[:8].encode() + number.to_bytes(8, "little") * 511
for line in sys.stdin:
    command, name, first, count = line.split()
    first, count = int(first), int(count)
    wrong = 0
    if command == "grow":
        memory = parts[name] = mmap.mmap(-1, count * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for number in range(count):
            memory[number * 4096:number * 4096 + 4096] = page(name, number)
    elif command == "touch":
        for number in range(first, first + count):
            wrong += parts[name][number * 4096:number * 4096 + 4096] != page(name, number)
    elif command == "cache":
        with open(name, "rb") as file:
            file.read(count * 4096)
    print(wrong, flush=True)
"""


class Container:
    """A cgroup with a process whose every page is known."""

    def __init__(self, name):
        self.name = name
        self.group = CGROUPS / name
        self.group.mkdir()
        self.process = subprocess.Popen(
            ["sh", "-c", f"echo $$ >{self.group}/cgroup.procs && exec python3 -c '{WORKER}'"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, command, part, first, count):
        self.process.stdin.write(f"{command} {part} {first} {count}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def grow(self, part, mebibytes):
        self.ask("grow", part, 0, mebibytes * 256)

    def touch(self, part, mebibytes):
        wrong = self.ask("touch", part, 0, mebibytes * 256)
        check(wrong == 0, f"{wrong} wrong pages of {part}")

    def figure(self, name):
        return int((self.group / name).read_text())

    def statistic(self, name):
        for line in (self.group / "memory.stat").read_text().splitlines():
            if line.startswith(name + " "):
                return int(line.split()[1])
        return 0

    def generations(self):
        """{number: (anonymous pages, file pages)} of the first node, by the kernel."""
        result, found = {}, False
        for line in open("/sys/kernel/debug/lru_gen"):
            words = line.split()
            if words[0] == "memcg":
                found = words[2:] == [f"/{self.name}"]
                number = words[1]
            elif found and words[0] != "node":
                result[int(words[0])] = (int(words[2]), int(words[3]))
                self.number = number
        return result

    def end(self):
        self.process.kill()
        self.process.wait()
        wait("the group can be removed", lambda: self.remove())

    def remove(self):
        try:
            self.group.rmdir()
            return True
        except OSError:
            return False


def main(*tests):
    for test in tests:
        start = time.monotonic()
        try:
            test()
        except Failure as failure:
            print(f"FAILED {test.__name__}: {failure}")
            sys.exit(1)
        print(f"ok {test.__name__} ({time.monotonic() - start:.1f} s)", flush=True)
