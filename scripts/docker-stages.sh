#!/usr/bin/env bash
# Runs the Dockerfile's stages without a container engine: the build stage's RUN lines, exactly as they stand there, in a
# copy of what .dockerignore lets through; then the last stage's COPY lines, into a directory that stands for the image.
#
#   scripts/docker-stages.sh [--profile NAME] [--dir DIR] [--print]
#
#   --profile NAME   value of the build argument PROFILE (default: the Dockerfile's)
#   --dir DIR        work there and keep it, so that the next run is incremental (default: a temporary directory)
#   --print          print what would be run, one instruction a line, and stop
#
# Knows the instructions this Dockerfile uses and refuses any other, so that the two cannot drift apart unseen.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
profile='' dir='' print=''
while [ $# -gt 0 ]; do
    case $1 in
        --profile) profile=${2:?--profile needs a name}; shift 2 ;;
        --dir) dir=${2:?--dir needs a directory}; shift 2 ;;
        --print) print=1; shift ;;
        *) echo "unknown argument: $1" >&2; exit 64 ;;
    esac
done

# One instruction a line: comments gone, continued lines joined.
instructions() {
    awk '/^[[:space:]]*#/ || /^[[:space:]]*$/ { next }
         { sub(/^[[:space:]]+/, "") }
         /\\$/ { sub(/[[:space:]]*\\$/, " "); held = held $0; next }
         { print held $0; held = "" }' "$root/Dockerfile"
}

if [ -n "$print" ]; then
    instructions
    exit 0
fi

if [ -z "$dir" ]; then
    dir=$(mktemp -d)
    trap 'rm -rf "$dir"' EXIT
fi
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
image=$dir/image
rm -rf "$image"

# The context: .dockerignore is a list of what is let through.
copy_context() {
    mkdir -p "$1"
    grep -qx '\*' "$root/.dockerignore" || { echo ".dockerignore no longer begins by ignoring everything" >&2; exit 1; }
    # What an earlier run left would not be in a fresh container; the compiler's own directory is only a cache.
    find "$1" -mindepth 1 -maxdepth 1 ! -name target -exec rm -rf {} +
    sed -n 's/^!//p' "$root/.dockerignore" | while read -r name; do
        [ -e "$root/$name" ] || continue
        # Times are kept: a second run compiles only what changed.
        cp -a "$root/$name" "$1/$name"
    done
}

# Where a path of a stage lies here.
in_stage() { # WORKDIR PATH
    case $2 in
        "$1"/*) echo "$dir/work${2#"$1"}" ;;
        *) echo "$2" ;;
    esac
}

stage='' workdir='' runs=0
while IFS= read -r line; do
    word=${line%% *} rest=${line#* }
    echo "--- $line"
    case $stage:$word in
        *:FROM)
            case $rest in
                *' AS build') stage=build ;;
                *) stage=image; mkdir -p "$image" ;;
            esac ;;
        build:ARG)
            name=${rest%%=*} value=${rest#*=}
            [ "$name" = PROFILE ] && [ -n "$profile" ] && value=$profile
            export "$name=$value" ;;
        build:WORKDIR)
            workdir=$rest; mkdir -p "$dir/work" ;;
        build:COPY)
            [ "$rest" = '. .' ] || { echo "cannot do: $line" >&2; exit 1; }
            copy_context "$dir/work" ;;
        build:RUN)
            # Not what a surrounding cargo has set: the container would not have it either.
            (cd "$dir/work" && env -u CARGO_TARGET_DIR -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS sh -ec "$rest" </dev/null)
            runs=$((runs + 1)) ;;
        image:COPY)
            mode=''
            set -- $rest
            while [ "${1#--}" != "$1" ]; do
                case $1 in --chmod=*) mode=${1#--chmod=} ;; --from=build | --chown=*) ;; *) echo "cannot do: $line" >&2; exit 1 ;; esac
                shift
            done
            from=$(in_stage "$workdir" "$1")
            [ -e "$from" ] || { echo "$1 is not in the build stage" >&2; exit 1; }
            mkdir -p "$(dirname "$image$2")"
            cp -rL "$from" "$image$2"
            [ -z "$mode" ] || chmod "$mode" "$image$2" ;;
        image:ENV | image:USER | image:VOLUME | image:EXPOSE | image:STOPSIGNAL | image:HEALTHCHECK | image:ENTRYPOINT | image:CMD) ;;
        *) echo "this script does not know how to do: $line" >&2; exit 1 ;;
    esac
done < <(instructions)

[ "$runs" -gt 0 ] || { echo "the Dockerfile runs nothing" >&2; exit 1; }
"$image/usr/local/bin/merido" --version
echo "the stages run: $runs commands, image of $(du -shL "$image" | cut -f1)"
