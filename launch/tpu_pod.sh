#!/bin/bash
# Runs one jaxmoe command on every worker of a TPU VM slice.
set -euo pipefail

usage="usage: launch/tpu_pod.sh [--dry-run] TPU ZONE COMMAND …
       launch/tpu_pod.sh [--dry-run] TPU ZONE --stop

Copies the last commit to every worker of the slice, installs it with the tpu extra, and runs the
jaxmoe command there. It shows the lines of worker 0; all write to ~/jaxmoe.log. A lost connection
does not end the run. --stop sends SIGTERM: the run saves and ends. --dry-run prints what it would
run here.

  launch/tpu_pod.sh my-tpu us-west4-a train configs/video/ucf101_j_tlat.py --data.directory DIR

JAXMOE_CACHE, JAXMOE_START_TIMEOUT and JAX_OPTIMIZATION_LEVEL are passed on."

# Installs Python 3.11 as well: the images of TPU VMs may have an older one.
install=$(
    cat <<'REMOTE'
set -eu
mkdir -p ~/jaxmoe
tar -xzf ~/jaxmoe.tar.gz -C ~/jaxmoe
python3 -m pip install --quiet --user uv
[ -d ~/jaxmoe-env ] || python3 -m uv venv --quiet --python 3.11 ~/jaxmoe-env
python3 -m uv pip install --quiet --python ~/jaxmoe-env/bin/python -e "$HOME/jaxmoe[tpu]"
REMOTE
)

# The workers' names and numbers are metadata of the machine. With ssh they are in no variable.
start=$(
    cat <<'REMOTE'
set -eu
cd ~/jaxmoe
if [ -f ~/jaxmoe.pid ] && kill -0 "$(cat ~/jaxmoe.pid)" 2>/dev/null; then
    echo "a run goes on here; --stop ends it, tail -f ~/jaxmoe.log shows it" >&2
    exit 1
fi
attribute() {
    curl -sf -H 'Metadata-Flavor: Google' \
        "http://metadata.google.internal/computeMetadata/v1/instance/attributes/$1"
}
number=$(attribute agent-worker-number)
# NAME,NAME,… or NAME:NUMBER:ADDRESS,…
hosts=$(attribute worker-network-endpoints | tr ',' '\n' | sed 's/.*://')
count=$(printf '%s\n' "$hosts" | wc -l | tr -d ' ')
if [ "$count" -gt 1 ]; then
    first=$(printf '%s\n' "$hosts" | head -n 1)
    export JAX_COORDINATOR_ADDRESS="$first:8482"
    export JAX_NUM_PROCESSES="$count" JAX_PROCESS_ID="$number"
fi
: >~/jaxmoe.log # before the command opens it: tail must find it
nohup ~/jaxmoe-env/bin/jaxmoe "$@" >>~/jaxmoe.log 2>&1 </dev/null &
pid=$!
echo "$pid" >~/jaxmoe.pid
if [ "$number" -eq 0 ]; then
    tail -n +1 --pid="$pid" -f ~/jaxmoe.log || true
fi
code=0
wait "$pid" || code=$?
rm -f ~/jaxmoe.pid
if [ "$number" -ne 0 ] && [ "$code" -ne 0 ]; then
    tail -n 20 ~/jaxmoe.log | sed "s/^/[$number] /" >&2
fi
exit "$code"
REMOTE
)

# shellcheck disable=SC2016 # the worker expands it
stop='kill -TERM "$(cat ~/jaxmoe.pid)"'

dry=false
if [ "${1:-}" = --dry-run ]; then
    dry=true
    shift
fi
if [ $# -lt 3 ]; then
    echo "$usage" >&2
    exit 2
fi
name=$1 zone=$2
shift 2

run() {
    if $dry; then
        printf '%q ' "$@"
        echo
    else
        "$@"
    fi
}

on_all_workers() {
    run gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"
}

if [ "$1" = --stop ]; then
    on_all_workers "$stop"
    exit
fi

passed_on=""
for variable in JAXMOE_CACHE JAXMOE_START_TIMEOUT JAX_OPTIMIZATION_LEVEL; do
    if [ -n "${!variable:-}" ]; then
        passed_on+=$(printf 'export %s=%q; ' "$variable" "${!variable}")
    fi
done

archive=$(mktemp -d)/jaxmoe.tar.gz
trap 'rm -rf "$(dirname "$archive")"' EXIT
run git -C "$(dirname "$0")/.." archive --format=tar.gz --output="$archive" HEAD
run gcloud compute tpus tpu-vm scp "$archive" "$name:jaxmoe.tar.gz" --zone="$zone" --worker=all
on_all_workers "$install"
on_all_workers "${passed_on}set --$(printf ' %q' "$@"); $start"
