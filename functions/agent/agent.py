"""The agent inside a function's container: one function, one request at a time.

It speaks HTTP/1.1 with keep-alive on a unix socket and goes through the three stages that the offload
controller tells apart:

    GET  /status   {"stage": "runtime" | "ready" | "failed", ...}: answers once the runtime is up
    POST /init     imports the function's module, which builds what it keeps between requests
    POST /run      calls handler(ctx) with the request's JSON body in ctx.input, answers with its JSON

Standard library only, so that it runs under any Python 3.9 or later.

    python3 agent.py --socket PATH --function FILE [--name NAME]
"""

import argparse
import gc
import http.server
import importlib.util
import json
import os
import resource
import socketserver
import sys
import time
import traceback

# What functions commonly import is loaded with the runtime, as the language runtimes of function
# platforms do: it is shared by all functions and makes up the Runtime Pucket.
import asyncio  # noqa: F401
import concurrent.futures  # noqa: F401
import datetime  # noqa: F401
import decimal  # noqa: F401
import email.message  # noqa: F401
import hashlib  # noqa: F401
import html.parser  # noqa: F401
import logging
import random  # noqa: F401
import ssl  # noqa: F401
import urllib.request  # noqa: F401
import uuid  # noqa: F401
import xml.etree.ElementTree  # noqa: F401
import zipfile  # noqa: F401

BODY_BYTES_MAX = 1 << 20


class Context:
    """What a handler gets: the request's input and facts about the container's life."""

    __slots__ = ("function", "input", "request_count")

    def __init__(self, function, request_input, request_count):
        self.function = function
        self.input = request_input
        self.request_count = request_count


class Agent:
    """The function and the stage it is in."""

    def __init__(self, name, path):
        self.name = name
        self.path = path
        self.stage = "runtime"
        self.module = None
        self.request_count = 0

    def status(self):
        return 200, {"stage": self.stage, "function": self.name, "requests": self.request_count}

    def init(self):
        """Imports the function. A second call answers as the first did."""
        if self.stage == "ready":
            return self.status()
        started = time.monotonic()
        spec = importlib.util.spec_from_file_location("function", self.path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        if not callable(getattr(module, "handler", None)):
            raise TypeError(f"{self.path} has no handler(ctx)")
        self.module = module
        # What initialization made stays for the container's life: without this every full collection
        # would walk over it, and so bring pages back that no request needs.
        gc.collect()
        gc.freeze()
        self.stage = "ready"
        return 200, {"stage": "ready", "init_ms": round((time.monotonic() - started) * 1000, 3)}

    def run(self, body):
        if self.stage != "ready":
            return 409, {"error": f"the function is not initialized (stage {self.stage})"}
        self.request_count += 1
        return 200, self.module.handler(Context(self.name, body, self.request_count))


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection: the gateway's."""

    protocol_version = "HTTP/1.1"
    # Head and body leave in one write.
    wbufsize = -1
    agent = None

    def do_GET(self):
        if self.path != "/status":
            return self.answer(404, {"error": "no such path"})
        return self.answer(*self.agent.status())

    def do_POST(self):
        try:
            body = self.body()
        except ValueError as error:
            self.close_connection = True
            return self.answer(400, {"error": str(error)})
        if self.path == "/init":
            return self.stage(self.agent.init)
        if self.path == "/run":
            before = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
            return self.stage(lambda: self.agent.run(body), faults_before=before)
        return self.answer(404, {"error": "no such path"})

    def body(self):
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 <= length <= BODY_BYTES_MAX:
            raise ValueError(f"a body has at most {BODY_BYTES_MAX} bytes")
        text = self.rfile.read(length)
        return json.loads(text) if text else {}

    def stage(self, work, faults_before=None):
        """A function that raises is a failed request, not the end of the agent; a failed init is final."""
        try:
            status, result = work()
        except Exception as error:
            traceback.print_exc()
            if self.agent.stage != "ready":
                self.agent.stage = "failed"
            status, result = 500, {"error": f"{type(error).__name__}: {error}"}
        self.answer(status, result, faults_before)

    def answer(self, status, result, faults_before=None):
        body = json.dumps(result, separators=(",", ":"), sort_keys=True).encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if faults_before is not None:
            # Pages that this request had to wait for, its answer's text included.
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_majflt - faults_before
            self.send_header("X-Farmem-Major-Faults", str(faults))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def address_string(self):
        return "gateway"

    def log_message(self, format, *arguments):
        logging.info(format, *arguments)


class Server(socketserver.UnixStreamServer):
    request_queue_size = 8

    def handle_error(self, request, client_address):
        """A connection that broke is the gateway's business; what broke is in the log."""
        traceback.print_exc()


def main():
    parser = argparse.ArgumentParser(description="in-container agent of a Farmem function")
    parser.add_argument("--socket", required=True, help="unix socket to listen on")
    parser.add_argument("--function", required=True, help="file with handler(ctx)")
    parser.add_argument("--name", default="function", help="name for status and errors")
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    Handler.agent = Agent(options.name, options.function)
    # Renamed into place when it listens: who sees the socket can connect.
    starting = options.socket + ".starting"
    for path in (starting, options.socket):
        if os.path.exists(path):
            os.unlink(path)
    with Server(starting, Handler) as server:
        os.rename(starting, options.socket)
        server.serve_forever(poll_interval=3600)


if __name__ == "__main__":
    main()
