"""Runs a function in several processes that form a group, for a bounded time."""

import datetime
import time

import torch
import torch.multiprocessing as mp
from torch import distributed


def _work(rank, function, world, folder, args):
    torch.set_num_threads(1)
    # A file and not a port, which another process could take first.
    distributed.init_process_group(
        'gloo', f'file://{folder}/ranks', datetime.timedelta(seconds=60), world, rank
    )
    function(rank, world, folder, *args)
    distributed.barrier()  # no rank leaves while another needs it
    distributed.destroy_process_group()


def run_ranks(function, world, folder, *args, seconds=150):
    """``function(rank, world, folder, *args)`` on every rank; a hang ends in a TimeoutError."""
    context = mp.spawn(_work, (function, world, str(folder), args), nprocs=world, join=False)
    deadline = time.monotonic() + seconds
    while not context.join(timeout=1):
        if time.monotonic() > deadline:
            for process in context.processes:
                process.kill()
            raise TimeoutError(f'{world} ranks were not done after {seconds} s')
