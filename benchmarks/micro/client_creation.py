"""What does it cost to import the package, to import its client layer, and to make a Client?

    python benchmarks/micro/client_creation.py [--rounds 15]

Each round is a process of its own: what is imported, and made, for the first time is so only once
in one. Beside it what all of it needs anyway: asyncio, ssl and http.client.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

LATER = 200
"""Clients that are made after the second one, whose median counts."""

AIM = 0.1
"""Milliseconds that the second client and later ones take at most."""

# In a process of its own. A client that was never used has nothing to close.
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
    # The first is not counted: it writes compiled modules.
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
