#!/usr/bin/env bash
# Renders the chart with many sets of values, by Helm's own engine, and checks what comes out. The tools come from PyPI.
#
#   bash deploy/helm/check.sh [FOLDER_OF_THE_PROGRAMS]
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-target}
tools=$target/helm-tools
if [ ! -x "$tools/bin/python" ]; then /usr/bin/python3 -m venv "$tools"; fi
"$tools/bin/pip" install --quiet --disable-pip-version-check helm-python-sdk==0.2.2 kubernetes-validate==1.37.0 PyYAML==6.0.4
exec "$tools/bin/python" deploy/helm/check.py "${1:-$target/debug}"
