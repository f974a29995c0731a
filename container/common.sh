# shellcheck shell=bash
# What build.sh and run.sh share. Sourced, never run.

readonly FRAMEWORKS=(STANDARD TENSORRTLLM VLLM)

# The error that ends a script: what is wrong, then where help is.
die() {
    printf '%s: %s (see --help)\n' "${0##*/}" "$*" >&2
    exit 2
}

# need_value OPTION COUNT: COUNT is what `$#` was at the option.
need_value() {
    (($2 >= 2)) || die "$1 needs a value"
}

# Print the framework in its canonical spelling, or fail.
framework_name() {
    local name
    for name in "${FRAMEWORKS[@]}"; do
        if [[ ${1^^} == "$name" ]]; then
            printf '%s\n' "$name"
            return
        fi
    done
    die "unknown framework '$1', one of: ${FRAMEWORKS[*]}"
}

default_tag() {
    printf 'tridist:latest-%s\n' "${1,,}"
}

# choose_engine WISH DRY_RUN ENGINE...: print the engine to use: the one wished for, else CONTAINER_ENGINE, else the first
# of docker and podman that is there. A dry run works without any.
choose_engine() {
    local wish=${1:-${CONTAINER_ENGINE:-}} dry_run=$2 engine
    shift 2
    if [[ -z $wish ]]; then
        for engine in docker podman; do
            if command -v "$engine" >/dev/null; then
                printf '%s\n' "$engine"
                return
            fi
        done
        [[ $dry_run == true ]] || die "neither docker nor podman is on PATH; install one, or look with --dry-run"
        printf 'docker\n'
        return
    fi
    [[ " $* " == *" $wish "* ]] || die "unknown engine '$wish', one of: $*"
    [[ $dry_run == true ]] || command -v "$wish" >/dev/null || die "$wish is not on PATH"
    printf '%s\n' "$wish"
}

# execute DRY_RUN COMMAND...: print the command, quoted so that a shell reads it back, or become it.
execute() {
    local dry_run=$1 line
    shift
    [[ $dry_run == true ]] || exec "$@"
    printf -v line '%q ' "$@"
    printf '%s\n' "${line% }"
}
