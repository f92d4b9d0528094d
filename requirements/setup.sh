#!/bin/sh
# Make .venv from the locked requirements: `requirements/setup.sh` for the runtime, `… dev` with the tests' tools, and
# in .venv/mlflow the MLflow server that they log in, whose packages do not fit ours.
#
# .venv/complete-LAYER, written last, holds the digest of what the layer was made from: an interrupted or outdated
# environment lacks it and is made anew. The python is $PYTHON, python3.11 or python3, whichever is a 3.11.
set -eu
cd "$(dirname "$0")/.."
layer="${1:-runtime}"
log=logs/setup.log
needed_gib=6

fail() {
    echo "setup: $*" >&2
    exit 1
}

digest() { cat "$@" setup.py requirements/setup.sh | cksum; pwd; }

is_complete() { [ "$(cat ".venv/complete-$1" 2>/dev/null)" = "$2" ]; }

find_python() {
    for candidate in ${PYTHON:-python3.11 python3}; do
        if [ "$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" = 3.11 ]; then
            "$candidate" -c "import sys; print(sys._base_executable)" # not the one in .venv, which is made anew
            return
        fi
    done
    fail "${PYTHON:-python3.11 and python3}: no Python 3.11 there; install it, or name one with make PYTHON=/path/to/python3.11"
}

check_disk() {
    free_kib=$(df -Pk . | awk 'NR == 2 {print $4}')
    [ "$free_kib" -ge $((needed_gib * 1024 * 1024)) ] ||
        fail "disk: $((free_kib / 1024)) MiB free in $(pwd), $needed_gib GiB needed; free some space, then run it again"
}

# Run a step with its output in the log; if it fails, say the cause and the mend in one line.
step() {
    "$@" >>"$log" 2>&1 && return
    if grep -q 'No space left on device' "$log"; then
        fail "disk: full while installing (look at ., pip's cache and TMPDIR); free some space, then run it again"
    elif grep -q 'DO NOT MATCH THE HASHES' "$log"; then
        fail "packages: a download is not the locked one; run pip cache purge, check the index you use, then run it again"
    elif grep -Eq 'connection broken|Max retries exceeded|Read timed out|Temporary failure in name' "$log"; then
        fail "network: the package index cannot be reached; check the connection, the proxy and pip's index-url, then run it again"
    elif grep -q 'ensurepip' "$log"; then
        fail "python: it comes without ensurepip; install the python3.11-venv package, then run it again"
    fi
    fail "$* failed: $(grep -i error "$log" | tail -1); the whole story is in $log"
}

install() { install_with .venv/bin/python "$@"; }

install_with() {
    into=$1
    shift
    step "$into" -m pip install --quiet --disable-pip-version-check --retries 2 --no-compile "$@"
}

# To bytecode with all cores, which pip does with one. Some packages bring files that are no Python 3: pip passes them by too.
compile() { "$1/bin/python" -m compileall -qq -j 0 "$1"/lib/python3.11/site-packages >>"$log" 2>&1 || true; }

# BigDL's jars and our conf/ go where every Spark command looks: beside Spark's own.
link_into_spark() {
    spark=.venv/lib/python3.11/site-packages/pyspark
    ln -sfn "$(pwd)/conf" "$spark/conf"
    ln -sf "$(pwd)"/.venv/lib/python3.11/site-packages/bigdl/share/*/lib/*.jar "$spark/jars/"
}

make_environment() {
    python=$(find_python)
    check_disk
    echo "setup: making .venv with $python (1.5 GB of packages, a few minutes; log in $log)" >&2
    rm -rf .venv
    step "$python" -m venv .venv
}

make_runtime() {
    install --require-hashes --no-deps -r requirements/insitu.txt # the lock is whole, but for what insitu.in leaves out
    install --require-hashes --no-deps -r requirements/bigdl.txt
    install --no-deps --no-build-isolation --editable .
    compile .venv
    link_into_spark
    echo "$runtime" >.venv/complete-runtime
}

# Our Scala and C sources, compiled by the compilers that Spark and ziglang bring; Java is the one that conf/spark-env.sh
# chooses. The C goes into the jar once for each generation of processors that Native.scala knows.
make_jvm() {
    spark="$(pwd)/.venv/lib/python3.11/site-packages/pyspark"
    classes=.venv/classes
    rm -rf $classes
    mkdir -p $classes/insitu/recommend/als
    step env SPARK_HOME="$spark" "$spark/bin/spark-class" scala.tools.nsc.Main \
        -usejavacp -deprecation -Xfatal-warnings -d $classes jvm/*.scala jvm/*/*.scala
    make_native x86_64_v4 als-avx512.so
    make_native x86_64_v3 als-avx2.so
    step .venv/bin/python -m zipfile -c "$spark/jars/insitu.new.jar" $classes/*
    mv "$spark/jars/insitu.new.jar" "$spark/jars/insitu.jar" # a running Java keeps the old file
    echo "$jvm" >.venv/complete-jvm
}

make_native() {
    step .venv/bin/python -m ziglang cc -target x86_64-linux-gnu.2.17 "-march=$1" -mprefer-vector-width=512 \
        -O3 -g0 -Wall -Wextra -Werror -Wno-psabi -shared -fPIC -o "$classes/insitu/recommend/als/$2" native/*.c -lm
}

make_dev() {
    echo "setup: adding the tools of make test" >&2
    install --require-hashes -r requirements/dev.txt
    compile .venv
    echo "$dev" >.venv/complete-dev
}

# Beside the other layers, which keep one core busy.
make_mlflow() {
    log=logs/setup-mlflow.log
    : >"$log"
    rm -rf .venv/mlflow
    step .venv/bin/python -m venv .venv/mlflow
    install_with .venv/mlflow/bin/python --require-hashes --no-deps -r requirements/mlflow.txt
    compile .venv/mlflow
    echo "$mlflow" >.venv/complete-mlflow
}

runtime=$(digest requirements/insitu.txt requirements/bigdl.txt)
dev=$(digest requirements/dev.txt)
mlflow=$(digest requirements/mlflow.txt)
jvm=$(digest jvm/*.scala jvm/*/*.scala native/*)
mkdir -p logs
: >"$log"
is_complete runtime "$runtime" || make_environment
if [ "$layer" = dev ] && ! is_complete mlflow "$mlflow"; then
    make_mlflow &
    # What fails or is interrupted beside it waits for it, and leaves no set-up behind that goes on.
    trap 'echo "setup: waiting for what goes on beside" >&2; wait' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
fi
is_complete runtime "$runtime" || make_runtime
is_complete jvm "$jvm" || make_jvm
[ "$layer" = dev ] || exit 0
is_complete dev "$dev" || make_dev
trap - EXIT
wait
is_complete mlflow "$mlflow" || exit 1
