"""The cost of importing the package and its client layer, and of making a Client.

    python benchmarks/micro/client_creation.py [--rounds 15]

Each round is a process of its own, because the first import, and the first client, come only once
in a process. The script also shows the import that all of it needs: asyncio, ssl and http.client.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

LATER = 200
"""Clients made after the second one; their median counts."""

AIM = 0.1
"""Milliseconds that the second client, and each later one, may take."""

# This runs in a process of its own. A client that was never used has nothing to close.
SOURCE = f"""
import json, statistics, time
now = time.perf_counter
times = {{}}

def timed(name, code):
    code = compile(code, "", "exec")
    begin = now()
    exec(code, globals())
    times[name] = (now() - begin) * 1e3

timed("import asyncio, ssl, http.client", "import asyncio, ssl, http.client")
timed("import aiohttpconn", "import aiohttpconn")
timed("aiohttpconn.Client, whose first use imports it", "aiohttpconn.Client")
timed("Client(), the first", "aiohttpconn.Client()")
timed("Client(), the second", "aiohttpconn.Client()")
later = []
for _ in range({LATER}):
    begin = now()
    aiohttpconn.Client()
    later.append((now() - begin) * 1e3)
times["Client(), later"] = statistics.median(later)
timed("ConnectionPool()", "aiohttpconn.ConnectionPool()")
print(json.dumps(times))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    found: dict[str, list[float]] = {}
    # The first round does not count: it writes compiled modules.
    for number in range(rounds + 1):
        done = subprocess.run([sys.executable, "-c", SOURCE], stdout=subprocess.PIPE, check=True)
        for name, milliseconds in json.loads(done.stdout).items():
            if number:
                found.setdefault(name, []).append(milliseconds)
    for name, values in found.items():
        print(f"{min(values):7.3f} ms (median {statistics.median(values):7.3f})  {name}")
    for name in ("Client(), the second", "Client(), later"):
        reached = "yes" if statistics.median(found[name]) <= AIM else "no"
        print(f"{name}: at most {AIM} ms: {reached}")


if __name__ == "__main__":
    main()
