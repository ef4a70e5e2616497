# Run `just` for a list. `check` never writes; `fix` does.

set shell := ["bash", "-euo", "pipefail", "-c"]

# The list of recipes.
default:
    @just --list

# Format, lints, dependency rules and documentation.
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    .ci/dependency-rules
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items --quiet

# Format, and repair what clippy can.
fix:
    cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
    cargo fmt --all

# All tests, or those whose names contain a word; they start real ZooKeepers in Docker, or keeperd with KV_TEST_ZOOKEEPER=embedded.
test *ARGS:
    cargo test --workspace {{ ARGS }}

# Faults of every kind against real processes, with all that clients hear checked: `just chaos --faults 1000`, `--hours 8`; as root.
chaos *ARGS:
    cargo run --release --quiet -p quorumkv-chaos -- {{ ARGS }}

# What CI runs.
ci:
    bash .ci/run

# Explore a model of the protocol: `just model --nodes 3 --epochs 3 --writes 1`.
model *ARGS:
    cargo run --release -p quorumkv-model -- {{ ARGS }}

# Licences, known vulnerabilities and sources of the dependencies (needs cargo-deny).
deny:
    @command -v cargo-deny >/dev/null || { echo "cargo-deny is not installed: cargo install --locked cargo-deny" >&2; exit 1; }
    cargo deny check

# The image of kvd and kvctl, compiled here.
image:
    tests/kvd-image/build

# A ZooKeeper image, where none can be pulled.
zookeeper-image:
    tests/zookeeper-image/build

# Three ZooKeepers and three kvd in the background, at 127.0.0.1:5000, :5001 and :5002.
up:
    @docker image inspect "${KVD_IMAGE:-quorumkv:local}" >/dev/null 2>&1 || just image
    @docker image inspect "${ZOOKEEPER_IMAGE:-zookeeper:3.9}" >/dev/null 2>&1 || just zookeeper-image
    just compose up -d

# Stop them; `just down -v` deletes their data as well.
down *ARGS:
    just compose down {{ ARGS }}

# Docker compose, as a plugin or the older command, with the ZooKeeper image that is there.
compose *ARGS:
    #!/usr/bin/env bash
    set -euo pipefail
    if [[ -z ${ZOOKEEPER_IMAGE:-} ]] && ! docker image inspect zookeeper:3.9 >/dev/null 2>&1; then
        export ZOOKEEPER_IMAGE=quorumkv-zookeeper:local
    fi
    if docker compose version >/dev/null 2>&1; then docker compose {{ ARGS }}; else docker-compose {{ ARGS }}; fi

# Simulated clusters: many seeds, or one seed with all that happens in it.
sim *ARGS:
    cargo run --profile sim --quiet -p quorumkv-simulator -- {{ ARGS }}

# Which deliberate bugs the simulator finds, and how soon.
mutants *ARGS:
    cargo run --profile sim --quiet -p quorumkv-simulator --features mutants -- mutants {{ ARGS }}

# Fuzz all decoders and the recovery of logs, or some targets: `just fuzz --seconds 600`, `just fuzz snapshot`, `just fuzz --list`.
fuzz *ARGS:
    scripts/fuzz {{ ARGS }}

# The tables of docs/performance.md from scratch, beside etcd, ZooKeeper and Redis: `just bench`, `just bench peers --rounds 1`, `just bench --help`.
bench *ARGS:
    scripts/bench {{ ARGS }}

# What codec, log, core and state cost by themselves: `just microbench`, `just microbench -p quorumkv-wal`.
microbench *ARGS="-p quorumkv-protocol -p quorumkv-wal -p quorumkv-replica -p kvd":
    cargo bench {{ ARGS }} --benches
