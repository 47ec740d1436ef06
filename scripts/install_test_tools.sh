#!/usr/bin/env bash
# Installs what the outside tests need: tools from Debian where we may (root and apt-get), Python packages into .venv.
# What cannot be installed is named; the tests that need it then skip and say so.
set -euo pipefail
cd "$(dirname "$0")/.."

declare -A package_of=(
    [mkfs.xfs]=xfsprogs
    [redis-server]=redis-server [redis-cli]=redis-tools [redis-benchmark]=redis-tools
    [strace]=strace [nc]=netcat-openbsd [taskset]=util-linux [mkfs.ext4]=e2fsprogs
)
missing() { # prints the packages whose tools are not here
    for tool in "${!package_of[@]}"; do
        command -v "$tool" >/dev/null 2>&1 || [ -x "/usr/sbin/$tool" ] || echo "${package_of[$tool]}"
    done | sort -u
}

wanted=$(missing)
if [ -n "$wanted" ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing from Debian: ${wanted//$'\n'/ }"
    # A package that starts a redis-server of its own on port 6379 would be in the way: forbid service starts.
    policy=/usr/sbin/policy-rc.d
    [ -e "$policy" ] || { printf '#!/bin/sh\nexit 101\n' >"$policy"; chmod 755 "$policy"; trap 'rm -f "$policy"' EXIT; }
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq || echo "apt-get update failed: going on with the lists that are here"
    for package in $wanted; do
        apt-get install -y -qq --no-install-recommends "$package" >/dev/null || echo "could not install $package"
    done
fi
for package in $(missing); do
    echo "not here: $package (tests that need it are skipped; install it to run them)"
done

# The stamp holds the requirements that .venv was made from.
if ! cmp -s tests/requirements.txt .venv/requirements.stamp; then
    if ! python3 -m venv .venv 2>/dev/null; then
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
            apt-get install -y -qq --no-install-recommends python3-venv >/dev/null
            python3 -m venv .venv
        else
            echo "python3 cannot make a virtual environment: install python3-venv and run this again" >&2
            exit 1
        fi
    fi
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
    cp tests/requirements.txt .venv/requirements.stamp
fi
