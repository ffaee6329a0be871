#!/usr/bin/env bash
# The tables of encoder.py on a GPU, with what a GPU is asked for: bfloat16, tokens a second and the share of its peak.
#
#   benchmarks/gpu.sh DATA_FOLDER [options of encoder.py, such as --peak_tflops 312]
#
# Under eight minutes on one H200: it is stopped then, and what was printed stays. Without a GPU it says so and runs a
# tiny version on the processor, so that the script itself can be tested. PYTHON names the interpreter (default: python3).
set -euo pipefail

usage() {
    echo "usage: benchmarks/gpu.sh DATA_FOLDER [options of encoder.py]"
    echo "DATA_FOLDER holds goemotions/train.parquet and jigsaw_toxic_comments/train.csv; PYTHON names the interpreter."
}

case "${1:-}" in
-h | --help)
    usage
    exit 0
    ;;
"" | -*)
    usage >&2
    exit 2
    ;;
esac
if [ ! -d "$1" ]; then
    echo "gpu.sh: $1 is not a folder" >&2
    usage >&2
    exit 2
fi

python=${PYTHON:-python3}
benchmark=$(dirname "${BASH_SOURCE[0]}")/encoder.py
if ! "$python" -c "import torch"; then
    echo "gpu.sh: $python has no torch; set PYTHON to the interpreter of this project's environment" >&2
    exit 1
fi

if "$python" -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then
    timeout 470 "$python" "$benchmark" "$1" --device cuda --rows 8000 "${@:2}"
else
    echo "There is no GPU here: this is a tiny version on the processor, which only tests the script."
    "$python" "$benchmark" "$1" --rows 64 --data goemotions "${@:2}"
fi
