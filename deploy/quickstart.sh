#!/bin/sh
# From a fresh clone to an agent at work: `sh deploy/quickstart.sh`. Arguments go to `mandate demo`.
# Where nobody can type, the demo answers itself what its agent asks of people.
set -eu
cd "$(dirname "$0")/.."
sh deploy/setup.sh
if ! [ -t 0 ] || ! [ -t 1 ]; then
    set -- --yes "$@"
fi
exec .venv/bin/mandate demo "$@"
