"""The systems that are measured: kvd and its peers, as clusters on this machine with their default durability."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
HOST = "127.0.0.1"


def address(port):
    return f"{HOST}:{port}"


class Cluster:
    """Processes that belong together, with their data in one directory."""

    name = "?"
    base = 0

    def __init__(self, data, nodes=3):
        self.directory = Path(data) / self.name
        self.nodes = nodes
        self.processes = {}

    def __enter__(self):
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        self.start()
        return self

    def __exit__(self, *_):
        for process in self.processes.values():
            process.send_signal(signal.SIGTERM)
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def run(self, name, command, **options):
        with open(self.directory / f"{name}.log", "ab") as log:
            self.processes[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **options
            )

    def ports(self):
        return range(self.base, self.base + self.nodes)

    def endpoints(self):
        return ",".join(address(port) for port in self.ports())

    def wait_for_ports(self):
        deadline = time.monotonic() + 60
        for port in self.ports():
            while True:
                try:
                    socket.create_connection((HOST, port), 1).close()
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        sys.exit(f"bench: {self.name} does not listen on port {port}; see {self.directory}")
                    time.sleep(0.2)

    def servers(self):
        """The processes that count as its own."""
        return [process.pid for process in self.processes.values()]

    def load_arguments(self):
        """What tells kvctl bench to load this."""
        return ["--only-compared", "--compare", f"{self.name}={self.endpoints()}"]


class Kvd(Cluster):
    name = "kvd"
    base = 26100
    keeper_port = 26190

    def start(self):
        keeper = [TARGET / "keeperd", "--port", str(self.keeper_port), "--data-dir", self.directory / "keeper"]
        self.run("keeper", keeper)
        for port in self.ports():
            self.start_node(port)
        self.wait_until_well()

    def start_node(self, port, wrapper=()):
        command = [TARGET / "kvd", "--port", str(port), "--zookeeper", address(self.keeper_port)]
        command += ["--data-dir", self.directory / str(port), "--cluster-size", str(self.nodes)]
        self.run(str(port), [*wrapper, *command])

    def kvctl(self, *arguments, **options):
        command = [TARGET / "kvctl", "-e", self.endpoints(), *arguments]
        return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)

    def wait_until_well(self, seconds=60):
        deadline = time.monotonic() + seconds
        while (status := self.kvctl("status")).returncode != 0:
            if time.monotonic() > deadline:
                sys.exit(f"bench: the cluster is not well: {status.stdout}{status.stderr}")
            time.sleep(0.05)

    def servers(self):
        return [process.pid for name, process in self.processes.items() if name != "keeper"]

    def load_arguments(self):
        return ["-e", self.endpoints()]


class Etcd(Cluster):
    name = "etcd"
    base = 26200

    def start(self):
        peer = lambda port: f"http://{address(port + 50)}"
        members = ",".join(f"n{port}={peer(port)}" for port in self.ports())
        for port in self.ports():
            client = f"http://{address(port)}"
            command = ["etcd", "--name", f"n{port}", "--data-dir", self.directory / str(port), "--log-level", "warn"]
            command += ["--listen-client-urls", client, "--advertise-client-urls", client]
            command += ["--listen-peer-urls", peer(port), "--initial-advertise-peer-urls", peer(port)]
            command += ["--initial-cluster", members, "--initial-cluster-state", "new"]
            self.run(str(port), command)
        self.wait_for_ports()
        time.sleep(3)


class ZooKeeper(Cluster):
    name = "zookeeper"
    base = 26300

    def start(self):
        java = "/usr/share/java"
        ensemble = [f"server.{i}={HOST}:{port + 40}:{port + 60}" for i, port in enumerate(self.ports(), 1)]
        for i, port in enumerate(self.ports(), 1):
            home = self.directory / str(port)
            (home / "data").mkdir(parents=True)
            (home / "data/myid").write_text(f"{i}\n")
            settings = ["tickTime=2000", "initLimit=10", "syncLimit=5", f"dataDir={home}/data", "maxClientCnxns=0"]
            settings += [f"clientPort={port}", f"clientPortAddress={HOST}", "admin.enableServer=false"]
            settings += ["4lw.commands.whitelist=srvr,mntr", *ensemble]
            (home / "zoo.cfg").write_text("\n".join(settings) + "\n")
            (home / "log4j.properties").write_text("log4j.rootLogger=OFF\n")
            path = ":".join([str(home), *(f"{java}/{jar}.jar" for jar in ("zookeeper", "slf4j-log4j12", "log4j-1.2"))])
            main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
            options = ["-Xmx512m", "-Dzookeeper.jmx.log4j.disable=true"]
            self.run(str(port), ["java", *options, "-cp", path, main, home / "zoo.cfg"])
        self.wait_for_ports()
        time.sleep(5)


class Redis(Cluster):
    name = "redis"
    base = 26400

    def start(self):
        for port in self.ports():
            home = self.directory / str(port)
            home.mkdir()
            command = ["redis-server", "--port", str(port), "--bind", HOST, "--dir", home, "--save", ""]
            command += ["--appendonly", "yes", "--appendfsync", "always", "--repl-diskless-sync-delay", "0"]
            if port != self.base:
                command += ["--replicaof", f"{HOST} {self.base}"]
            self.run(str(port), command)
        self.wait_for_ports()
        time.sleep(3)


PEERS = [Etcd, ZooKeeper, Redis]


def install_peers():
    """Installs Debian's packages of the peers, where something is missing."""
    needed = {"etcd": "etcd-server", "redis-server": "redis-server", "java": "default-jre-headless"}
    missing = [package for command, package in needed.items() if not shutil.which(command)]
    jars = {"zookeeper": "libzookeeper-java", "log4j-1.2": "liblog4j1.2-java", "slf4j-log4j12": "libslf4j-java"}
    missing += [package for jar, package in jars.items() if not Path(f"/usr/share/java/{jar}.jar").exists()]
    if missing:
        print(f"installing {' '.join(missing)}", file=sys.stderr)
        subprocess.run(["apt-get", "-q", "update"], check=True, stdout=subprocess.DEVNULL)
        install = ["apt-get", "-q", "-y", "install", "--no-install-recommends", *missing]
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(install, check=True, stdout=subprocess.DEVNULL, env=environment)
