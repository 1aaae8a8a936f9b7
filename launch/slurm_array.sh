#!/bin/bash
# Runs a sweep, or the grid of a paper, as a Slurm array. Each task runs its share of the cells; all
# of them write into one work directory, which every node has to see.
#
#   sbatch --array=0-7 launch/slurm_array.sh sweep --config=configs/sparsity.py --workdir=runs/sweep
#   sbatch --array=0-31 --gpus-per-task=1 launch/slurm_array.sh reproduce gordon2020 --preset=base --workdir=runs/base
#
# A task that is preempted, or has two minutes left, saves its state, ends with status 75 and is
# queued again. The cells of other tasks are not affected.
#SBATCH --job-name=prunejax
#SBATCH --array=0-3
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.txt
set -uo pipefail
trap : TERM  # Slurm sends the signal to the training process too; this shell waits until it has saved
cd "${SLURM_SUBMIT_DIR:-.}"

srun "${PYTHON:-python}" -m prunejax "${@:?which command? such as: sweep --config=configs/sparsity.py --workdir=runs/sweep}"
status=$?
if [ "$status" -eq 75 ]; then
  scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
fi
exit "$status"
