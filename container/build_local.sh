#!/usr/bin/env bash
# Build the STANDARD image without an image registry: make a Debian 12 base with debootstrap, build on it with buildah
# (chroot isolation, so neither a daemon nor user namespaces are needed), and try the result. Runs as root on Debian.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=container/common.sh
source "$here/common.sh"

readonly SUITE=bookworm
readonly BASE=localhost/tridist-base:$SUITE

usage() {
    cat <<TEXT
Usage: container/build_local.sh [OPTION...]

  --hello       run hello world in the image once it is built
  --tag TAG     name of the image (default: localhost/$(default_tag STANDARD))
  --mirror URL  Debian mirror (default: debootstrap's own)
  --work DIR    where images and the base are kept (default: /var/tmp/tridist-container)
  --new-base    make the base again
  -h, --help    this text

pip's settings of this machine (index, certificates) are used for the build and stay out of the image.
TEXT
}

hello=false tag=localhost/$(default_tag STANDARD) mirror='' new_base=false
work=/var/tmp/tridist-container

while (($#)); do
    case $1 in
        --tag | --mirror | --work) need_value "$1" $# ;;&
        --hello) hello=true; shift ;;
        --tag) tag=$2; shift 2 ;;
        --mirror) mirror=$2; shift 2 ;;
        --work) work=$2; shift 2 ;;
        --new-base) new_base=true; shift ;;
        -h | --help) usage; exit ;;
        *) die "unknown option: $1" ;;
    esac
done

step() { printf '==== %s\n' "$*"; }

check_tools() {
    local tool missing=()
    ((EUID == 0)) || die "this needs root: debootstrap and chroot isolation do"
    for tool in buildah debootstrap; do
        command -v "$tool" >/dev/null || missing+=("$tool")
    done
    ((${#missing[@]} == 0)) || die "missing: ${missing[*]}. Run: apt-get install -y --no-install-recommends ${missing[*]}"
}

# Storage of our own: nothing of this appears among the machine's images, and removing $work removes all of it.
use_own_storage() {
    mkdir -p -- "$work"
    work=$(realpath -- "$work")
    cat >"$work/storage.conf" <<TOML
[storage]
driver = "${STORAGE_DRIVER:-overlay}"
graphroot = "$work/storage"
runroot = "$work/run"
TOML
    # With layers kept, a change of our sources alone does not install the dependencies again.
    export CONTAINERS_STORAGE_CONF=$work/storage.conf BUILDAH_ISOLATION=chroot BUILDAH_LAYERS=true
}

make_base() {
    local rootfs=$work/rootfs container
    rm -rf -- "$rootfs"
    debootstrap --variant=minbase "$SUITE" "$rootfs" ${mirror:+"$mirror"} >"$work/debootstrap.log" 2>&1 ||
        { tail -n 20 "$work/debootstrap.log" >&2; die "debootstrap failed, see $work/debootstrap.log"; }
    rm -rf -- "$rootfs"/var/cache/apt/archives/*.deb "$rootfs"/var/lib/apt/lists/*
    # debootstrap copies this machine's name resolution; the engine provides that anew wherever the image runs.
    rm -f -- "$rootfs/etc/resolv.conf" "$rootfs/etc/hostname"
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$rootfs" / >/dev/null
    buildah config --cmd bash "$container"
    buildah commit --quiet --rm "$container" "$BASE" >/dev/null
    rm -rf -- "$rootfs"
}

# pip_setting NAME: what this machine's pip uses, from its environment or its files; nothing where neither says.
pip_setting() {
    local variable=PIP_${1//-/_}
    variable=${variable^^}
    if [[ -n ${!variable:-} ]]; then
        printf '%s\n' "${!variable}"
    else
        python3 -m pip config get "global.$1" 2>/dev/null || true
    fi
}

# Write those settings that mean the same inside the image: no local path does.
write_pip_conf() {
    local name value word words
    echo '[global]'
    for name in index-url extra-index-url trusted-host proxy default-timeout; do
        value=$(pip_setting "$name")
        words=()
        for word in $value; do
            [[ $word == file:* || $word == /* ]] || words+=("$word")
        done
        ((${#words[@]} == 0)) || printf '%s = %s\n' "$name" "${words[*]}"
    done
}

ca_bundle() {
    local file
    for file in "$(pip_setting cert)" "${SSL_CERT_FILE:-}" "${REQUESTS_CA_BUNDLE:-}"; do
        if [[ -f $file ]]; then
            printf '%s\n' "$file"
            return
        fi
    done
}

build_image() {
    local secrets=() bundle
    (umask 077 && write_pip_conf >"$scratch/pip.conf")
    secrets+=(--pip-conf "$scratch/pip.conf")
    bundle=$(ca_bundle)
    [[ -z $bundle ]] || secrets+=(--ca-bundle "$bundle")
    "$here/build.sh" --engine buildah --framework STANDARD --base-image "$BASE" --tag "$tag" "${secrets[@]}"
}

try_image() {
    container=$(buildah from "$tag")
    in_image id
    in_image python -c 'import sys, tridist; print("tridist imports from", tridist.__file__, "on Python", sys.version.split()[0])'
    in_image test ! -e /run/secrets || die "the build's secrets are in the image"
    if [[ $hello == true ]]; then
        step 'Hello world in the image'
        in_image python examples/hello_world/main.py
    fi
}

in_image() { buildah run "$container" -- "$@"; }

container=''
cleanup() {
    [[ -z $container ]] || buildah rm "$container" >/dev/null
    rm -rf -- "$scratch"
}

check_tools
scratch=$(mktemp -d)
trap cleanup EXIT
use_own_storage

if [[ $new_base == true ]] || ! buildah inspect --type image "$BASE" >/dev/null 2>&1; then
    step "Base: Debian $SUITE from debootstrap (a minute)"
    make_base
fi
step "Image: $tag"
build_image
step 'Trial'
try_image
step "Done: $tag in $work ($(buildah images --format '{{.Size}}' "$tag"))"
