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
    check mypy --no-error-summary
    check lint-imports --no-logo
    set -- tests/unit tests/replay tests/integration
fi

status=0
[ -z "$failed" ] || echo "These checks failed before the tests: ${failed#, }."
if [ -n "$whole" ]; then
    # Two at once, since most tests wait; those that measure how long a killed worker is waited for run alone.
    pytest --quiet -n 2 --dist loadfile "$@" || status=$?
    pytest --quiet tests/acceptance || status=$?
else
    pytest "$@" || status=$?
fi
[ -z "$failed" ] || [ "$status" -ne 0 ] || status=1
exit "$status"
