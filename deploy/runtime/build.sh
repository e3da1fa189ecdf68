#!/bin/sh
# Build the runtime image into an OCI layout: build.sh LAYOUT_FOLDER:TAG [BASE_IMAGE]
#
# Needs pip, buildah and, without BASE_IMAGE, Debian's mmdebstrap. PYTHON must have the minor version of the image's
# Python: packages and bytecode are made for it here, because the image has neither pip nor a place to write bytecode
# to. The same packages give the same digest.
set -eu
out=${1:?usage: build.sh LAYOUT_FOLDER:TAG [BASE_IMAGE]}
base=${2:-scratch}
python=${PYTHON:-python3.11}
suite=${SUITE:-bookworm}
here=$(cd "$(dirname "$0")" && pwd)
checkout=$(cd "$here/../.." && pwd)
work=$(mktemp -d)
store=$(mktemp -d)
trap 'umount "$store/root/overlay" 2> /dev/null || true; rm -rf "$work" "$store"' EXIT
mkdir "$work/system" "$work/package" "$work/outbox"

"$python" -m pip install --quiet --disable-pip-version-check --no-compile --only-binary=:all: \
    --no-binary edge_ai_assets --constraint "$checkout/constraints.txt" --target "$work/packages" "$checkout[scoring]"
rm -rf "$work/packages/bin"
find "$work/packages" -type d -name tests -prune -exec rm -rf {} +
# pip notes the checkout's folder there, which differs from machine to machine.
rm -f "$work"/packages/edge_ai_assets-*.dist-info/direct_url.json "$work"/packages/edge_ai_assets-*.dist-info/RECORD

if [ "$base" = scratch ]; then
    mmdebstrap --quiet --variant=extract \
        --include=python3-minimal,libpython3.11-stdlib,libstdc++6,libgcc-s1,ca-certificates "$suite" "$work/system"
    cd "$work/system"
    rm -rf usr/share/doc usr/share/man usr/share/locale usr/share/info usr/share/dpkg usr/bin/dpkg* \
        usr/bin/update-alternatives usr/lib/dpkg usr/sbin var/cache var/log var/lib/apt var/lib/dpkg dev proc sys
    mkdir -p tmp proc sys dev
    cd - > /dev/null
    "$python" -m compileall -q -j 0 --invalidation-mode unchecked-hash -s "$work/system" -p / "$work/system/usr/lib"
fi
# A package may bring files that are no Python of this version; they are left without bytecode.
"$python" -m compileall -q -j 0 --invalidation-mode unchecked-hash -s "$work/packages" -p /opt/edge-ai \
    "$work/packages" || echo "some files of the packages could not be compiled" >&2

mv "$work/packages/edge_ai_assets" "$work"/packages/edge_ai_assets-*.dist-info "$work/package/"

build() { # in a storage of its own, so that nothing of it stays on the machine
    buildah --root "$store/root" --runroot "$store/run" "$@"
}
build bud --quiet --layers --no-cache --isolation chroot --timestamp 0 --build-arg "BASE=$base" \
    --file "$here/Containerfile" --tag edge-ai-runtime "$work" > /dev/null
build push --quiet --format oci edge-ai-runtime "oci:$out"
