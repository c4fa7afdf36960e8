#!/usr/bin/env bash
# One task for each shard: sbatch slurm-array.sh INPUT OUTPUT. The shards are OUTPUT/shard-1, OUTPUT/shard-2, ...
# Research use only, not a medical device.
#SBATCH --job-name=mribatch
#SBATCH --array=1-16
#SBATCH --cpus-per-task=8
#SBATCH --mem=4G
#SBATCH --time=04:00:00
set -euo pipefail

input=${1:?usage: sbatch slurm-array.sh INPUT OUTPUT}
output=${2:?usage: sbatch slurm-array.sh INPUT OUTPUT}
shard="${SLURM_ARRAY_TASK_ID:?submit this script with sbatch}/${SLURM_ARRAY_TASK_COUNT:?}"

status=0
mribatch classify "$input" --out "$output/shard-$SLURM_ARRAY_TASK_ID" --shard "$shard" \
    --threads "${SLURM_CPUS_PER_TASK:-1}" --batch-size 64 --precision int8 --quiet || status=$?
# 3: every image has its row, and some of them say why they could not be classified.
if [ "$status" -eq 3 ]; then status=0; fi
exit "$status"
