"""What kazoo needs of a server: run as `conformance.py HOST:PORT`. Ends with "all passed", or with an exception."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time

from kazoo.client import KazooClient, KazooState
from kazoo.exceptions import (
    BadVersionError,
    NoAuthError,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    RolledBackError,
    RuntimeInconsistency,
)
from kazoo.security import CREATOR_ALL_ACL, make_acl, make_digest_acl

HOSTS = sys.argv[1]
PATIENCE = 30


def connect(timeout=10.0, **options):
    client = KazooClient(hosts=HOSTS, timeout=timeout, **options)
    client.start(timeout=PATIENCE)
    return client


def until(what, condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"in vain for {PATIENCE} s: {what}"
        time.sleep(0.01)


def raises(error, call, *arguments, **options):
    try:
        result = call(*arguments, **options)
    except error:
        return
    raise AssertionError(f"{call} returned {result} instead of raising {error.__name__}")


def data_and_stats(client):
    assert client.create("/py", b"one") == "/py"
    raises(NodeExistsError, client.create, "/py")
    data, stat = client.get("/py")
    assert data == b"one" and stat.version == 0 and stat.dataLength == 3 and stat.numChildren == 0
    assert stat.czxid == stat.mzxid == stat.pzxid and abs(stat.created - time.time()) < 3600
    stat = client.set("/py", b"two", version=0)
    assert stat.version == 1 and stat.mzxid > stat.czxid
    raises(BadVersionError, client.set, "/py", b"three", version=0)
    assert client.create("/py/a/b", makepath=True) == "/py/a/b"
    assert client.get_children("/py") == ["a"]
    children, stat = client.get_children("/py", include_data=True)
    assert children == ["a"] and stat.numChildren == 1 and stat.cversion == 1
    raises(NotEmptyError, client.delete, "/py/a")
    raises(NoNodeError, client.get, "/none")
    raises(NoNodeError, client.create, "/none/below")
    assert client.exists("/none") is None
    path, stat = client.create("/py/seq-", b"x", sequence=True, include_data=True)
    assert path == "/py/seq-0000000001" and stat.dataLength == 1, (path, stat)
    path = client.create("/py/eph", ephemeral=True)
    assert client.exists(path).owner_session_id == client.client_id[0]
    assert client.sync("/py") == "/py"
    assert client.command(b"ruok") == "imok"
    assert client.server_version() >= (3, 8), client.server_version()
    client.delete("/py", recursive=True)
    assert client.exists("/py") is None


def transactions(client):
    client.create("/txn")
    txn = client.transaction()
    txn.create("/txn/a", b"1")
    txn.set_data("/txn", b"new", version=0)
    txn.check("/txn/a", version=0)
    txn.delete("/txn/a")
    results = txn.commit()
    assert results[0] == "/txn/a" and results[1].version == 1 and results[2:] == [True, True], results
    txn = client.transaction()
    txn.create("/txn/b")
    txn.check("/txn", version=7)
    txn.create("/txn/c")
    results = txn.commit()
    kinds = [type(result) for result in results]
    assert kinds == [RolledBackError, BadVersionError, RuntimeInconsistency], results
    assert client.get_children("/txn") == []


def watchers(client, other):
    client.create("/watch")
    seen, children, events = [], [], []
    client.DataWatch("/watch", lambda data, stat: seen.append(data))
    client.ChildrenWatch("/watch", lambda names: children.append(sorted(names)))
    client.exists("/watch/later", watch=lambda event: events.append((event.type, event.path)))
    other.set("/watch", b"1")
    until("the data is seen", lambda: seen[-1:] == [b"1"])
    other.create("/watch/later")
    until("the child is seen", lambda: children[-1:] == [["later"]])
    until("the creation is seen", lambda: events == [("CREATED", "/watch/later")])
    other.delete("/watch", recursive=True)
    until("the deletion is seen", lambda: seen[-1:] == [None])


def permissions(client, other):
    ann = make_digest_acl("ann", "secret", all=True)
    client.add_auth("digest", "ann:secret")
    client.create("/acl", b"mine", acl=[ann])
    acls, stat = client.get_acls("/acl")
    assert acls == [ann] and stat.aversion == 0, acls
    raises(NoAuthError, other.get, "/acl")
    raises(NoAuthError, other.set_acls, "/acl", [ann])
    client.set_acls("/acl", [ann, make_acl("world", "anyone", read=True)])
    assert other.get("/acl")[0] == b"mine"
    raises(NoAuthError, other.set, "/acl", b"yours")
    # The hash of a password is for those who may change it.
    shown = [acl.id.id for acl in other.get_acls("/acl")[0] if acl.id.scheme == "digest"]
    assert shown == ["ann:x"], shown
    friend = connect(auth_data=[("digest", "ann:secret")], default_acl=[ann])
    friend.set("/acl", b"ours")
    friend.create("/acl/below")
    raises(NoAuthError, other.get, "/acl/below")
    friend.delete("/acl", recursive=True)
    # Names no id at all, and means whoever asks.
    friend.create("/own", b"mine", acl=CREATOR_ALL_ACL)
    assert friend.get_acls("/own")[0] == [ann], friend.get_acls("/own")
    raises(NoAuthError, other.get, "/own")
    friend.delete("/own")
    stop(friend)


def locks_and_elections(client, other):
    order, mine, theirs = [], client.Lock("/lock", "client"), other.Lock("/lock", "other")
    assert mine.acquire(timeout=PATIENCE) and not theirs.acquire(blocking=False)

    def wait():
        with theirs:
            order.append("other")

    waiting = threading.Thread(target=wait)
    waiting.start()
    until("the other one waits", lambda: mine.contenders() == ["client", "other"])
    order.append("client")
    mine.release()
    waiting.join(PATIENCE)
    assert order == ["client", "other"], order

    leaders, hold = [], threading.Event()

    def lead(name):
        leaders.append(name)
        if name == "client":
            hold.wait(PATIENCE)

    runs = [threading.Thread(target=client.Election("/election", "client").run, args=(lead, "client"))]
    runs[0].start()
    until("the first one leads", lambda: leaders == ["client"])
    runs.append(threading.Thread(target=other.Election("/election", "other").run, args=(lead, "other")))
    runs[1].start()
    until("both contend", lambda: client.Election("/election").contenders() == ["client", "other"])
    hold.set()
    for run in runs:
        run.join(PATIENCE)
    assert leaders == ["client", "other"], leaders


def recipes(client, other):
    counter = client.Counter("/counter")
    counter += 3
    counter -= 1
    assert other.Counter("/counter").value == 2
    queue = client.LockingQueue("/queue")
    queue.put_all([b"1", b"2"])
    taken = other.LockingQueue("/queue")
    assert taken.get(timeout=PATIENCE) == b"1" and taken.consume()
    party = client.Party("/party", "client")
    party.join()
    assert list(other.Party("/party")) == ["client"]
    party.leave()
    barrier = client.Barrier("/barrier")
    barrier.create()
    assert not other.Barrier("/barrier").wait(0.05)
    barrier.remove()
    assert other.Barrier("/barrier").wait(PATIENCE)


def reattachment(client, other):
    """A cut connection is no loss of the session, of its ephemeral znodes or of its watches."""
    states, seen = [], []
    session = client.client_id
    client.add_listener(states.append)
    client.create("/cut", b"", ephemeral=True)
    client.get("/cut", watch=lambda event: seen.append(event.type))
    client._connection._socket.shutdown(socket.SHUT_RDWR)
    until("it has come back", lambda: states == [KazooState.SUSPENDED, KazooState.CONNECTED])
    assert client.client_id == session
    assert other.exists("/cut").owner_session_id == session[0]
    other.set("/cut", b"1")
    client.retry(client.get, "/cut")
    client.remove_listener(states.append)
    stop(client)
    until("the ephemeral znode goes with its session", lambda: other.exists("/cut") is None)


def expiry(other):
    """Who is silent for too long loses the session, and is told so when it comes back."""
    child = subprocess.Popen(
        [sys.executable, __file__, HOSTS, "child"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout.readline() == "ready\n"
        gone = threading.Event()
        stat = other.exists("/silent", watch=lambda event: event.type == "DELETED" and gone.set())
        assert stat.owner_session_id != 0
        os.kill(child.pid, signal.SIGSTOP)
        assert gone.wait(PATIENCE), "the session has not expired"
        os.kill(child.pid, signal.SIGCONT)
        out, _ = child.communicate("done\n", timeout=2 * PATIENCE)
        assert out == "lost\nnew session\n", out
    finally:
        child.kill()
        child.wait()


def silent_child():
    client = connect(timeout=1.0)
    lost = threading.Event()
    client.add_listener(lambda state: state == KazooState.LOST and lost.set())
    session = client.client_id[0]
    client.create("/silent", ephemeral=True)
    print("ready", flush=True)
    sys.stdin.readline()
    assert lost.wait(PATIENCE)
    print("lost", flush=True)
    until("there is another session", lambda: client.connected and client.client_id[0] != session)
    assert client.exists("/silent") is None
    print("new session", flush=True)


def stop(client):
    client.stop()
    client.close()


def main():
    client, other = connect(), connect()
    assert client.client_id[0] != other.client_id[0] and len(client.client_id[1]) == 16
    data_and_stats(client)
    transactions(client)
    watchers(client, other)
    permissions(client, other)
    locks_and_elections(client, other)
    recipes(client, other)
    expiry(other)
    reattachment(client, other)
    stop(other)
    print("all passed")


if __name__ == "__main__":
    if sys.argv[2:] == ["child"]:
        silent_child()
    else:
        main()
