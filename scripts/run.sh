#!/usr/bin/env bash
# `make run`: makes a Git repository of examples-repo/, starts the daemon on it
# and says what to try. Ctrl-C ends the daemon and leaves the pods running.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
  echo "make run needs root rights: it makes containers, namespaces and packet rules. Try: sudo make run" >&2
  exit 1
fi

repo=$PWD/.run/fleet
kubeconfig=$PWD/.run/kubeconfig
mkdir -p .run
if [ ! -d "$repo/.git" ]; then
  cp -r examples-repo "$repo"
  git -C "$repo" init -q -b main
  git -C "$repo" add .
  git -C "$repo" -c user.name=shoal -c user.email=shoal@localhost commit -qm "What runs here"
fi

address=$(scripts/containerd.sh start)
mkdir -p /var/lib/shoal/images
if [ ! -e .run/images-built ]; then
  bin/examples -hello bin/hello -out /var/lib/shoal/images >/dev/null
  touch .run/images-built
fi

bin/shoal run --repository "$repo" --containerd-address "$address" &
daemon=$!
trap 'kill -TERM $daemon 2>/dev/null || true' INT TERM

ready() { bin/shoal status --output json 2>/dev/null | grep -q '"observed": true'; }
for _ in $(seq 150); do
  kill -0 $daemon 2>/dev/null || break
  ready && break
  sleep 0.2
done
if kill -0 $daemon 2>/dev/null; then
  bin/shoal kubeconfig >"$kubeconfig"
  chmod 600 "$kubeconfig"
  cat <<TXT

  Shoal runs what $repo says. Try, in another terminal:

    kubectl --kubeconfig $kubeconfig get pods -A -o wide
    bin/shoal status
    curl http://127.0.0.1:30080/          the hello Service
    curl http://127.0.0.1:30081/          a page from Git
    sed -i 's/Hello from Git/Hello again/' $repo/hello/hello.yaml && git -C $repo commit -qam 'Say it differently'

  Ctrl-C ends the daemon; pods run on. make reset removes every trace.

TXT
fi
wait $daemon && status=0 || status=$?
# A second wait: the first one ends early when a signal arrives.
wait $daemon 2>/dev/null || true
exit $status
