"""A relay in front of a unix socket whose connections can be cut: each is a process of its own, to be killed with SIGKILL.

Passes bytes and descriptors both ways. The pid of the newest connection's process is in a file.
"""

import os
import pathlib
import select
import signal
import socket
import sys


def relay(ours, theirs):
    """Copies both ways until one end closes."""
    other = {ours: theirs, theirs: ours}
    while True:
        for ready in select.select([ours, theirs], [], [])[0]:
            data, descriptors, _, _ = socket.recv_fds(ready, 1 << 20, 16)
            if not data:
                return
            if descriptors:
                socket.send_fds(other[ready], [data], descriptors)
                for descriptor in descriptors:
                    os.close(descriptor)
            else:
                other[ready].sendall(data)


def serve(listener, target, pid_file):
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        client, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(str(target))
                # Whole or not at all: a reader must never find half a number.
                fresh = pid_file.with_suffix(f".{os.getpid()}")
                fresh.write_text(f"{os.getpid()}\n")
                fresh.rename(pid_file)
                relay(client, server)
            except OSError:
                pass
            os._exit(0)
        client.close()


class Proxy:
    """Listens at PATH for TARGET until closed."""

    def __init__(self, path, target):
        self.path = pathlib.Path(path)
        self.pid_file = self.path.with_suffix(".pid")
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        listener.listen(64)
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            # A group of its own: its connections end with it.
            os.setpgid(0, 0)
            try:
                serve(listener, pathlib.Path(target), self.pid_file)
            finally:
                os._exit(1)
        os.setpgid(self.pid, self.pid)
        listener.close()

    def close(self):
        os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
