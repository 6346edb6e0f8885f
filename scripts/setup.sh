#!/usr/bin/env bash
# Installs what Shoal runs on and what its tests use, on Debian and Ubuntu.
# Packages that are there already cost nothing.
#
#   setup.sh run     containerd, runc, iptables, CNI plugins, git
#   setup.sh test    also what the tests need: ssh, redis, nginx, busybox, kubectl
set -euo pipefail

want=${1:-run}
packages=(containerd runc iptables containernetworking-plugins git iproute2 redis-server nginx-light busybox-static)
if [ "$want" = test ]; then
  packages+=(openssh-client openssh-server conntrack curl procps)
fi

missing=()
for p in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || missing+=("$p")
done
if [ ${#missing[@]} -gt 0 ]; then
  if [ "$(id -u)" != 0 ]; then
    echo "setup: these packages are missing and only root can install them: ${missing[*]}" >&2
    exit 1
  fi
  echo "setup: installing ${missing[*]}"
  # Services of these packages are not wanted: the examples and tests run
  # their own.
  policy=/usr/sbin/policy-rc.d
  made=
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    made=yes
  fi
  trap '[ -z "$made" ] || rm -f "$policy"' EXIT
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if ! command -v go >/dev/null; then
  echo "setup: Go 1.26 or newer is needed: https://go.dev/doc/install" >&2
  exit 1
fi

# kubectl is used if it is there, and built from its source if not.
if [ "$want" = test ] && ! command -v kubectl >/dev/null; then
  root=$(cd "$(dirname "$0")/.." && pwd)
  mkdir -p "$root/bin"
  if [ ! -x "$root/bin/kubectl" ]; then
    # It needs modules that Shoal does not: they go into a copy of go.mod.
    mod=$(mktemp -d)
    cp "$root/go.mod" "$root/go.sum" "$mod"
    (cd "$root" && CGO_ENABLED=0 go build -mod=mod -modfile="$mod/go.mod" -trimpath -ldflags '-s -w' -o bin/kubectl k8s.io/kubernetes/cmd/kubectl)
    rm -rf "$mod"
  fi
fi
