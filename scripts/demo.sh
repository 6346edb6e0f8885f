#!/usr/bin/env bash
# `make demo`: three nodes on this machine, each in a network namespace of its
# own, with its own state and its own pods, on examples-repo. One of them dies;
# its pods come back elsewhere. Everything is removed at the end, also after an
# error or Ctrl-C.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
  echo "make demo needs root rights: it makes containers, namespaces and packet rules. Try: sudo make demo" >&2
  exit 1
fi

work=$(mktemp -d /tmp/shoal-demo.XXXXXX)
tag=sd$((RANDOM % 9000 + 1000)) # names of namespaces and links
nodes=(1 2 3)
declare -A daemon
address= had= # of containerd, and whether it ran before

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
shoal() { # NODE ARGS...: a command on a node
  local n=$1
  shift
  nsenter --net="/run/netns/$tag-$n" -- bin/shoal "$@" --state "$work/$n/state" --run "$work/$n/run"
}
status() { shoal "$1" status "${@:2}" 2>/dev/null || true; }
start() { # NODE
  nsenter --net="/run/netns/$tag-$1" -- bin/shoal run --state "$work/$1/state" --run "$work/$1/run" --node "n$1" \
    --containerd-address "$address" --containerd-namespace "$tag-$1" >>"$work/$1/log" 2>&1 &
  daemon[$1]=$!
}
cleanup() {
  set +e
  say "Removing everything"
  for n in "${nodes[@]}"; do
    [ -z "${daemon[$n]:-}" ] || kill -TERM "${daemon[$n]}" 2>/dev/null
  done
  wait
  for n in "${nodes[@]}"; do
    [ ! -e "/run/netns/$tag-$n" ] || shoal "$n" reset --yes --containerd-address "$address" --containerd-namespace "$tag-$n"
    ip netns del "$tag-$n" 2>/dev/null
  done
  ip link del "$tag" 2>/dev/null
  [ -n "$had" ] || scripts/containerd.sh stop
  rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# since prints the seconds since a time.
now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f s", b - a }'; }
# until_ok SECONDS WHAT COMMAND...: waits for a command to succeed.
until_ok() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@"; do
    if [ $SECONDS -gt $deadline ]; then
      echo "demo: not in time: $what" >&2
      for n in "${nodes[@]}"; do echo "--- the log of n$n"; tail -n 15 "$work/$n/log"; done >&2
      exit 1
    fi
    sleep 0.1
  done
}
# The checks read a node's status as JSON, one field a line.
members() { [ "$(status "$1" --output json | grep -c '"podCIDR"')" = "$2" ] && status "$1" --output json | grep -q '"quorate": true'; }
voters() { status "$1" | awk '$3 == "voter" || $3 == "leader"' | wc -l | grep -qx 3; }
all_ready() { status "$1" | grep -Eq '^pods +([0-9]+) of \1 ready'; }
hello_ready() { # EYES WANT: so many pods of hello are ready, those on lost nodes left out
  [ "$(kube "$1" get pods -l app=hello -o 'jsonpath={range .items[*]}{.metadata.deletionTimestamp}{" "}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}' 2>/dev/null | grep -cx ' True')" = "$2" ]
}
kube() { # NODE ARGS...
  local n=$1
  shift
  nsenter --net="/run/netns/$tag-$n" -- kubectl --kubeconfig "$work/$n/kubeconfig" --cache-dir "$work/cache" "$@"
}

say "Three machines on one network"
[ ! -e /run/shoal-containerd/pid ] || had=yes
address=$(scripts/containerd.sh start)
repo=$work/fleet
cp -r examples-repo "$repo"
git -C "$repo" init -q -b main
git -C "$repo" add .
git -C "$repo" -c user.name=shoal -c user.email=shoal@localhost commit -qm 'What runs here'
mkdir -p "$work/images"
bin/examples -hello bin/hello -out "$work/images" >/dev/null
ip link add "$tag" type bridge
ip addr add 192.0.2.1/24 dev "$tag"
ip link set "$tag" up
for n in "${nodes[@]}"; do
  mkdir -p "$work/$n/state/images"
  ln "$work"/images/* "$work/$n/state/images/"
  ip netns add "$tag-$n"
  ip link add "$tag-$n" type veth peer name eth0 netns "$tag-$n"
  ip link set "$tag-$n" master "$tag" up
  ip -n "$tag-$n" link set lo up
  ip -n "$tag-$n" addr add "192.0.2.1$n/24" dev eth0
  ip -n "$tag-$n" link set eth0 up
  ip -n "$tag-$n" route add default via 192.0.2.1
done

say "n1 founds a fleet that follows $repo; n2 and n3 join with a token each"
shoal 1 init --node n1 --repository "$repo" | head -n 1
start 1
until_ok 20 "n1 leads" members 1 1
for n in 2 3; do
  shoal "$n" join 192.0.2.11 --node "n$n" --token "$(shoal 1 token create)" | head -n 1
  start "$n"
done
until_ok 60 "three nodes vote" voters 1
until_ok 120 "all pods are ready" all_ready 1
for n in "${nodes[@]}"; do shoal "$n" kubeconfig >"$work/$n/kubeconfig"; done
status 1
kube 1 get pods -A -o wide

leader=$(status 1 | awk '$1 == "leader" { print substr($2, 2) }')
eyes=$((leader % 3 + 1))
say "n$leader, the leader, dies: its cable is cut and everything on it is killed"
pods=$(kube "$eyes" get pods -l app=hello --no-headers | wc -l)
ip link set "$tag-$leader" down
begin=$(now)
{ kill -KILL "${daemon[$leader]}" && wait "${daemon[$leader]}"; } 2>/dev/null || true
unset "daemon[$leader]"
ctr -a "$address" -n "$tag-$leader" tasks ls 2>/dev/null | awk '$3 == "RUNNING" { print $2 }' | xargs -r kill -KILL 2>/dev/null || true
lost() { status "$eyes" | grep -Eq "^n$leader +Lost"; }
until_ok 20 "the others have noticed" lost
echo "noticed after $(since "$begin")"
until_ok 20 "its pods are back" hello_ready "$eyes" "$pods"
echo "all $pods pods of hello are ready elsewhere after $(since "$begin")"
status "$eyes"

say "n$leader comes back"
ip link set "$tag-$leader" up
begin=$(now)
start "$leader"
whole() { ! status "$eyes" | grep -Eq ' (Lost|Suspect) ' && members "$eyes" 3; }
until_ok 30 "the fleet is whole" whole
echo "the fleet is whole after $(since "$begin"); what is surplus goes within a minute"

say "A commit: hello:1 becomes hello:2"
sed -i 's/hello:1/hello:2/' "$repo/hello/hello.yaml"
begin=$(now)
git -C "$repo" -c user.name=shoal -c user.email=shoal@localhost commit -qam 'A new version'
rolled() { nsenter --net="/run/netns/$tag-$eyes" -- curl -sS -m 2 http://127.0.0.1:30080/ 2>/dev/null | grep -q 'version 2'; }
until_ok 60 "the new version answers" rolled
echo "version 2 answers after $(since "$begin"):"
nsenter --net="/run/netns/$tag-$eyes" -- curl -sS http://127.0.0.1:30080/
