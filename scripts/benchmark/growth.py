"""How the costs of kvd grow, and what it does beside its work."""

import shutil
import signal
import sys
import threading
import time
from pathlib import Path

from measure import fill, load
from systems import Etcd, Kvd, address, install_peers


def nodes(run):
    """More nodes on the same machine."""
    for count in (3, 5, 7, 9):
        with Kvd(run.data, count) as cluster:
            fill(cluster)
            for op, clients in (("put", 1), ("get", 1), ("put", 256), ("get", 256)):
                run.note("nodes", load(cluster, op, clients, run.seconds), nodes=count)


def clients(run):
    """More clients at once."""
    with Kvd(run.data) as cluster:
        fill(cluster)
        for op in ("put", "get"):
            for count in (1, 4, 16, 64, 256, 1024):
                run.note("clients", load(cluster, op, count, run.seconds))


def values(run):
    """Longer values."""
    with Kvd(run.data) as cluster:
        for size in (16, 256, 4 << 10, 64 << 10, 1 << 20):
            workload = ["--value-size", str(size), "--keys", str(min(10_000, (256 << 20) // size))]
            fill(cluster, *workload)
            for op in ("put", "get"):
                run.note("values", load(cluster, op, 16, run.seconds, *workload), value_size=size)


# Memory of one node, in bytes, page cache included: far less than the keys take. etcd needs all of its keys in memory.
CAP = 192 << 20


def keys(run):
    """More keys than fit into memory, and etcd with as many."""
    install_peers()
    for count in (10_000, 100_000, 1_000_000, 10_000_000):
        workload = ["--keys", str(count)]
        cluster = Capped(run.data)
        with cluster:
            fill(cluster, *workload)
            for op in ("put", "get", "get-local"):
                result = load(cluster, op, 64, 3 * run.seconds, *workload)
                run.note("keys", result, keys=count, capped_mib=cluster.capped_mib)
    with Etcd(run.data) as cluster:
        workload = ["--keys", "1000000"]
        fill(cluster, *workload)
        for op in ("put", "get"):
            run.note("keys", load(cluster, op, 64, 3 * run.seconds, *workload), keys=1_000_000)


class Capped(Kvd):
    """Nodes that have little memory, each in a control group of its own."""

    capped_mib = CAP >> 20

    def start_node(self, port, wrapper=()):
        group = groups() / f"kvd-bench-{port}"
        group.mkdir(exist_ok=True)
        if (group / "memory.max").exists():
            (group / "memory.max").write_text(str(CAP))
        else:
            (group / "memory.limit_in_bytes").write_text(str(CAP))
        enter = ["sh", "-c", f'echo $$ >"{group}/cgroup.procs" && exec "$@"', "-"]
        super().start_node(port, enter)

    def __exit__(self, *of):
        super().__exit__(*of)
        for port in self.ports():
            (groups() / f"kvd-bench-{port}").rmdir()


def groups():
    """Where control groups for memory are."""
    version_1 = Path("/sys/fs/cgroup/memory")
    if version_1.exists():
        return version_1
    (version_1.parent / "cgroup.subtree_control").write_text("+memory")
    return version_1.parent


def restart(run):
    """How long a node with many keys takes to be well again, after it was stopped or killed."""
    workload = ["--keys", "1000000"]
    with Kvd(run.data) as cluster:
        fill(cluster, *workload)
        load(cluster, "put", 64, 1, *workload)
        port = cluster.ports()[-1]
        for how in (signal.SIGTERM, signal.SIGKILL):
            process = cluster.processes[str(port)]
            process.send_signal(how)
            process.wait()
            begun = time.monotonic()
            cluster.start_node(port)
            cluster.wait_until_well()
            run.note("restart", {"how": how.name, "keys": 1_000_000, "seconds": round(time.monotonic() - begun, 2)})


def restore(run):
    """What a replica that is being restored from nothing costs the others' clients."""
    workload = ["--keys", "300000"]
    with Kvd(run.data) as cluster:
        fill(cluster, *workload)
        for op in ("put", "get"):
            for _ in range(2):
                run.note("restore", load(cluster, op, 64, 2 * run.seconds, *workload), phase="whole")
                port = follower(cluster)
                process = cluster.processes[str(port)]
                process.kill()
                process.wait()
                shutil.rmtree(cluster.directory / str(port))
                run.note("restore", load(cluster, op, 64, run.seconds, *workload), phase="one is down")
                begun = time.monotonic()
                cluster.start_node(port)
                well = Wait(cluster, begun)
                result = load(cluster, op, 64, 2 * run.seconds, *workload, fails_quietly=True)
                run.note("restore", result, phase="being restored")
                well.join()
                run.note("restore", {"op": op, "phase": "restored", "seconds": well.seconds})


class Wait(threading.Thread):
    """Waits until a cluster is well."""

    def __init__(self, cluster, begun):
        super().__init__(daemon=True)
        self.cluster, self.begun, self.seconds = cluster, begun, None
        self.start()

    def run(self):
        time.sleep(1)
        self.cluster.wait_until_well(300)
        self.seconds = round(time.monotonic() - self.begun, 1)


def follower(cluster):
    """The port of a node that does not lead."""
    leader = cluster.kvctl("leader").stdout
    for port in cluster.ports():
        if address(port) not in leader:
            return port
    sys.exit(f"bench: there is no follower beside {leader}")


PARTS = {"nodes": nodes, "clients": clients, "values": values, "keys": keys, "restart": restart, "restore": restore}
