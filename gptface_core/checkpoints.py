"""Checkpoints inside a stage: one safetensors file each, whole or not at all, checked when read; no pickle.

A file holds weights, optimizer, moving average and generators as tensors, and in its header, as JSON, where the stage
stands and what it trains on. The newest two are kept: should the last be damaged, the one before it serves.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gptface_core.errors import InputError
from gptface_core.files import replacing

VERSION = 1
KEPT = 2
HEADER = "gptface"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds: `step` steps are done; `facts` is plain data."""

    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


class _UnusableError(Exception):
    """Why a file is no checkpoint to go on from."""


class Checkpoints:
    """The checkpoints of one stage. `identity`: what they must agree with (key), and what else people want to know."""

    def __init__(self, folder: Path, stage: str, identity: dict[str, Any]) -> None:
        self._folder, self._stage, self._identity = folder, stage, identity

    def paths(self) -> list[Path]:
        """Oldest first."""
        return sorted(self._folder.glob(f"{self._stage}-[0-9]*.safetensors"))

    def save(self, saved: Saved) -> None:
        """Written and flushed beside its name, then renamed; after that, older ones go."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in saved.tensors.items()}
        document = {"step": saved.step, "stage": self._stage, "facts": saved.facts, **self._identity}
        text = json.dumps(document, sort_keys=True)
        header = {"version": VERSION, "digest": _digest(tensors, text), "document": text}
        with replacing(self._folder / f"{self._stage}-{saved.step:08d}.safetensors") as temporary:
            save_file(tensors, temporary, metadata={HEADER: json.dumps(header)})
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        for path in self.paths()[:-KEPT]:
            path.unlink()

    def newest(self) -> Saved | None:
        """The newest that can be used, None where there is none.

        One that cannot is passed over with a warning; InputError, naming the newest, where none of several can.
        """
        faults: list[str] = []
        for path in reversed(self.paths()):
            try:
                saved = self._read(path)
            except _UnusableError as error:
                faults.append(f"checkpoint {path} {error}")
                continue
            for fault in faults:
                logger.warning("%s: going on from %s instead", fault, path.name)
            return saved
        if faults:
            raise InputError(f"{faults[0]}: delete it to begin the stage '{self._stage}' again")
        return None

    def _read(self, path: Path) -> Saved:
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {})[HEADER])
                if header["version"] != VERSION:
                    raise _UnusableError(f"has version {header['version']}, this program reads {VERSION}")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  no mapping
            document = json.loads(header["document"])
            if header["digest"] != _digest(tensors, header["document"]):
                raise _UnusableError("is corrupt (its digest differs)")
            if document["key"] != self._identity["key"]:
                raise _UnusableError("belongs to other data, another preset or another seed")
            return Saved(int(document["step"]), tensors, document["facts"])
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise _UnusableError(f"is corrupt ({' '.join(str(error).split())})") from error

    def discard(self) -> None:
        """The stage is finished: its result stands elsewhere."""
        for path in self.paths():
            path.unlink()


def _digest(tensors: dict[str, Tensor], text: str) -> str:
    state = hashlib.blake2b(text.encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        state.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # numpy's view, not torch's: the order of rows is empty at the end of an epoch, and torch refuses that.
        state.update(tensor.contiguous().reshape(-1).numpy().view(np.uint8).data)
    return state.hexdigest()


def pack_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Its state as tensors by "parameter number.name"."""
    state: dict[int, dict[str, Tensor]] = optimizer.state_dict()["state"]
    return {f"{number}.{name}": tensor for number, values in state.items() for name, tensor in values.items()}


def unpack_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, _, field = name.partition(".")
        state.setdefault(int(number), {})[field] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Those whose name begins with "prefix/", without it."""
    return {name[len(prefix) + 1 :]: tensor for name, tensor in tensors.items() if name.startswith(prefix + "/")}
