#!/usr/bin/env bash
# tools/dist_test.sh CONFIG CHECKPOINT GPUS [options]; without a GPU, as many CPU processes.
set -euo pipefail
N=3
torchrun --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --nproc_per_node="${!N}" "$(dirname "$0")/test.py" "${@:1:N-1}" --launcher pytorch "${@:N+1}"
