#!/bin/sh
# Makes .venv with the pinned dependencies and this checkout in it; `setup.sh dev` adds what the tests need.
# Silent and quick when there is nothing to do.
set -eu
cd "$(dirname "$0")/.."
extra=${1:-run}

wanted="$(pwd -P) $(cat pyproject.toml deploy/constraints.txt | cksum)"
for kind in "$extra" dev; do
    stamp=".venv/setup-$kind"
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && .venv/bin/python -c "" 2>/dev/null; then
        exit 0
    fi
done

usable='import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))'
python=""
for candidate in python3.14 python3.13 python3.12 python3.11 python3; do
    if "$candidate" -c "$usable" >/dev/null 2>&1; then
        python=$candidate
        break
    fi
done

# Scripts in a virtual environment name its folder, so one that was moved is made anew.
moved=$(cat .venv/setup-* 2>/dev/null | grep -v -F -x "$wanted" | grep -v -F "$(pwd -P) " || true)
if [ -n "$moved" ] || ! .venv/bin/python -c "import pip; $usable" 2>/dev/null; then
    if [ -z "$python" ]; then
        echo "Python 3.11 or newer with its venv module is needed, and none of python3.14 to python3.11 and python3 is that (on Debian: apt-get install python3 python3-venv)." >&2
        exit 1
    fi
    echo "Making .venv with $("$python" --version) and the pinned dependencies; the first time this takes about half a minute." >&2
    rm -rf .venv
    "$python" -m venv .venv
else
    echo "Bringing .venv up to date." >&2
fi
rm -f .venv/setup-*

if [ "$extra" = run ]; then
    .venv/bin/python deploy/install.py
else
    .venv/bin/python deploy/install.py "$extra"
fi
echo "$wanted" >".venv/setup-$extra"
