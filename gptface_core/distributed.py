"""Where training runs: device, precision, processes. One process is the plain case of many.

accelerate finds the device and joins the processes that `torchrun` or `accelerate launch` started (NCCL on GPUs, gloo
on CPUs). Every process draws the same whole batch from the same generator and takes its own rows of it, so the order of
the data depends on neither their number nor their speed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gptface_core.config import RunOptions
from gptface_core.errors import InputError
from gptface_core.stopping import end_with_launcher


@dataclass(frozen=True)
class Engine:
    """Device and processes of one training."""

    device: torch.device
    rank: int = 0
    world: int = 1
    bf16: bool = False
    compile: bool = False

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def wrap(self, module: nn.Module, find_unused: bool) -> nn.Module:
        """`module` whose backward pass averages gradients over the processes; itself where there is one."""
        if self.world == 1:
            return module
        places = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(module, device_ids=places, find_unused_parameters=find_unused)

    def autocast(self) -> torch.autocast:
        """bf16 for what bears it, where that was chosen; weights, gradients and optimizer stay fp32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    @contextlib.contextmanager
    def accumulating(self, module: nn.Module, last: bool) -> Iterator[None]:
        """Gradients are exchanged in the last part of a step alone."""
        wait = contextlib.nullcontext() if last or self.world == 1 else module.no_sync()  # type: ignore[operator]
        with wait:
            yield

    def sum(self, values: Tensor) -> list[float]:
        """Sums of a vector over the processes, on the host. The one moment of a step at which a GPU is waited for."""
        if self.world > 1:
            dist.all_reduce(values)
        return [float(value) for value in values.tolist()]

    def wait(self) -> None:
        """Until every process is here."""
        if self.world > 1:
            dist.barrier()


def open_engine(options: RunOptions) -> Engine:
    """The engine that the options and the launcher's environment name; InputError where they cannot be met."""
    cuda = torch.cuda.is_available()
    if options.device == "cuda" and not cuda:
        raise InputError("device cuda: this machine has no CUDA device that torch can use; choose cpu or auto")
    from accelerate import PartialState

    on_cpu = options.device == "cpu" or not cuda
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not on_cpu and torch.cuda.device_count() == 0:
        raise InputError("several processes, and no CUDA device for them: choose device cpu")
    end_with_launcher()
    state = PartialState(cpu=on_cpu)
    device = torch.device("cpu") if on_cpu else state.device
    bf16 = options.precision == "bf16" or (options.precision == "auto" and device.type == "cuda")
    compiled = device.type == "cuda" if options.compile is None else options.compile
    return Engine(device, state.process_index, state.num_processes, bf16, compiled)


class _Gather(torch.autograd.Function):
    """(b, ...) of each process -> (world * b, ...) of all, in the order of ranks; gradients come back summed."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        ctx.rows, ctx.rank = len(local), dist.get_rank()
        parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        whole = gradients[0].contiguous()
        dist.all_reduce(whole)
        return whole[ctx.rank * ctx.rows : (ctx.rank + 1) * ctx.rows]


class _Sum(torch.autograd.Function):
    """The sum over the processes; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        whole = local.clone()
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        whole = gradients[0].contiguous()
        dist.all_reduce(whole)
        return whole


def gather(local: Tensor) -> Tensor:
    """Rows of all processes, with gradients."""
    return torch.as_tensor(_Gather.apply(local))


class SharedBatchNorm(nn.BatchNorm1d):
    """`BatchNorm1d` without scale over the rows of all processes, on any device (torch's own has no CPU part)."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        sums = torch.as_tensor(_Sum.apply(torch.stack([x.sum(0), (x * x).sum(0)])))
        rows = len(x) * dist.get_world_size()
        mean = sums[0] / rows
        variance = sums[1] / rows - mean**2
        with torch.no_grad():
            assert self.running_mean is not None and self.running_var is not None
            assert self.momentum is not None and self.num_batches_tracked is not None
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * rows / (rows - 1), self.momentum)
        return (x - mean) / (variance + self.eps).sqrt()


def share_batch_norms(module: nn.Module, engine: Engine) -> nn.Module:
    """Every scale-free `BatchNorm1d` below `module` counts the rows of all processes from now on."""
    if engine.world > 1:
        for child in module.modules():
            if type(child) is nn.BatchNorm1d and not child.affine:
                child.__class__ = SharedBatchNorm
    return module


def compile_blocks(blocks: Sequence[nn.Module], engine: Engine) -> None:
    """torch.compile block by block, in place: names of weights stay, and equal blocks share one compilation."""
    if engine.compile:
        for block in blocks:
            block.compile()
