#!/usr/bin/env bash
# Build the tridist image of one framework with docker, podman or buildah.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname -- "$here")
# shellcheck source=container/common.sh
source "$here/common.sh"

# CUDA 12, as the ucxx-cu12 that the [ucx] extra installs; NVIDIA's images from 25.08 on have CUDA 13.
readonly TRITON_RELEASE=25.03

usage() {
    cat <<TEXT
Usage: container/build.sh [OPTION...]

  --framework NAME        STANDARD (default), TENSORRTLLM or VLLM
  --base-image IMAGE      what to build on; default by framework:
                            STANDARD     $(base_image STANDARD)
                            TENSORRTLLM  $(base_image TENSORRTLLM)
                            VLLM         $(base_image VLLM)
  --tag TAG               name of the image; may be repeated (default: tridist:latest-FRAMEWORK)
  --platform PLATFORM     such as linux/amd64 or linux/arm64 (default: the engine's)
  --build-arg NAME=VALUE  passed on; may be repeated
  --pip-conf FILE         a pip.conf to build with; a secret of the build, not part of the image
  --ca-bundle FILE        PEM certificates for pip to build with; likewise a secret
  --no-cache              build every layer anew
  --engine NAME           docker, podman or buildah (default: \$CONTAINER_ENGINE, else docker, else podman)
  --dry-run               print the engine's command, run nothing
  -h, --help              this text
TEXT
}

base_image() {
    case $1 in
        STANDARD) echo debian:bookworm-slim ;;
        TENSORRTLLM) echo "nvcr.io/nvidia/tritonserver:$TRITON_RELEASE-trtllm-python-py3" ;;
        VLLM) echo "nvcr.io/nvidia/tritonserver:$TRITON_RELEASE-vllm-python-py3" ;;
    esac
}

# Make a path absolute that has to exist.
existing() {
    [[ -f $2 ]] || die "$1: no such file: $2"
    realpath -- "$2"
}

framework=STANDARD base='' platform='' engine='' dry_run=false
tags=() options=()

while (($#)); do
    case $1 in
        --framework | --base-image | --tag | --platform | --build-arg | --pip-conf | --ca-bundle | --engine)
            need_value "$1" $# ;;&
        --framework) framework=$2; shift 2 ;;
        --base-image) base=$2; shift 2 ;;
        --tag) tags+=("$2"); shift 2 ;;
        --platform) platform=$2; shift 2 ;;
        --build-arg) options+=(--build-arg "$2"); shift 2 ;;
        --pip-conf) file=$(existing "$1" "$2"); options+=(--secret "id=pip_conf,src=$file"); shift 2 ;;
        --ca-bundle) file=$(existing "$1" "$2"); options+=(--secret "id=ca_bundle,src=$file"); shift 2 ;;
        --no-cache) options+=(--no-cache); shift ;;
        --engine) engine=$2; shift 2 ;;
        --dry-run) dry_run=true; shift ;;
        -h | --help) usage; exit ;;
        *) die "unknown option: $1" ;;
    esac
done

framework=$(framework_name "$framework")
engine=$(choose_engine "$engine" "$dry_run" docker podman buildah)
((${#tags[@]})) || tags=("$(default_tag "$framework")")

command=("$engine" build --file "$here/Dockerfile")
[[ -z $platform ]] || command+=(--platform "$platform")
command+=(--build-arg "FRAMEWORK=$framework" --build-arg "BASE_IMAGE=${base:-$(base_image "$framework")}")
command+=("${options[@]}")
for tag in "${tags[@]}"; do command+=(--tag "$tag"); done
command+=("$root")

execute "$dry_run" "${command[@]}"
