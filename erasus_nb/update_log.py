"""The log of every update of base training: what `amnesiac` takes back.

Base training itself fills it in (`training.fit`), so it stands below the loops that train.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .strategy import MissingRecord

#: Weights by name; a model, or its weights.
Weights = Mapping[str, Tensor]
State = nn.Module | Weights


class UpdateLog:
    """Every optimiser step of base training: its examples, and how the weights moved.

    Made for all steps, before any request is known. `initial` plus all changes is the
    trained model. Changes are kept as one flat float32 vector per step; where it is known
    beforehand who may ask, as one float64 sum over the steps that held examples of the
    same owners.

    Args:
        start: The model before training, or its weights by name.
        owners: Ids of the examples of each owner who may ask to have all of them
            forgotten. None is for requests of any kind.

    Source: Graves, Nagisetty and Ganesh (AAAI 2021), section "Amnesiac Unlearning".
    """

    def __init__(self, start: State, owners: Sequence[Tensor] | None = None):
        weights = _weights(start)
        self._shapes = {name: value.shape for name, value in weights.items()}
        self._owners = None if owners is None else [ids.cpu() for ids in owners]
        self._sums: dict[int | tuple[bool, ...], int] = {}  # whose examples -> place
        self.initial = _flat(weights)
        self.ids: list[Tensor] = []
        self.epochs: list[int] = []
        self.changes: list[Tensor] = []
        #: Step -> place of its change, or of the sum that it is part of, in `changes`.
        self.places: list[int] = []
        #: Buffers (running statistics) before the first step and after every step.
        self.buffers = [_buffers(start)]

    def before(self, state: State) -> Tensor:
        """The weights just before a step, to be handed to `after`."""
        return _flat(_weights(state))

    def after(self, state: State, before: Tensor, epoch: int, ids: Tensor) -> None:
        """Record the step just taken on the examples `ids`, shape (B,)."""
        used, change = ids.detach().cpu().clone(), _flat(_weights(state)) - before
        # Steps share a sum by their owners; where none are known, each has its own.
        key = len(self) if self._owners is None else self._whose(used)
        place = self._sums.setdefault(key, len(self.changes))
        if place < len(self.changes):
            self.changes[place] += change
        else:
            # A sum of many float32 changes keeps their last bits in float64.
            self.changes.append(change if self._owners is None else change.double())
        self.places.append(place)
        self.ids.append(used)
        self.epochs.append(epoch)
        self.buffers.append(_buffers(state))

    def _whose(self, ids: Tensor) -> tuple[bool, ...]:
        """For each owner, whether any of these examples is theirs."""
        return tuple(bool(torch.isin(ids, own).any()) for own in self._owners)

    def __len__(self) -> int:
        """Number of recorded steps."""
        return len(self.places)

    @property
    def nbytes(self) -> int:
        """Bytes that the log occupies, the initial weights included."""
        kept = [self.initial, *self.changes, *self.ids]
        kept += [value for buffers in self.buffers for value in buffers.values()]
        return sum(value.nbytes for value in kept)

    def steps_with(self, ids: Tensor) -> list[int]:
        """Numbers, from 0, of the steps whose batch held any of `ids`, in order."""
        wanted = ids.cpu()
        return [k for k, used in enumerate(self.ids) if torch.isin(used, wanted).any()]

    def revert(self, state: State, steps: Sequence[int], buffers: bool = True) -> dict[str, Tensor]:
        """The state without the weight changes of some steps; `state` is left as it is.

        Args:
            steps: Step numbers, each taken back once.
            buffers: Also put buffers back to what they were before the first step.

        Returns:
            Weights (and, where there are any, buffers) by name.

        Raises:
            MissingRecord: there is no such step, or it was added up with others that
                are not to be reverted.
        """
        chosen = set(steps)
        if strange := sorted(chosen - set(range(len(self)))):
            raise MissingRecord(f"the log has {len(self)} steps and no step {strange[0]}")
        places = {self.places[k] for k in chosen}
        together = {k for k, place in enumerate(self.places) if place in places}
        if left := sorted(together - chosen):
            raise MissingRecord(
                f"step {left[0]} held examples of the same owners as steps to be "
                "reverted; the log adds such steps up and takes back all or none of them"
            )
        weights = _weights(state)
        # float64: hundreds of float32 changes cancel here, in whatever order.
        flat = _flat(weights).double()
        for place in sorted(places):
            flat -= self.changes[place].double()
        parts = flat.split([shape.numel() for shape in self._shapes.values()])
        reverted = {
            name: part.view(shape).to(weights[name])
            for (name, shape), part in zip(self._shapes.items(), parts)
        }
        now = _buffers(state)
        return reverted | (self.buffers[min(steps)] if buffers and steps else now)

    def tensors(self) -> dict[str, Tensor]:
        """All that was recorded, by name: what `restore` takes."""
        recorded = {
            "initial": self.initial,
            "changes": torch.stack(self.changes),
            "places": torch.tensor(self.places),
            "epochs": torch.tensor(self.epochs),
            "ids": torch.cat(self.ids),
            "sizes": torch.tensor([len(ids) for ids in self.ids]),
        }
        for name in self.buffers[0]:
            recorded[f"buffer {name}"] = torch.stack([b[name] for b in self.buffers])
        return recorded

    def restore(self, recorded: Mapping[str, Tensor]) -> UpdateLog:
        """Take over what another log of the same model recorded; returns this log.

        It is complete: no more steps can be recorded in it.
        """
        self.initial, self.changes = recorded["initial"], list(recorded["changes"])
        self.places = recorded["places"].tolist()
        self.epochs = recorded["epochs"].tolist()
        self.ids = list(recorded["ids"].split(recorded["sizes"].tolist()))
        columns = {name: recorded[f"buffer {name}"] for name in self.buffers[0]}
        self.buffers = [
            {name: column[k] for name, column in columns.items()} for k in range(len(self) + 1)
        ]
        return self


def _weights(state: State) -> dict[str, Tensor]:
    return dict(state.named_parameters() if isinstance(state, nn.Module) else state)


def _buffers(state: State) -> dict[str, Tensor]:
    if not isinstance(state, nn.Module):
        return {}
    kept = state.state_dict().keys()  # what is not kept with a model is no state of it
    return {n: b.detach().cpu().clone() for n, b in state.named_buffers() if n in kept}


def _flat(weights: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([value.detach().flatten() for value in weights.values()]).float().cpu()
