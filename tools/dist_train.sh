#!/usr/bin/env bash
# tools/dist_train.sh CONFIG GPUS [options]; without a GPU, as many CPU processes.
set -euo pipefail
N=2
torchrun --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
    --nproc_per_node="${!N}" "$(dirname "$0")/train.py" "${@:1:N-1}" --launcher pytorch "${@:N+1}"
