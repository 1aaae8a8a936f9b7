#!/bin/bash
# A sweep, or a paper's grid, by the tasks of a Slurm array: each takes its share of the cells into one work directory.
#
#   sbatch --array=0-7 launch/slurm_array.sh sweep --config=configs/sparsity.py --workdir=runs/sweep
#   sbatch --array=0-31 --gpus-per-task=1 launch/slurm_array.sh reproduce gordon2020 --preset=base --workdir=runs/base
#
# The work directory has to be one that all nodes see. A task that is preempted, or has two minutes left, saves, ends
# with status 75 and is queued again; the others' cells are not touched.
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
trap : TERM  # the training process is told by Slurm itself; this shell waits for it to save
cd "${SLURM_SUBMIT_DIR:-.}"

srun "${PYTHON:-python}" -m prunejax "${@:?which command? such as: sweep --config=configs/sparsity.py --workdir=runs/sweep}"
status=$?
if [ "$status" -eq 75 ]; then
  scontrol requeue "${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"
fi
exit "$status"
