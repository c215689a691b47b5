#!/usr/bin/env bash
# Peers, each in an environment of its own under build/peers: pyscnn would replace torch, adelie
# needs numpy < 2.  A peer that cannot be installed is reported and left out by the benchmarks.
set -u
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
build() {
    local name=$1 check=$2 folder=build/peers/$1
    shift 2
    if [ -x "$folder/bin/python" ] && "$folder/bin/python" -c "$check" 2>/dev/null; then
        echo "$name: ready"; return
    fi
    rm -rf "$folder" && "$python" -m venv "$folder"
    local part
    for part in "$@"; do
        # shellcheck disable=SC2086
        if ! "$folder/bin/python" -m pip install -q $part 2> "$folder/pip.log"; then
            echo "$name: NOT INSTALLED ($part): $(grep -m1 ERROR "$folder/pip.log")"; return
        fi
    done
    if "$folder/bin/python" -c "$check"; then echo "$name: built"; else echo "$name: BROKEN"; fi
}
build adelie "import adelie" "numpy<2 adelie==1.1.52"
build celer "import celer" "celer==0.7.4"
build scnn "import scnn.optimize" "torch==2.13.0 numpy<2.3 scipy tqdm opt_einsum linalg_backends" \
    "--no-deps pyscnn==0.0.10"
build loss_landscapes "import torch, loss_landscapes" "torch==2.13.0 numpy==2.4.6" \
    "loss-landscapes==3.0.6"
build landscaper "import torch, landscaper" "torch==2.13.0 numpy==2.4.6" "landscaper==1.3.1"
