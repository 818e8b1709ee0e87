#!/usr/bin/env bash
# Builds the programs of the previous release from this repository's history, for the tests of upgrades
# (tests/tests/all/upgrade.rs). They are in target/previous/VERSION.
#
#   tests/previous.sh
set -euo pipefail
cd "$(dirname "$0")/.."
read -r version commit < tests/previous
target=${CARGO_TARGET_DIR:-target}
folder=$target/previous/$version
if [ -x "$folder/zentra" ]; then
    exit
fi
if ! git cat-file -e "$commit^{commit}" 2>/dev/null; then
    echo "skipped: this clone has no history of $version, so no upgrade from it is tested" >&2
    exit
fi
sources=$target/previous/sources
rm -rf "$sources"
mkdir -p "$sources" "$folder.new"
git archive "$commit" | tar -x -C "$sources"
# In the same folder as this version's build, which has most of the libraries. Its programs have the same names there,
# so this version is built afterwards.
cargo build --locked --manifest-path "$sources/Cargo.toml" --target-dir "$target" \
    -p zentra-ingress -p zentra-worker -p zentra-cli
cp "$target/debug/zentra-ingress" "$target/debug/zentra-worker" "$target/debug/zentra" "$folder.new/"
"$folder.new/zentra" --version | grep -qx "zentra $version"
mv "$folder.new" "$folder"
rm -rf "$sources"
