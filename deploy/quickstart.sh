#!/bin/sh
# From a fresh clone to an agent at work: `sh deploy/quickstart.sh`. Arguments go to `mandate demo`.
set -eu
cd "$(dirname "$0")/.."
sh deploy/setup.sh
exec .venv/bin/mandate demo "$@"
