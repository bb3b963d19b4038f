#!/usr/bin/env python3
"""Speaks to farmem.ko's generic netlink family over a raw socket; kernel-patch/module/farmem_uapi.h says what is in a message.

farmem_netlink.py attach NAME BACKEND SIZE [CAPACITY [reserve]] [WORD=VALUE...] | detach NAME | status [NAME]

Sizes in bytes. Words are those of the status (address=192.0.2.1 port=50000 lease=far0 read_deadline=1000 queues=2 poll=1 ...), key_name
and key_secret. Prints what the kernel answers as JSON, a line for each device. Ends with the errno that the kernel sent.
"""

import json
import os
import socket
import struct
import sys

NETLINK_GENERIC, NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 16, 1, 4, 0x300
SOL_NETLINK, NETLINK_EXT_ACK, NLMSG_ERROR, NLMSG_DONE = 270, 11, 2, 3
GENL_ID_CTRL, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME = 16, 3, 1, 2
COMMANDS = {"attach": 1, "detach": 2, "status": 3}
NAME, BACKEND, SIZE, CAPACITY, RESERVE, DISK, USED, OPENERS, COUNTERS, READ_LATENCY, WRITE_LATENCY = range(2, 13)
(ADDRESS, PORT, LEASE, KEY_NAME, KEY_SECRET, ATTACH_DEADLINE, READ_DEADLINE, WRITE_DEADLINE, QUEUES, POLL, SYNCHRONOUS,
 STATE, SLAB, FRONTEND, AREA) = range(13, 28)
TEXTS = {NAME: "name", BACKEND: "backend", DISK: "disk", ADDRESS: "address", LEASE: "lease", STATE: "state",
         FRONTEND: "frontend", AREA: "area"}
NUMBERS = {SIZE: "size", CAPACITY: "capacity", USED: "used"}
SMALL = {OPENERS: "openers", ATTACH_DEADLINE: "attach_deadline", READ_DEADLINE: "read_deadline", WRITE_DEADLINE: "write_deadline",
         SLAB: "slab"}
SHORT = {PORT: "port", QUEUES: "queues"}
FLAGS = {RESERVE: "reserve", POLL: "poll", SYNCHRONOUS: "synchronous"}
LATENCIES = {READ_LATENCY: "read_latency", WRITE_LATENCY: "write_latency"}
COUNTER_NAMES = (
    "pages_read pages_written pages_discarded slots_freed read_errors write_errors rejected_capacity rejected_memory "
    "rejected_range rejected_alignment rejected_operation rejected_gone injected reads_timed_out writes_timed_out reads_lost "
    "rejected_lost rejected_server completion_errors repeated sessions slabs_granted slabs_returned "
    "faults polls deferred"
).split()


def attribute(kind, value):
    return struct.pack("HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def text(kind, value):
    return attribute(kind, value.encode() + b"\0")


def attributes(data):
    while len(data) >= 4:
        length, kind = struct.unpack_from("HH", data)
        yield kind & 0x3FFF, data[4:length]
        data = data[(length + 3) & ~3:]


def ask(link, kind, flags, command, body):
    """The bodies of the answers, without their headers."""
    payload = struct.pack("BBH", command, 1, 0) + body
    link.send(struct.pack("IHHII", 16 + len(payload), kind, NLM_F_REQUEST | flags, 1, 0) + payload)
    answers = []
    while True:
        data = link.recv(1 << 16)
        while data:
            length, kind, flags = struct.unpack_from("IHH", data)
            if kind in (NLMSG_ERROR, NLMSG_DONE):
                error = -struct.unpack_from("i", data, 16)[0]
                if error:
                    said = {}
                    if flags & 0x200:
                        request = 0 if flags & 0x100 else struct.unpack_from("I", data, 20)[0] - 16
                        said = dict(attributes(data[36 + request:length]))
                    print(f"{os.strerror(error)} {said.get(1, b'').rstrip(bytes(1)).decode()}", file=sys.stderr)
                    sys.exit(error)
                return answers
            answers.append(data[20:length])
            data = data[(length + 3) & ~3:]


def report(answer):
    found = {"reserve": False}
    for kind, value in attributes(answer):
        if kind in TEXTS:
            found[TEXTS[kind]] = value[:-1].decode()
        elif kind in NUMBERS:
            found[NUMBERS[kind]] = struct.unpack("Q", value)[0]
        elif kind in SMALL:
            found[SMALL[kind]] = struct.unpack("I", value)[0]
        elif kind in SHORT:
            found[SHORT[kind]] = struct.unpack("H", value)[0]
        elif kind in FLAGS:
            found[FLAGS[kind]] = True
        elif kind in LATENCIES:
            found[LATENCIES[kind]] = struct.unpack(f"{len(value) // 8}Q", value)
        elif kind == COUNTERS:
            found |= {COUNTER_NAMES[i - 2]: struct.unpack("Q", v)[0] for i, v in attributes(value) if i >= 2}
    print(json.dumps(found))


def option(word, value):
    """The attribute of WORD=VALUE."""
    for kind, name in (TEXTS | {KEY_NAME: "key_name"}).items():
        if name == word:
            return text(kind, value)
    for names, form in ((SMALL, "I"), (SHORT, "H")):
        for kind, name in names.items():
            if name == word:
                return attribute(kind, struct.pack(form, int(value)))
    for kind, name in FLAGS.items():
        if name == word:
            return attribute(kind, b"")
    if word == "key_secret":
        return attribute(KEY_SECRET, bytes.fromhex(value))
    sys.exit(f"unknown word {word}")


def main():
    command, words = sys.argv[1], [word for word in sys.argv[2:] if "=" not in word]
    options = b"".join(option(*word.split("=", 1)) for word in sys.argv[2:] if "=" in word)
    body = b""
    if words:
        body = text(NAME, words[0])
    if command == "attach":
        body += text(BACKEND, words[1]) + attribute(SIZE, struct.pack("Q", int(words[2])))
        if words[3:]:
            body += attribute(CAPACITY, struct.pack("Q", int(words[3])))
        if words[4:] == ["reserve"]:
            body += attribute(RESERVE, b"")
        body += options
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC) as link:
        link.bind((0, 0))
        link.settimeout(30)
        link.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        family = dict(attributes(ask(link, GENL_ID_CTRL, NLM_F_ACK, CTRL_CMD_GETFAMILY, text(CTRL_ATTR_FAMILY_NAME, "farmem"))[0]))
        number = struct.unpack("H", family[CTRL_ATTR_FAMILY_ID])[0]
        for answer in ask(link, number, NLM_F_ACK if words else NLM_F_DUMP, COMMANDS[command], body):
            report(answer)


main()
