"""One measurement: kvctl bench loads a cluster while its processes are watched."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

from systems import TARGET

TICKS = os.sysconf("SC_CLK_TCK")


class Watch(threading.Thread):
    """What processes take while they are under load."""

    def __init__(self, servers):
        super().__init__(daemon=True)
        self.servers, self.ended, self.samples = servers, threading.Event(), []

    def run(self):
        while not self.ended.wait(0.25):
            self.samples.append(sample(self.servers))

    def between(self, begin, end):
        """What changed from one moment to another, and the most memory."""
        within = [s for s in self.samples if begin <= s["at"] <= end]
        if len(within) < 2:
            return None
        first, last = within[0], within[-1]
        change = {key: last[key] - first[key] for key in ("at", "cpu", "disk", "net")}
        return {**change, "memory": max(s["memory"] for s in within)}


def sample(servers):
    cpu = memory = disk = 0
    for pid in servers:
        process = Path("/proc") / str(pid)
        try:
            fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
            cpu += (int(fields[11]) + int(fields[12])) / TICKS
            memory += int(re.search(r"VmRSS:\s+(\d+)", (process / "status").read_text())[1]) * 1024
            disk += int(re.search(r"^write_bytes: (\d+)", (process / "io").read_text(), re.M)[1])
        except (OSError, TypeError):
            continue
    net = int(re.search(r"lo:\s*(\d+)", Path("/proc/net/dev").read_text())[1])
    return {"at": time.monotonic(), "cpu": cpu, "memory": memory, "disk": disk, "net": net}


def load(cluster, op, clients, seconds, *arguments, fails_quietly=False):
    """Loads a cluster whose keys are there, and returns what kvctl and the watch say."""
    command = [TARGET / "kvctl", "bench", *cluster.load_arguments(), "--op", op, "--clients", str(clients)]
    command += ["--seconds", str(seconds), "--filled", "-o", "json", *arguments]
    watch = Watch(cluster.servers())
    watch.start()
    before = os.times()
    begun = time.monotonic()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    after = os.times()
    watch.ended.set()
    watch.join()
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines or (done.returncode != 0 and not fails_quietly):
        sys.exit(f"bench: {' '.join(map(str, command))}: {done.stdout}{done.stderr}")
    result = json.loads(lines[-1])
    result["system"] = cluster.name
    result["arguments"] = list(arguments)
    # After the warm-up, which kvctl begins with.
    taken = watch.between(begun + 1.2, begun + 1 + seconds)
    if taken and result["ops_per_s"] > 0:
        operations = result["ops_per_s"] * taken["at"]
        result["server_us"] = 1e6 * taken["cpu"] / operations
        result["disk_bytes"] = taken["disk"] / operations
        result["net_bytes"] = taken["net"] / operations
        result["memory_mib"] = taken["memory"] / 2**20
    client = after.children_user + after.children_system - before.children_user - before.children_system
    result["client_us"] = 1e6 * client / max(1, result["ops_per_s"] * (seconds + 1))
    return result


def fill(cluster, *arguments):
    """Writes all keys once."""
    command = [TARGET / "kvctl", "bench", *cluster.load_arguments(), "--op", "get", "--clients", "64"]
    command += ["--seconds", "0.2", "--timeout", "60s", "-o", "json", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"bench: {' '.join(map(str, command))}: {done.stdout}{done.stderr}")
