#!/usr/bin/env bash
# All of the small flow base's training, from nothing to the measured model. Run it again to go on where it stopped.
#   training/small_flow/train.sh [MINUTES]
# With MINUTES it saves and stops after that time. Two processes with a thread each, one for each core.
set -euo pipefail
cd "$(dirname "$0")/../.."
export OMP_NUM_THREADS=1 ACCELERATE_USE_CPU=true
ends=$(($(date +%s) + 60 * ${1:-100000}))

within() {  # run a command until the time is over; the signal lets a run save a checkpoint
  left=$((ends - $(date +%s)))
  if [ "$left" -le 0 ]; then echo "time is over; run the same command again to go on"; exit 0; fi
  status=0
  timeout --foreground --kill-after=120 "$left" "$@" || status=$?
  if [ "$(date +%s)" -ge "$ends" ]; then echo "time is over; run the same command again to go on"; exit 0; fi
  return "$status"
}
train() {
  within torchrun --standalone --nproc-per-node 2 -m fairhuman.cli train "$1"
}

within fairhuman synth runs/base/people --count 8192 --size 128 --seed 2 --degraded 0.7
within fairhuman synth runs/base/held-out --count 64 --size 128 --seed 3 --degraded 0.7
train training/small_flow/base.yaml
train training/small_flow/base-decay.yaml
within python training/common/curve.py --data runs/base/held-out --out runs/flow/curve small runs/flow/base runs/flow/decay
within python training/common/measure.py --model runs/flow/decay/model --out runs/flow/measured --vae-count 0
