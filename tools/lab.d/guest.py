"""What tools/lab's ways to boot a guest share: their options, processes that end with them, output that passes on, what the kernel's
log says about it, and the status that comes out.

The guest's first process and the host's side talk through a control directory: the command's arguments, environment and directory
go in, its status comes out.
"""

import argparse
import ctypes
import os
import pathlib
import re
import selectors
import signal
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
STATUS_TIMEOUT = 124
STATUS_KERNEL = 70
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
LOG_LINES_SHOWN = 40
# What guest-init says in the kernel's log.
COMMAND_STARTS = b"lab: the command starts\n"
ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# What a sound kernel never says. Not "error": drivers say that of input.
WARNINGS = re.compile(
    rb"WARNING: |BUG: |Oops|Kernel panic|possible circular locking|INFO: task .* blocked|"
    rb"kmemleak: [1-9]|suspicious RCU|list_(add|del) corruption|Bad page state|bad swap|ODEBUG"
)
REPORT_LINES_MAX = 100

libc = ctypes.CDLL(None, use_errno=True)


def fail(status, text):
    print(f"lab: {text}", file=sys.stderr)
    sys.exit(status)


def parser(prog, memory, timeout):
    """A parser of the options that all guests have."""
    made = argparse.ArgumentParser(prog=prog, add_help=False, allow_abbrev=False)
    made.error = lambda text: fail(64, f"{text}; see tools/lab --help")
    made.add_argument("--timeout", type=float, default=timeout)
    made.add_argument("--memory", default=memory)
    made.add_argument("--exchange")
    made.add_argument("--env", action="append", default=[])
    made.add_argument("--kernel-log")
    made.add_argument("--allow-warnings", action="store_true")
    made.add_argument("--verbose", action="store_true")
    made.add_argument("command", nargs="+")
    return made


def check(options):
    """Ends with one line when a value cannot be right."""
    if not re.fullmatch(r"[1-9][0-9]*[MG]", options.memory):
        fail(64, f"--memory {options.memory}: give a number with M or G, such as 512M")
    if not options.timeout > 0:
        fail(64, f"--timeout {options.timeout}: give a number of seconds above 0")
    for setting in options.env:
        if not re.match(r"[A-Za-z_][A-Za-z0-9_]*=", setting):
            fail(64, f"--env {setting}: give NAME=VALUE")
    if options.exchange is not None and not os.path.isdir(options.exchange):
        fail(64, f"--exchange {options.exchange}: no such directory")
    if options.exchange is not None and "," in os.path.realpath(options.exchange):
        fail(64, f"--exchange {options.exchange}: a comma in the path would end a mount option")


def descendants():
    """The processes that this one started, directly or not; as their subreaper it is an ancestor of all."""
    children = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = pathlib.Path("/proc", entry, "stat").read_text(errors="replace").rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry))
    found, queue = [], [os.getpid()]
    while queue:
        for child in children.get(queue.pop(), []):
            found.append(child)
            queue.append(child)
    return found


def kill_all(seconds=10):
    """Ends the kernel and the processes that stand for those of the guest, which do not end with it when it is killed."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        processes = descendants()
        for process in processes:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                pass
        try:
            while os.waitpid(-1, os.WNOHANG) != (0, 0):
                pass
        except ChildProcessError:
            return
        time.sleep(0.01)
    fail(71, f"processes of the guest that could not be killed: {descendants()}")


def before_kernel():
    """For the child that becomes a guest: it ends with its parent, also with one that is killed."""
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def prepare_control(control, command, environment, exchange):
    (control / "argv").write_bytes(b"".join(os.fsencode(word) + b"\0" for word in command))
    (control / "environment").write_bytes(b"".join(os.fsencode(word) + b"\0" for word in environment))
    (control / "directory").write_bytes(os.fsencode(os.getcwd()))
    (control / "exchange").write_bytes(os.fsencode(exchange))


def sink(*files):
    """A function that writes bytes to all of files at once."""
    def write(chunk):
        for file in files:
            file.write(chunk)
            file.flush()
    return write


def pump(ended, sinks, seconds):
    """Passes what arrives at descriptors on to their functions until ended(); False when time was up first."""
    deadline = time.monotonic() + seconds
    selector = selectors.DefaultSelector()
    for descriptor in sinks:
        os.set_blocking(descriptor, False)
        selector.register(descriptor, selectors.EVENT_READ)
    while True:
        # The state first: what is written before the end is read after it.
        over = ended()
        now = time.monotonic()
        if now >= deadline and not over:
            return False
        events = selector.select(0 if over else min(deadline - now, 0.02))
        for key, _ in events:
            try:
                chunk = os.read(key.fd, 65536)
            except ConnectionResetError:
                chunk = b""
            if chunk:
                sinks[key.fd](chunk)
            else:
                selector.unregister(key.fd)
        if over and not events:
            return True


def report(status, log_bytes, options, text):
    """A line about what went wrong, after the end of the kernel's log."""
    if not options.verbose:
        # A boot that went well is of no interest.
        since = log_bytes.rpartition(b" as init process\n")[2].rpartition(COMMAND_STARTS)[2]
        for line in since.splitlines()[-LOG_LINES_SHOWN:]:
            print("lab: kernel: " + line.decode(errors="replace"), file=sys.stderr)
    if text:
        print(f"lab: {text}", file=sys.stderr)
    return status


def first_warning(log, known):
    """The first line of the log that a sound kernel does not say, or None. What has one of known near it does not count."""
    lines = log.splitlines()
    starts = [number for number, line in enumerate(lines) if WARNINGS.search(line)] + [len(lines)]
    for start, end in zip(starts, starts[1:]):
        near = lines[start:min(end, start + REPORT_LINES_MAX)]
        if not any(words in line for words in known for line in near):
            return lines[start].decode(errors="replace")
    return None


def conclude(options, in_time, status_file, log_bytes, known=()):
    """The status of a run, said on standard error when it is not 0."""
    if not in_time:
        return report(STATUS_TIMEOUT, log_bytes, options, f"not done in {options.timeout:g} s: killed")
    try:
        status = int(status_file.read_text())
    except (OSError, ValueError):
        # Why may be far above what is shown of the log.
        why = first_warning(log_bytes, known)
        return report(STATUS_KERNEL, log_bytes, options, "the kernel ended before the command" + (f": {why}" if why else ""))
    warning = first_warning(log_bytes, known)
    if warning and not options.allow_warnings:
        return report(status or STATUS_KERNEL, log_bytes, options, f"the kernel's log has: {warning}")
    return report(status, log_bytes, options, None) if status != 0 else 0


def end(received, _):
    # Once: a second signal, as a process group gets it, would interrupt the cleaning up.
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    sys.exit(128 + received)


def run_guarded(work):
    """Runs work in a child that outlives even a SIGKILL of this process, to clean up after it; its status."""
    parent = os.getpid()
    child = os.fork()
    if child != 0:
        for number in ENDING_SIGNALS:
            signal.signal(number, lambda received, _: os.kill(child, received))
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    for number in ENDING_SIGNALS:
        signal.signal(number, end)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        sys.exit(128 + signal.SIGTERM)
    return work()


def main(parse, run):
    """The whole program: options from parse(), run(options) under guard."""
    try:
        options = parse()
        sys.exit(run_guarded(lambda: run(options)))
    except BrokenPipeError:
        os._exit(128 + signal.SIGPIPE)
