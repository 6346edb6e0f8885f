#!/usr/bin/env bash
# Starts a private containerd for `make run` when the machine runs none, or
# stops it. It lives on when `make run` ends, as the pods do.
#
#   containerd.sh start   prints the address of the socket to use
#   containerd.sh stop
set -euo pipefail

system=/run/containerd/containerd.sock
root=/var/lib/shoal-containerd
run=/run/shoal-containerd
pidfile=$run/pid

alive() { [ -e "$pidfile" ] && kill -0 "$(cat "$pidfile")" 2>/dev/null; }

case "${1:-}" in
start)
  if [ -S "$system" ] && timeout 5 ctr -a "$system" version >/dev/null 2>&1; then
    echo "$system"
    exit
  fi
  mkdir -p "$root" "$run"
  if ! alive; then
    cat >"$run/config.toml" <<TOML
version = 2
root = "$root"
state = "$run/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.restart"]
[grpc]
  address = "$run/containerd.sock"
[ttrpc]
  address = "$run/containerd.sock.ttrpc"
TOML
    setsid containerd --config "$run/config.toml" </dev/null >"$root/containerd.log" 2>&1 &
    echo $! >"$pidfile"
  fi
  for _ in $(seq 100); do
    if timeout 5 ctr -a "$run/containerd.sock" version >/dev/null 2>&1; then
      echo "$run/containerd.sock"
      exit
    fi
    sleep 0.1
  done
  echo "containerd does not answer; see $root/containerd.log" >&2
  exit 1
  ;;
stop)
  if alive; then
    pid=$(cat "$pidfile")
    kill "$pid"
    for _ in $(seq 100); do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
  fi
  rm -rf "$root" "$run"
  ;;
*)
  echo "usage: $0 start|stop" >&2
  exit 2
  ;;
esac
