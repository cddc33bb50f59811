"""The SLURM file starts what `accelerate launch` understands, on every node with its own rank."""

import json
import os
import subprocess
import sys
from pathlib import Path

from accelerate.commands.launch import launch_command_parser

from helpers.places import RECIPES

SCRIPT = RECIPES / "cluster.sbatch"


def stub(folder: Path, name: str, body: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/bash\n{body}\n", encoding="utf-8")
    file.chmod(0o755)


def test_it_launches_a_process_a_gpu_on_all_nodes(tmp_path: Path) -> None:
    """With SLURM's commands stood in for; node 1 of 2, 8 GPUs each. A path with a space stays one argument."""
    stub(tmp_path, "scontrol", "echo first-node; echo second-node")
    stub(tmp_path, "srun", '[ "$1" = --cpus-per-task=96 ] && shift 2 && SLURM_NODEID=1 exec "$@"')
    stub(tmp_path, "accelerate", f'exec {sys.executable} -c "import json, sys; print(json.dumps(sys.argv[1:]))" "$@"')
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "SLURM_JOB_NODELIST": "two",
        "SLURM_NNODES": "2",
        "SLURM_GPUS_ON_NODE": "8",
        "SLURM_CPUS_PER_TASK": "96",
    }
    command = ["bash", SCRIPT, "recipes/lora-sdxl.yaml", "data=my people", "batch_size=1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    action, *arguments = json.loads(done.stdout)
    assert action == "launch"
    read = launch_command_parser().parse_args(arguments)
    assert (read.num_machines, read.num_processes, read.machine_rank) == (2, 16, 1)
    assert (read.main_process_ip, read.main_process_port) == ("first-node", 29500)
    assert (read.multi_gpu, read.module, read.training_script) == (True, True, "fairhuman.cli")
    assert read.training_script_args == ["train", "recipes/lora-sdxl.yaml", "data=my people", "batch_size=1"]
