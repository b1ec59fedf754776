#!/bin/sh
# All checks and tests: `sh deploy/test.sh`. With arguments it is pytest alone: `sh deploy/test.sh tests/unit -k budget`.
set -eu
cd "$(dirname "$0")/.."
sh deploy/setup.sh dev
PATH="$(pwd)/.venv/bin:$PATH"
export PATH
failed=""

check() {
    if ! said=$("$@" 2>&1); then
        printf '%s\n%s\n' "FAILED: $*" "$said"
        failed="$failed, $1 $2"
    fi
}

whole=""
if [ $# -eq 0 ]; then
    whole=yes
    check ruff format --check --quiet .
    check ruff check --quiet .
    check lint-imports --no-logo
    # Beside the tests, most of which wait.
    types=$(mktemp)
    mypy --no-error-summary >"$types" 2>&1 &
    typed=$!
fi

status=0
[ -z "$failed" ] || echo "These checks failed before the tests: ${failed#, }."
if [ -n "$whole" ]; then
    # Four at once, since most tests wait, each with a file at a time in the order of tests/conftest.py.
    pytest --quiet --hypothesis-profile thorough -n 4 --dist loadfile --no-loadscope-reorder -m "not alone" || status=$?
    # Those that measure how long a worker is waited for, or that look at the default port, where demos are too.
    pytest --quiet -m "alone and not cluster" tests/acceptance tests/integration/cli tests/integration/loop || status=$?
    # Last, since Temporal's cluster server is built meanwhile where it is not kept from before.
    pytest --quiet -m cluster tests/acceptance || status=$?
else
    pytest "$@" || status=$?
fi
if [ -n "$whole" ]; then
    if ! wait "$typed"; then
        printf 'FAILED: mypy\n'
        failed="$failed, mypy"
    fi
    cat "$types"
    rm -f "$types"
fi
[ -z "$failed" ] || [ "$status" -ne 0 ] || status=1
exit "$status"
