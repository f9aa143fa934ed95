"""The order of calls, from the index files that writers of dumps leave beside them."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nanhunt.errors import NanhuntError
from nanhunt.load.listing import text

_TREE = "_debug_tree_SUMMARY.json"
_KEYS = (
    re.compile(r"^(.+?_(?:inputs|outputs))(?:_\w+)?$"),  # model.layers.0_inputs_hidden_states
    re.compile(r"^(.+?)\.(?:input|output)(?:\.|$)"),  # Module.layers.0.mlp.Linear.forward.0.output.0
)


@dataclass(frozen=True)
class CallOrder:
    """Numbers of calls, by the folder of an index and by how files are called."""

    by_folder: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def of(self, file: str) -> int | None:
        """The number of the call that a file's tensor belongs to; None where no index names it."""
        if not self.by_folder:
            return None
        path = Path(file)
        known = next((self.by_folder[str(each)] for each in path.parents if str(each) in self.by_folder), {})
        matches = (pattern.match(path.stem) for pattern in _KEYS)
        return next((known[match[1]] for match in matches if match and match[1] in known), None)


def read_call_order(files: Iterable[str]) -> CallOrder:
    """From those of ``files`` that are an index: transformers' debug trees, msprobe's dump.json.

    One that is damaged says nothing: it is no tensor file, and layers are in an order by themselves.
    """
    found: dict[str, dict[str, int]] = {}
    for file in files:
        path = Path(file)
        if path.name.endswith(_TREE) or path.name == "dump.json":
            try:
                index = json.loads(text(file))
                names = _events(index) if path.name.endswith(_TREE) else iter(index["data"])
                found[str(path.parent)] = {name: number for number, name in enumerate(names)}
            except (NanhuntError, OSError, ValueError, KeyError, TypeError, RecursionError):
                continue
    return CallOrder(found)


def _events(module: Mapping[str, Any]) -> Iterator[str]:
    """What goes into a module, what happens inside, what comes out: the file names of all that, in that order."""
    yield f"{module['module_path']}_inputs"
    yield from itertools.chain.from_iterable(map(_events, module.get("children") or ()))
    yield f"{module['module_path']}_outputs"
