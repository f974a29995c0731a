#!/usr/bin/env bash
# Run a command in a tridist container with docker or podman.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname -- "$here")
# shellcheck source=container/common.sh
source "$here/common.sh"

# Passed into the container when they are set: by name, so that no value shows in a process list or a shell's history.
readonly PASSED_VARIABLES=(
    HF_TOKEN HF_ENDPOINT HF_HUB_OFFLINE NGC_API_KEY
    NATS_URL CUDA_VISIBLE_DEVICES
    HTTP_PROXY HTTPS_PROXY NO_PROXY http_proxy https_proxy no_proxy
)
readonly PASSED_PREFIXES=(TRIDIST_ UCX_ NCCL_)

usage() {
    cat <<TEXT
Usage: container/run.sh [OPTION...] [-- COMMAND...]

  -it                  interactive, on a terminal (also -i, -t)
  -d, --detach         in the background
  --mount-workspace    mount this checkout at /workspace, and /tmp and /mnt as they are; its sources come first on the
                       Python path, and the container runs as you, so that files keep their owner
  --gpus GPUS          all, none, a number, or device=ID[,ID...] (default: all where there is an NVIDIA GPU)
  --framework NAME     STANDARD (default), TENSORRTLLM or VLLM: picks the image tridist:latest-FRAMEWORK
  --image IMAGE        the image to run
  --name NAME          name of the container
  --network NETWORK    (default: host, so that workers and NATS reach each other and other machines)
  --ipc MODE           such as host, for UCX over shared memory between containers (default: a private 10 GiB)
  --user USER          user or uid:gid to run as
  --hf-cache DIR       mount a Hugging Face cache
  -v, --volume MOUNT   another mount; may be repeated
  -e, --env NAME[=VAL] another variable; may be repeated
  --keep               keep the container after it ends
  --engine NAME        docker or podman (default: \$CONTAINER_ENGINE, else docker, else podman)
  --dry-run            print the engine's command, run nothing
  -h, --help           this text

Passed in by name where set: ${PASSED_VARIABLES[*]} and ${PASSED_PREFIXES[*]/%/*}
TEXT
}

# gpu_options ENGINE GPUS: one option per line. docker has --gpus; podman takes CDI device names.
gpu_options() {
    local ids id
    case $2 in
        none) return ;;
        all) ids=all ;;
        device=?*) ids=${2#device=} ;;
        *[!0-9]* | '') die "--gpus: '$2' is none of: all, none, a number, device=ID[,ID...]" ;;
        0) return ;;
        *) ids=$(seq -s , 0 $(($2 - 1))) ;;
    esac
    if [[ $1 == docker ]]; then
        # docker reads the value as CSV: a list of devices has to reach it in quotes.
        if [[ $2 == device=*,* ]]; then printf -- '--gpus\n"%s"\n' "$2"; else printf -- '--gpus\n%s\n' "$2"; fi
        return
    fi
    for id in ${ids//,/ }; do printf -- '--device\nnvidia.com/gpu=%s\n' "$id"; done
}

# Where files in the workspace get written, they are to belong to whoever called.
caller_options() {
    if [[ $1 == podman && $EUID != 0 ]]; then
        printf -- '--userns\nkeep-id\n'
    else
        printf -- '--user\n%s:%s\n' "$(id -u)" "$(id -g)"
    fi
}

passed_variables() {
    local name prefix
    for name in "${PASSED_VARIABLES[@]}"; do
        [[ -z ${!name:-} ]] || printf '%s\n' "$name"
    done
    for prefix in "${PASSED_PREFIXES[@]}"; do
        compgen -e "$prefix" || true
    done
}

framework=STANDARD image='' engine='' gpus='' network=host ipc='' user='' name='' hf_cache=''
workspace=false dry_run=false keep=false
mode=() volumes=() variables=()

while (($#)); do
    case $1 in
        --gpus | --framework | --image | --name | --network | --ipc | --user | --hf-cache | -v | --volume | -e | --env | --engine)
            need_value "$1" $# ;;&
        -it | -ti) mode+=(--interactive --tty); shift ;;
        -i) mode+=(--interactive); shift ;;
        -t) mode+=(--tty); shift ;;
        -d | --detach) mode+=(--detach); shift ;;
        --mount-workspace) workspace=true; shift ;;
        --gpus) gpus=$2; shift 2 ;;
        --framework) framework=$2; shift 2 ;;
        --image) image=$2; shift 2 ;;
        --name) name=$2; shift 2 ;;
        --network) network=$2; shift 2 ;;
        --ipc) ipc=$2; shift 2 ;;
        --user) user=$2; shift 2 ;;
        --hf-cache) hf_cache=$2; shift 2 ;;
        -v | --volume) volumes+=(--volume "$2"); shift 2 ;;
        -e | --env) variables+=(--env "$2"); shift 2 ;;
        --keep) keep=true; shift ;;
        --engine) engine=$2; shift 2 ;;
        --dry-run) dry_run=true; shift ;;
        -h | --help) usage; exit ;;
        --) shift; break ;;
        *) die "unknown option: $1; a command goes after --" ;;
    esac
done

framework=$(framework_name "$framework")
engine=$(choose_engine "$engine" "$dry_run" docker podman)
if [[ -z $gpus ]]; then
    if [[ -e ${NVIDIA_CONTROL_DEVICE:-/dev/nvidiactl} ]]; then gpus=all; else gpus=none; fi
fi
gpu_lines=$(gpu_options "$engine" "$gpus")
gpu_words=()
[[ -z $gpu_lines ]] || mapfile -t gpu_words <<<"$gpu_lines"

command=("$engine" run)
[[ $keep == true ]] || command+=(--rm)
command+=("${mode[@]}")
[[ -z $name ]] || command+=(--name "$name")
command+=(--network "$network")
# Triton's Python backend and UCX move tensors through shared memory, and pin it for RDMA; an engine's default is 64 MiB.
if [[ -n $ipc ]]; then command+=(--ipc "$ipc"); else command+=(--shm-size 10g); fi
command+=(--ulimit memlock=-1 --ulimit stack=67108864)
# UCX copies between processes with process_vm_readv, which this capability allows for ones that are not parent and child.
command+=(--cap-add SYS_PTRACE)
command+=("${gpu_words[@]}")

if [[ -n $user ]]; then
    command+=(--user "$user")
elif [[ $workspace == true ]]; then
    mapfile -t -O "${#command[@]}" command < <(caller_options "$engine")
fi
if [[ $workspace == true ]]; then
    command+=(--volume "$root:/workspace" --volume /tmp:/tmp --volume /mnt:/mnt --env PYTHONPATH=/workspace/src)
fi
if [[ -n $hf_cache ]]; then
    # An engine would make a missing directory as root.
    [[ $dry_run == true ]] || mkdir -p -- "$hf_cache"
    command+=(--volume "$(realpath -m -- "$hf_cache"):/home/tridist/.cache/huggingface")
fi
command+=("${volumes[@]}")
while IFS= read -r variable; do
    command+=(--env "$variable")
done < <(passed_variables)
command+=("${variables[@]}" --workdir /workspace "${image:-$(default_tag "$framework")}" "$@")

execute "$dry_run" "${command[@]}"
