#!/bin/bash
# One command on a TPU pod slice, or on several, by xpk: the same on every host, which find each other by --distributed.
#
#   CLUSTER=mine PROJECT=my-project ZONE=us-east5-b TPU=v5litepod-16 NAME=p60 WORKDIR=gs://my-bucket/runs/p60 \
#     launch/xpk_tpu.sh train --config=configs/pretrain.py '--config.prune.weights.schedule="cubic(0.6, end=5000)"'
#
# A sweep over several slices, each slice a worker with hosts of its own (JOB_COMPLETION_INDEX counts the hosts here):
#
#   for i in 0 1 2 3; do NAME=sweep-$i ... launch/xpk_tpu.sh sweep --config=configs/sparsity.py --worker=$i --workers=4; done
#
# A host that is preempted tells the others; all save the same step and end with status 75, and the job starts again.
# (`exec` below: the notice has to reach the run, not a shell around it.)
set -euo pipefail
: "${CLUSTER:?the cluster, as given to xpk cluster create}"
: "${PROJECT:?the Google Cloud project}"
: "${ZONE:?its zone, such as us-east5-b}"
: "${NAME:?of the workload: small letters, digits, dashes}"
: "${WORKDIR:?the work directory, such as gs://my-bucket/runs/p60}"
: "${1:?which command? such as: train --config=configs/pretrain.py}"

arguments=$(printf '%q ' "$@" --distributed "--workdir=$WORKDIR")
xpk workload create \
  --cluster="$CLUSTER" --project="$PROJECT" --zone="$ZONE" --workload="$NAME" \
  --tpu-type="${TPU:-v5litepod-16}" --num-slices="${SLICES:-1}" \
  --base-docker-image="${IMAGE:-python:3.12}" --script-dir="${SOURCE:-.}" \
  --max-restarts="${RESTARTS:-100}" --restart-on-exit-codes=75 --termination-grace-period-seconds=120 \
  --command="python -m pip install -q -U 'jax[tpu]' '.[train,gcs]' && exec python -m prunejax $arguments"
