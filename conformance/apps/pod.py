"""Processes of the kernel laboratory, started inside a pod's network namespace and cgroup.

  pod.py app                 an application: carries out the JSON lines on its standard input and
                             answers each with one
  pod.py serve NAME [ADDRESS PORT]...
                             a server: greets with `NAME LOCAL-ADDRESS LOCAL-PORT PEER-ADDRESS`, then
                             answers each line with `NAME line`; without addresses it serves the
                             listening socket that is its standard input
  pod.py udp ADDRESS PORT    answers each datagram with itself
"""

import contextlib
import ctypes
import errno
import json
import mmap
import os
import socket
import struct
import sys
import threading
import time

TIMEOUT_S = 5
FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}
IPPROTO_MPTCP = 262


def greet(name, connection):
    with connection, contextlib.suppress(OSError):  # clients come and go as the tests want
        local, peer = connection.getsockname(), connection.getpeername()
        connection.sendall(f"{name} {local[0]} {local[1]} {peer[0]}\n".encode())
        for line in connection.makefile("rb"):
            connection.sendall(f"{name} ".encode() + line)


def accept(name, listener):
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # a test shut it down
            return
        threading.Thread(target=greet, args=(name, connection), daemon=True).start()


def serve(name, addresses):
    listeners = []
    for address, port in zip(addresses[::2], addresses[1::2]):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, int(port)))
        listener.listen(4096)
        listeners.append(listener)
    if not listeners:
        listeners = [socket.socket(fileno=0)]
        listeners[0].setblocking(True)
    for listener in listeners:
        threading.Thread(target=accept, args=(name, listener), daemon=True).start()
    print("ready", flush=True)
    threading.Event().wait()


def udp(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.socket(family, socket.SOCK_DGRAM)
    server.bind((address, int(port)))
    print("ready", flush=True)
    while True:
        data, peer = server.recvfrom(2048)
        server.sendto(data, peer)


def uring_connect(connection, address):
    """connect() by an io_uring of one entry; io_uring_setup(2), io_uring_enter(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    parameters = ctypes.create_string_buffer(120)
    ring = libc.syscall(425, 1, parameters)
    if ring < 0:
        raise OSError(ctypes.get_errno(), "io_uring_setup")
    # struct io_uring_params: sq_off at 40 (head, tail, ring_mask, ring_entries, flags, dropped,
    # array), cq_off at 80 (head, tail, ring_mask, ring_entries, overflow, cqes).
    sq_tail, sq_array = struct.unpack_from("I", parameters, 44)[0], struct.unpack_from("I", parameters, 64)[0]
    cqes = struct.unpack_from("I", parameters, 100)[0]
    # With IORING_FEAT_SINGLE_MMAP (5.4) both rings are in one mapping.
    rings = mmap.mmap(ring, 4096, offset=0)
    entries = mmap.mmap(ring, 4096, offset=0x10000000)
    packed = struct.pack("=H2s4s8s", socket.AF_INET, struct.pack("!H", address[1]),
                         socket.inet_aton(address[0]), b"")
    target = ctypes.create_string_buffer(packed, 16)
    # struct io_uring_sqe: opcode 16 is IORING_OP_CONNECT, off is the length of the address.
    entries[0:64] = struct.pack("=BBHiQQ40x", 16, 0, 0, connection.fileno(), 16, ctypes.addressof(target))
    struct.pack_into("I", rings, sq_array, 0)
    struct.pack_into("I", rings, sq_tail, 1)
    if libc.syscall(426, ring, 1, 1, 1, None, 0) < 0:  # IORING_ENTER_GETEVENTS
        raise OSError(ctypes.get_errno(), "io_uring_enter")
    result = struct.unpack_from("=i", rings, cqes + 8)[0]
    os.close(ring)
    if result < 0:
        raise OSError(-result, os.strerror(-result))


def connect(order):
    protocol = IPPROTO_MPTCP if order.get("mptcp") else 0
    connection = socket.socket(FAMILIES[order.get("family", "inet")], socket.SOCK_STREAM, protocol)
    connection.settimeout(order.get("timeout", TIMEOUT_S))
    if order.get("v6only"):
        connection.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if "device" in order:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, order["device"].encode())
    if "source" in order:
        connection.bind((order["source"], 0))
    to = (order["to"], order["port"])
    begin = time.monotonic()
    how = order.get("how", "blocking")
    if how == "fastopen":
        connection.settimeout(None)
        connection.sendto(b"first\n", socket.MSG_FASTOPEN, to)
        connection.settimeout(TIMEOUT_S)
    elif how == "nonblocking":
        connection.setblocking(False)
        code = connection.connect_ex(to)
        if code not in (0, errno.EINPROGRESS):
            raise OSError(code, os.strerror(code))
        connection.settimeout(TIMEOUT_S)
    elif how == "io_uring":
        connection.settimeout(None)
        uring_connect(connection, to)
        connection.settimeout(TIMEOUT_S)
    else:
        connection.connect(to)
    took = time.monotonic() - begin
    lines = connection.makefile("rb")
    greeting = lines.readline().decode().split()
    if how == "fastopen":
        lines.readline()
    peer = connection.getpeername()
    return connection, lines, {
        "greeting": greeting, "peer": [peer[0], peer[1]], "us": int(took * 1e6)}


def measure(order):
    """Median time of connect() in nanoseconds over `times` connections, each closed at once."""
    to = (order["to"], order["port"])
    times = []
    for _ in range(order["times"]):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            begin = time.perf_counter_ns()
            connection.connect(to)
            times.append(time.perf_counter_ns() - begin)
    times.sort()
    return {"median_ns": times[len(times) // 2]}


def become(order):
    """Goes to another network namespace and cgroup, as the next process with this one's id would."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(order["netns"]) as netns:
        if libc.setns(netns.fileno(), 0x40000000):  # CLONE_NEWNET
            raise OSError(ctypes.get_errno(), "setns")
    with open(order["cgroup"] + "/cgroup.procs", "w") as processes:
        processes.write(str(os.getpid()))
    return {}


def app():
    open_connections = {}
    for line in sys.stdin:
        order = json.loads(line)
        try:
            if order["do"] == "connect":
                begin = time.monotonic()
                connection, lines, answer = connect(order)
                open_connections[order.get("name", "")] = (connection, lines)
            elif order["do"] == "say":
                connection, lines = open_connections[order["name"]]
                connection.sendall(b"hello\n")
                heard = lines.readline().decode().split()
                answer = {"heard": heard} if heard else {"error": "EOF"}
            elif order["do"] == "become":
                answer = become(order)
            elif order["do"] == "measure":
                answer = measure(order)
            else:
                datagrams = socket.socket(FAMILIES[order.get("family", "inet")], socket.SOCK_DGRAM)
                datagrams.settimeout(TIMEOUT_S)
                datagrams.connect((order["to"], order["port"]))
                datagrams.send(b"hello")
                answer = {"heard": [datagrams.recv(64).decode()]}
        except socket.timeout:
            answer = {"error": "timeout"}
        except OSError as error:
            answer = {"error": errno.errorcode.get(error.errno, str(error))}
        if "error" in answer and order["do"] == "connect":
            answer["us"] = int((time.monotonic() - begin) * 1e6)
        print(json.dumps(answer), flush=True)


if sys.argv[1] == "app":
    app()
elif sys.argv[1] == "serve":
    serve(sys.argv[2], sys.argv[3:])
else:
    udp(sys.argv[2], sys.argv[3])
