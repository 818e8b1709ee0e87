#!/usr/bin/env bash
# Prints the section of a version in the changelog.
#
#   deploy/packages/notes.sh 0.3.0
set -euo pipefail
cd "$(dirname "$0")/../.."
awk -v heading="## ${1:?the version}" '
  index($0, "## ") == 1 { inside = ($0 == heading || index($0, heading " ") == 1); next }
  inside
' CHANGELOG.md
