#!/usr/bin/env bash
# Builds the receiving libraries as packages and installs them beside what their tests and examples need, in
# target/inbox. Does nothing if nothing has changed.
#
#   inbox/install.sh
set -euo pipefail
cd "$(dirname "$0")"
target=$(mkdir -p "${CARGO_TARGET_DIR:-../target}/inbox" && cd "${CARGO_TARGET_DIR:-../target}/inbox" && pwd)
# A package of the former content must not stay after an error.
stamp=$(find . -type f -not -name '*.pyc' -print0 | sort -z | xargs -0 sha256sum | sha256sum)
if [ "$(cat "$target/stamp" 2>/dev/null)" = "$stamp" ]; then exit; fi
rm -f "$target/stamp"

# What the tests need is installed again only if its versions change.
node=$target/node
mkdir -p "$node"
if ! cmp -s node/test/package-lock.json "$node/lock"; then
    cp node/test/package.json node/test/package-lock.json "$node/"
    # better-sqlite3 is compiled with this system's headers: by itself it downloads a compiled one.
    if [ -d /usr/include/node ]; then export npm_config_nodedir=/usr; fi
    export npm_config_build_from_source=true
    (cd "$node" && npm ci --ignore-scripts --no-audit --no-fund && npm rebuild better-sqlite3)
    cp node/test/package-lock.json "$node/lock"
fi
package=$(cd node && npm pack --silent --pack-destination "$target")
(cd "$node" && npm install --no-save --ignore-scripts --no-audit --no-fund "$target/$package")
cp node/test/*.mjs node/test/use.ts node/test/tsconfig.json node/examples/*.mjs "$node/"

venv=$target/venv
if ! cmp -s python/tests/requirements.txt "$venv/requirements.txt"; then
    rm -rf "$venv"
    /usr/bin/python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps -r python/tests/requirements.txt
    cp python/tests/requirements.txt "$venv/"
fi
rm -rf "$target/dist"
"$venv/bin/python" -m build --no-isolation --outdir "$target/dist" python > "$target/build.log" || { cat "$target/build.log" >&2; exit 1; }
"$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps --force-reinstall "$target"/dist/*.whl

echo "$stamp" > "$target/stamp"
