#!/usr/bin/env bash
# Builds what is released, into dist/: a Debian package, an archive, an SBOM and SHA256SUMS. Needs
# cargo-deb and cargo-cyclonedx (cargo install --locked cargo-deb cargo-cyclonedx), git and dpkg-dev.
# The binaries need a glibc that is not older than this system's: build on the oldest one.
set -euo pipefail
cd "$(dirname "$0")/../.."

for tool in cargo-deb cargo-cyclonedx; do
  command -v "$tool" >/dev/null || { echo "build: $tool is missing: cargo install --locked $tool" >&2; exit 1; }
done
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
machine=$(uname -m)
target=${CARGO_TARGET_DIR:-target}
# The same source gives the same packages.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH

cargo build --locked --profile dist -p zentra-ingress -p zentra-worker -p zentra-cli

# What the programs say of themselves.
made=target/package
rm -rf "$made" dist
mkdir -p "$made/man" "$made/completions" dist
zentra=$target/dist/zentra
"$zentra" man "$made/man" >/dev/null
gzip --no-name --best "$made"/man/*.1
"$zentra" completions bash > "$made/completions/zentra"
"$zentra" completions zsh > "$made/completions/_zentra"
"$zentra" completions fish > "$made/completions/zentra.fish"

cargo deb --locked --no-build --profile dist -p zentra-cli --output dist/

name=zentra-$version-linux-$machine
folder=$made/$name
mkdir -p "$folder"/{bin,man,completions,systemd,docs}
cp "$target"/dist/{zentra,zentra-ingress,zentra-worker} "$folder/bin/"
cp "$made"/man/* "$folder/man/"
cp "$made"/completions/* "$folder/completions/"
cp -r deploy/systemd/. "$folder/systemd/"
cp -r docs/. "$folder/docs/"
mkdir -p "$folder/deploy" && cp -r deploy/prometheus deploy/grafana "$folder/deploy/"
cp README.md CHANGELOG.md LICENSE deploy/zentra.example.toml "$folder/"
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" \
  -C "$made" -cf - "$name" | gzip --no-name --best > "dist/$name.tar.gz"

cargo cyclonedx --manifest-path operator/cli/Cargo.toml --format json --override-filename zentra.cdx
# It writes one beside each manifest.
mv operator/cli/zentra.cdx.json "dist/zentra-$version.cdx.json"
git ls-files --others --exclude-standard '*.cdx.json' | xargs -r rm

(cd dist && sha256sum ./* > SHA256SUMS)
ls -l dist
