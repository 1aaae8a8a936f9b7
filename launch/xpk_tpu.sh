#!/bin/bash
# Runs one command on one or several slices of a Cloud TPU pod, by xpk. Every host runs the same
# command; the hosts find each other by --distributed.
#
#   CLUSTER=mine PROJECT=my-project ZONE=us-east5-b TPU=v5litepod-16 NAME=p60 WORKDIR=gs://my-bucket/runs/p60 \
#     launch/xpk_tpu.sh train --config=configs/pretrain.py '--config.prune.weights.schedule="cubic(0.6, end=5000)"'
#
# A sweep over several slices: each slice is a worker with its own hosts. JOB_COMPLETION_INDEX counts
# the hosts here, so the index of the worker has to be given:
#
#   for i in 0 1 2 3; do NAME=sweep-$i ... launch/xpk_tpu.sh sweep --config=configs/sparsity.py --worker=$i --workers=4; done
#
# INPUTS=gs://my-bucket/inputs copies text and weights to the folder `inputs` of every host, which
# keys such as --config.data.root=inputs then name.
#
# A host that is preempted tells the others. All save the same step and end with status 75, and the
# job starts again. The command below is run by `exec`, so that the signal reaches it and not a shell.
set -euo pipefail
: "${CLUSTER:?the cluster, as named in xpk cluster create}"
: "${PROJECT:?the Google Cloud project}"
: "${ZONE:?the zone of the cluster, such as us-east5-b}"
: "${NAME:?the name of the workload: lower-case letters, digits, dashes}"
: "${WORKDIR:?the work directory, such as gs://my-bucket/runs/p60}"
: "${1:?which command? such as: train --config=configs/pretrain.py}"

arguments=$(printf '%q ' "$@" --distributed "--workdir=$WORKDIR")
if [ -n "${INPUTS:-}" ]; then
  fetch="python -c 'import fsspec, sys; fsspec.url_to_fs(sys.argv[1])[0].get(sys.argv[1], sys.argv[2], recursive=True)' $(printf '%q' "${INPUTS%/}/") inputs/ && "
fi
xpk workload create \
  --cluster="$CLUSTER" --project="$PROJECT" --zone="$ZONE" --workload="$NAME" \
  --tpu-type="${TPU:-v5litepod-16}" --num-slices="${SLICES:-1}" \
  --base-docker-image="${IMAGE:-python:3.12}" --script-dir="${SOURCE:-.}" \
  --max-restarts="${RESTARTS:-100}" --restart-on-exit-codes=75 --termination-grace-period-seconds=120 \
  --command="python -m pip install -q '.[train,tpu,gcs]' && ${fetch:-}exec python -m prunejax $arguments"
