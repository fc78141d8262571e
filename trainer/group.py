"""Processes that fit one training set together: each runs the model on its part of every batch.

A loss is a matter of the whole batch (its means, its point of reference), so the likelihoods of all parts are gathered
before it is taken, and every process takes the loss of the whole batch; the gradients, each of its own part, are then
added up. That is the arithmetic of one process for whatever objective, up to the order of additions.
"""

import os
import socket
from collections.abc import Iterable, Sequence
from datetime import timedelta
from itertools import accumulate

import psutil
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


class Group:
    """Data-parallel processes over gloo, which carries low-rank gradients well enough on any hardware.

    They link up in a group of their own, not torch's default one: everything is synchronised here and nowhere else.
    """

    def __init__(
        self, rank: int = 0, size: int = 1, links: dist.ProcessGroup | None = None, store: dist.Store | None = None
    ) -> None:
        self.rank = rank
        self.size = size
        self._links = links
        self._store = store

    @classmethod
    def join(cls, host: str, port: int, rank: int, size: int, seconds: float, listener: int | None = None) -> "Group":
        """Waits until all are there. listener: of rank 0, the file descriptor that listens on the port."""
        limit = timedelta(seconds=seconds)
        store = dist.TCPStore(
            host, port, size, rank == 0, timeout=limit, wait_for_workers=False, master_listen_fd=listener
        )
        return cls(rank, size, dist.ProcessGroupGloo(store, rank, size, limit), store)

    def shard(self, model: torch.nn.Module, layers: Iterable[torch.nn.Module]) -> None:
        """Spreads a frozen model over the processes; a layer is gathered when it computes, and let go of (FSDP2).

        Makes the default process group that FSDP2 asks for. TRL and accelerate, which go by environment variables,
        take no notice of it. All processes have to run the model equally often from now on. (Zhao et al. 2023,
        "PyTorch FSDP: experiences on scaling fully sharded data parallel", arXiv 2304.11277.)
        """
        if self._store is None:
            return
        kind = next(model.parameters()).device.type
        if not dist.is_initialized():
            backend = "gloo" if kind == "cpu" else "cpu:gloo,cuda:nccl"
            store = dist.PrefixStore("shards", self._store)
            dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.size)
        mesh = init_device_mesh(kind, (self.size,))
        for layer in layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(model, mesh=mesh)

    def gather(self, own: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
        """The parts of all, one after the other; only `own`, which is `lengths[rank]` long, has a gradient."""
        if self._links is None:
            return own
        parts = [torch.zeros(max(lengths), dtype=torch.float32) for _ in lengths]
        padded = torch.zeros(max(lengths), dtype=torch.float32)
        padded[: len(own)] = own.detach().cpu()
        self._links.allgather([parts], [padded]).wait()
        joined = [part[:length].to(own.device) for part, length in zip(parts, lengths, strict=True)]
        joined[self.rank] = own
        return torch.cat(joined)

    def add_up(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replaces every gradient by the sum over all processes."""
        if self._links is None:
            return
        learned = [one for one in parameters if one.requires_grad]
        flat = torch.cat([_gradient(one).flatten().cpu() for one in learned])
        self._links.allreduce([flat]).wait()
        ends = list(accumulate(one.numel() for one in learned))
        for one, start, end in zip(learned, [0, *ends[:-1]], ends, strict=True):
            one.grad = flat[start:end].view_as(one).to(one.device)


def listen(host: str) -> socket.socket:
    """A socket for the others to find rank 0."""
    listener = socket.create_server((host, 0))
    listener.set_inheritable(False)
    return listener


def own_address() -> str:
    """Of this machine, as the other nodes of the Ray cluster know it."""
    from ray.util import get_node_ip_address

    return str(get_node_ip_address())


def talk_over(address: str) -> None:
    """Has gloo use the interface with this address. It would ask for the host's name, which leads many machines to
    their loopback, where the others of a group are not. An interface that the user names stays."""
    for interface, addresses in psutil.net_if_addrs().items():
        if any(one.address == address for one in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)


def _gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
