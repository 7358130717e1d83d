#!/usr/bin/env python3
"""The least that a client of `heartline serve` must do, with the framing `lines`.

usage: client.py HOST PORT [BOUND], with BOUND in seconds: heartbeat + retry * missed, 20 by default
"""
import random
import socket
import sys
import time

HOST, PORT = sys.argv[1], int(sys.argv[2])
BOUND = float(sys.argv[3]) if len(sys.argv) > 3 else 20.0


def hold(conn):
    """Reads until the connection ends. Returns whether the server said anything."""
    conn.settimeout(BOUND / 4)
    conn.sendall(b"hello\n")
    pending, heard_at, heard = b"", time.monotonic(), False
    while True:
        try:
            data = conn.recv(65536)
        except socket.timeout:
            if time.monotonic() - heard_at >= BOUND:
                return heard  # silent for too long: the server or the way to it is gone
            conn.sendall(b"ping\n")  # any answer shows that it lives
            continue
        if not data:
            return heard  # closed by the server
        heard_at, heard = time.monotonic(), True
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            if line == b"ping":
                conn.sendall(b"pong\n")
            elif line != b"pong":
                print(line.decode(errors="replace"), flush=True)


failures = 0
while True:
    try:
        with socket.create_connection((HOST, PORT), timeout=5) as conn:
            failures = 0 if hold(conn) else failures + 1
    except OSError as error:
        print(f"lost: {error}", file=sys.stderr)
        failures += 1
    # A random wait, so that a fleet does not come back at the same instant.
    time.sleep(random.uniform(0.05, min(30, 0.5 * 2 ** min(failures, 6))))
