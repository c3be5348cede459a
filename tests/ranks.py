"""Runs a function in several processes that form a group, for a bounded time."""

import datetime
import multiprocessing
import time

import torch
import torch.multiprocessing as mp
from torch import distributed

# Ranks are forked from a process that has imported this once, and nothing else has run in it.
multiprocessing.set_forkserver_preload(['mmseg_ltmi', 'mmseg.models'])


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
    args = function, world, str(folder), args
    context = mp.start_processes(_work, args, world, join=False, start_method='forkserver')
    deadline = time.monotonic() + seconds
    while not context.join(timeout=1):
        if time.monotonic() > deadline:
            for process in context.processes:
                process.kill()
            raise TimeoutError(f'{world} ranks were not done after {seconds} s')
