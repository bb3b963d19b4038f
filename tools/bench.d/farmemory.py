"""A memory server and swap devices of a benchmark's own, gone at its end."""

import ctypes
import fcntl
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from common import binary_directory, run


def lock_own_memory():
    """Who starts memserver again must not wait for a page from the device that only memserver can bring back."""
    current, future = 1, 2
    if ctypes.CDLL(None, use_errno=True).mlockall(current | future) != 0:
        raise SystemExit(f"mlockall failed: {os.strerror(ctypes.get_errno())}")


class FarMemory:
    """memserver on a pool of its own in a runtime directory of its own; started again when it is killed."""

    def __init__(self, capacity, nbd=False, auto_lease="256MiB"):
        lock_own_memory()
        # Ended from outside it cleans up too.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        # Swap devices are the whole machine's: the integration tests take the same lock.
        pathlib.Path("/run/farmem").mkdir(exist_ok=True)
        self.lock = open("/run/farmem/swap-tests.lock", "w")
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        self.binaries = binary_directory()
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="farmem-bench-", dir="/dev/shm"))
        self.environment = {**os.environ, "FARMEM_RUNTIME_DIR": str(self.directory / "run")}
        (self.directory / "pool").mkdir()
        self.pid_file = self.directory / "memserver.pid"
        self.shm = self.directory / "shm.sock"
        self.nbd = self.directory / "nbd.sock"
        self.command = [self.binaries / "memserver", "serve", "--capacity", capacity, "--pool", self.directory / "pool",
                        "--shm", self.shm, "--admin", f"unix:{self.directory}/admin.sock", "--auto-lease", auto_lease]
        if nbd:
            self.command += ["--nbd", f"unix:{self.nbd}"]
        self.devices, self.ending, self.starts = [], False, 0
        self.started = threading.Event()
        self.process = None
        self.supervisor = threading.Thread(target=self.supervise)
        self.supervisor.start()
        if not self.started.wait(15):
            self.close()
            raise SystemExit("memserver did not start")

    def supervise(self):
        """Starts memserver again whenever it ends, as its service manager would."""
        while not self.ending:
            ours, theirs = os.pipe()
            with open(self.directory / "memserver.log", "ab") as log:
                self.process = subprocess.Popen(
                    [str(word) for word in self.command] + ["--ready-fd", str(theirs)], stdin=subprocess.DEVNULL,
                    stdout=log, stderr=log, pass_fds=[theirs], env=self.environment)
            os.close(theirs)
            self.starts += 1
            ready = os.read(ours, 64)
            os.close(ours)
            if ready:
                self.pid_file.write_text(f"{self.process.pid}\n")
                self.started.set()
            self.process.wait()
            self.pid_file.unlink(missing_ok=True)
            if not ready:
                time.sleep(0.1)

    def farswap(self, *arguments, timeout=120):
        return run([self.binaries / "farswap", *arguments], timeout=timeout, env=self.environment)

    def attach(self, name, size, *options, url=None):
        self.devices.append(name)
        self.farswap("attach", url or f"shm:{self.shm}", "--size", size, "--name", name, "--priority", 32000, *options)

    def detach(self, name):
        self.farswap("detach", name)
        self.devices.remove(name)

    def farmem(self, *arguments, timeout=600):
        return subprocess.run([str(self.binaries / "farmem"), *map(str, arguments)], capture_output=True, text=True,
                              timeout=timeout, env=self.environment)

    def bench_swap(self, *arguments):
        done = self.farmem("bench", "swap", "--json", *arguments)
        if done.returncode != 0:
            raise SystemExit(f"farmem bench swap failed: {(done.stderr or done.stdout).strip()[-300:]}")
        return json.loads(done.stdout)

    def close(self):
        for name in list(self.devices):
            subprocess.run([str(self.binaries / "farswap"), "detach", name, "--force"], env=self.environment,
                           capture_output=True, timeout=120)
        self.ending = True
        while self.supervisor.is_alive():
            if self.process and self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
            self.supervisor.join(0.5)
        shutil.rmtree(self.directory, ignore_errors=True)
        self.lock.close()


class Zram:
    """A zram device as swap, with the kernel's default compressor; None where the kernel has none."""

    @staticmethod
    def available():
        subprocess.run(["modprobe", "zram"], capture_output=True)
        return pathlib.Path("/sys/class/zram-control/hot_add").exists()

    def __init__(self, size_bytes):
        self.number = pathlib.Path("/sys/class/zram-control/hot_add").read_text().strip()
        self.sysfs = pathlib.Path(f"/sys/block/zram{self.number}")
        (self.sysfs / "disksize").write_text(str(size_bytes))
        algorithm = re.search(r"\[(.*?)\]", (self.sysfs / "comp_algorithm").read_text())
        self.compressor = algorithm.group(1) if algorithm else ""
        self.path = f"/dev/zram{self.number}"

    def __enter__(self):
        run(["mkswap", self.path])
        run(["swapon", "-p", "32000", self.path])
        return self

    def __exit__(self, *_):
        run(["swapoff", self.path])
        pathlib.Path("/sys/class/zram-control/hot_remove").write_text(self.number)


class SwapFile:
    """A swap file on the disk that holds a directory."""

    def __init__(self, size_bytes, directory):
        self.path = pathlib.Path(directory) / f"farmem-bench-swap-{os.getpid()}"
        with open(self.path, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, size_bytes)
        self.path.chmod(0o600)

    def __enter__(self):
        run(["mkswap", self.path])
        run(["swapon", "-p", "32000", self.path])
        return self

    def __exit__(self, *_):
        try:
            run(["swapoff", self.path])
        finally:
            self.path.unlink()


def tuning_options(polling=False):
    """The options for farswap attach that docs/operations.md recommends here: with them it is judged."""
    threads = ["--threads", "1"] if polling or os.cpu_count() <= 2 else []
    return ["--page-cluster", "5", *threads, *(["--poll", "1ms"] if polling else []), *halt_poll_options()]


def halt_poll_options():
    """Those for a virtual machine whose idle processors halt at once."""
    try:
        limit = int(pathlib.Path("/sys/module/haltpoll/parameters/guest_halt_poll_ns").read_text())
    except (OSError, ValueError):
        return []
    return ["--halt-poll", "200us"] if limit == 0 else []
