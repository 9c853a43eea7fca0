#!/usr/bin/env bash
# Tests and measurements on a CUDA card, with the torch of $PYTHON; see benchmarks/gpu_check.py.
set -euo pipefail
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" -m benchmarks.gpu_check "$@"
