"""Results as Markdown tables, and how costs grow as a plot."""

import json
from collections import defaultdict
from statistics import median

import plot

NAMES = {"kvd": "quorumkv", "etcd": "etcd", "zookeeper": "ZooKeeper", "redis": "Redis", "limit": "limit"}
MEANING = {
    ("etcd", "put"): "put", ("zookeeper", "put"): "setData", ("redis", "put"): "SET + WAIT 1",
    ("etcd", "get"): "linearizable get", ("zookeeper", "get"): "sync + getData", ("redis", "get"): "GET at the leader",
    ("etcd", "get-local"): "serializable get", ("zookeeper", "get-local"): "getData", ("redis", "get-local"): "GET",
    ("limit", "put"): "bare quorum of logs", ("limit", "get"): "bare quorum get", ("limit", "get-local"): "bare local get",
    ("kvd", "get"): "quorum get", ("kvd", "get-local"): "local get", ("kvd", "put-through-all"): "put, through all nodes",
}


def show(paths, plot_path):
    results = defaultdict(list)
    for path in paths:
        for line in open(path):
            result = json.loads(line)
            results[result["part"]].append(result)
    peers(results["peers"])
    growth(results)
    if plot_path:
        plot.draw(results, plot_path)


def table(title, header, rows):
    if rows:
        print(f"\n**{title}**\n")
        print("| " + " | ".join(header) + " |")
        print("|" + "---|" * len(header))
        for row in rows:
            print("| " + " | ".join(row) + " |")


def number(value, digits=3):
    """With so many digits, or as many as stand before the point."""
    if value is None:
        return "–"
    if value >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def middle(results, key):
    values = [result[key] for result in results if result.get(key) is not None]
    return median(values) if values else None


def peers(results):
    by = defaultdict(list)
    for result in results:
        by[result["op"], result["system"], result["clients"]].append(result)
    clients = sorted({count for _, _, count in by})
    kinds = list(dict.fromkeys((op, system) for op, system, _ in by))
    kinds.sort(key=lambda kind: ["put", "put-through-all", "get", "get-local", "mixed"].index(kind[0]))
    rows = []
    for op, system in kinds:
        of = lambda count: by.get((op, system, count), [])
        name = f"{NAMES[system]} {MEANING.get((system, op), op)}"
        last = of(256) or of(64)
        figures = [number(middle(last, key)) for key in ("p99_ms", "p999_ms", "server_us", "memory_mib")]
        figures += [number(middle(last, key)) if op == "put" else "" for key in ("disk_bytes", "net_bytes")]
        rows.append([name, *(number(middle(of(count), "ops_per_s")) for count in clients), *figures])
    header = ["ops/s, by clients", *map(str, clients), "p99 ms", "p99.9 ms", "server µs/op", "MiB of all nodes"]
    table("Medians; from p99 on at the most clients", [*header, "disk B/op", "network B/op"], rows)
    ratios(by)


RATIOS = [
    ("put, 256 clients, over etcd", "put", "etcd", 256, "ops_per_s", "8"),
    ("put, 256 clients, over ZooKeeper", "put", "zookeeper", 256, "ops_per_s", "5"),
    ("put, 256 clients, over Redis + WAIT", "put", "redis", 256, "ops_per_s", "2.5"),
    ("put, 256 clients, of the bare quorum", "put", "limit", 256, "ops_per_s", "0.6"),
    ("put, 1 client, median latency over the bare quorum's", "put", "limit", 1, "p50_ms", "at most 1.5"),
    ("quorum get, 256 clients, over etcd", "get", "etcd", 256, "ops_per_s", "12"),
    ("quorum get, 256 clients, over ZooKeeper", "get", "zookeeper", 256, "ops_per_s", "9"),
    ("quorum get, 256 clients, of the bare quorum get", "get", "limit", 256, "ops_per_s", "0.35"),
    ("quorum get, 1 client, median latency over the bare quorum get's", "get", "limit", 1, "p50_ms", "at most 1.6"),
    ("local get, 256 clients, of Redis GET", "get-local", "redis", 256, "ops_per_s", "0.4"),
    ("mixed, 64 clients, over etcd", "mixed", "etcd", 64, "ops_per_s", "8"),
    ("put, 256 clients, p99 over etcd's", "put", "etcd", 256, "p99_ms", "below 1"),
    ("put, 256 clients, p99 over ZooKeeper's", "put", "zookeeper", 256, "p99_ms", "below 1"),
    ("put, 256 clients, p99 over Redis's", "put", "redis", 256, "p99_ms", "below 1"),
]


def ratios(by):
    def rounds(op, system, clients, key):
        return {result["round"]: result[key] for result in by.get((op, system, clients), []) if key in result}

    rows = []
    for name, op, system, clients, key, floor in RATIOS:
        ours, theirs = rounds(op, "kvd", clients, key), rounds(op, system, clients, key)
        found = [ours[round] / theirs[round] for round in ours if theirs.get(round)]
        if found:
            rows.append([name, number(median(found)), ", ".join(map(number, found)), floor])
    ours, theirs = rounds("put-through-all", "kvd", 64, "ops_per_s"), rounds("put", "kvd", 64, "ops_per_s")
    found = [ours[round] / theirs[round] for round in ours if theirs.get(round)]
    if found:
        name = "put, 64 clients, through all nodes over at the leader"
        rows.append([name, number(median(found)), ", ".join(map(number, found)), "0.7"])
    table("Ratios within each round", ["ratio", "median", "rounds", "wanted"], rows)


FIGURES = [
    ("ops/s", "ops_per_s"), ("p50 ms", "p50_ms"), ("p99 ms", "p99_ms"), ("p99.9 ms", "p999_ms"),
    ("max ms", "max_ms"), ("server µs/op", "server_us"), ("MiB of all nodes", "memory_mib"),
]


def growth(results):
    for part, key, title in [
        ("nodes", "nodes", "Nodes"), ("clients", None, "Clients"), ("values", "value_size", "Bytes in a value, 16 clients"),
        ("keys", "keys", "Keys, 64 clients; each node with 192 MiB of memory"), ("restore", "phase", "A replica restored meanwhile, 64 clients"),
    ]:
        loads = [result for result in results[part] if "ops_per_s" in result]
        rows = []
        for result in loads:
            label = [number(result[key]) if isinstance(result[key], int) else result[key]] if key else []
            system = [NAMES[result["system"]]] if part == "keys" else []
            what = [*label, *system, result["op"], str(result["clients"])]
            rows.append([*what, *(number(result.get(figure)) for _, figure in FIGURES)])
        header = [*([key] if key else []), *(["system"] if part == "keys" else []), "op", "clients"]
        table(title, [*header, *(name for name, _ in FIGURES)], rows)
    for part in ("restart", "restore"):
        times = [result for result in results[part] if "seconds" in result]
        rows = [[str(result.get("how") or result["op"]), number(result["seconds"])] for result in times]
        title = "Until a node with 10^6 keys is well again, after" if part == "restart" else "Until the replica is restored, under"
        table(title, [part, "s"], rows)
