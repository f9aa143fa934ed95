"""Where in a run a tensor stands, from its path and its name: pure functions over text, the grammar as data.

Coordinates are a mapping of what is known, in the words of ``NUMBERS`` and ``WORDS``. Times of files are never
used, since copies change them. The layouts are those of Hugging Face's Trainer, Lightning, DeepSpeed, Megatron,
torchtitan, verl, TransformerEngine's DumpTensors, SGLang's dumpers, msprobe and transformers' debugger.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping

from nanhunt.errors import NanhuntError

Coordinates = Mapping[str, int | str]

NUMBERS = {
    "step": "of the optimizer, or of whatever the run counts",
    "epoch": "pass over the data",
    "micro": "part of a step, with gradient accumulation",
    "rank": "process of the run",
    "tp": "tensor-parallel (model-parallel) rank",
    "pp": "pipeline-parallel rank",
    "dp": "data-parallel rank",
    "ep": "expert-parallel rank",
    "layer": "number of the block",
    "expert": "number of the expert in its layer",
    "order": "number of the call or of the dump, counted through a step",
}
"""Coordinates that are whole numbers."""
WORDS = {
    "run": "folder around everything that says where in the run it is",
    "path": "folder or file that belongs to the step",
    "phase": "forward, backward, optimizer (its state), counter (its steps) or model (its weights)",
    "side": "input or output of a module",
    "module": "what made it, where the path says so and not the name",
}
"""Coordinates that are text."""
RANKS = ("rank", "dp", "tp", "pp", "ep")

_N = "0*([0-9]{1,18})(?![0-9])"
_GRAMMAR: tuple[tuple[str, tuple[str, ...]], ...] = (
    # DeepSpeed's "pp_rank" is the data-parallel rank.
    (rf"zero_pp_rank_{_N}_mp_rank_{_N}", ("dp", "tp")),
    (rf"mp_rank_{_N}(?:_{_N})?(?:_{_N})?", ("tp", "pp", "ep")),
    (rf"tp{_N}_pp{_N}", ("tp", "pp")),
    (rf"layer_{_N}_expert_{_N}", ("layer", "expert")),
    (rf"(?:(?:global|local)_?)?rank[-_=.]?{_N}", ("rank",)),
    (rf"rng_state_{_N}", ("rank",)),
    (rf"dump_index={_N}", ("order",)),
    (rf"(?:global_?)?steps?[-_=.]?{_N}", ("step",)),
    (rf"(?:iter|iteration|checkpoint|ckpt|pass|rollout)[-_=.]?{_N}", ("step",)),
    (rf"epoch[-_=.]?{_N}", ("epoch",)),
    (rf"micro_?(?:batch|step)?[-_=.]?{_N}", ("micro",)),
    (rf"(?:layers?|blocks?)(?:_id)?[-_=.]?{_N}", ("layer",)),
    (rf"(?:h|blk)[._]{_N}", ("layer",)),
)
"""What stands in paths and names, in lower case and at the beginning of a word, and what its numbers are; what an
earlier line took is gone for the later ones."""
_PATTERNS = [(re.compile(rf"(?<![a-z]){text}"), says) for text, says in _GRAMMAR]
_OUTERMOST = ("layer", "expert")
"""Of two, the first holds: "layers.3.experts.h.1" is of layer 3. Of two steps, the innermost is the finest."""
_AROUND_STEPS = frozenset(("epoch", "micro", *RANKS))
_IN_RUN = _AROUND_STEPS | {"step"}
"""Coordinates by which a folder of a run is told from the folder around it."""


@functools.lru_cache(maxsize=1 << 16)
def coordinates(file: str, tensor: str, layout: str | None = None) -> Coordinates:
    """What is known of a tensor, by coordinate, e.g. of "run/step-20/rank_1.pt" and "layers.3.attn.weight".

    {"layer": 3, "path": "run/step-20", "phase": "model", "rank": 1, "run": "run", "step": 20}. What ``layout`` says
    of a file goes before what its names let suppose. Shared: not to be written to.
    Raises NanhuntError as ``layout_pattern`` does.
    """
    told = _by_layout(file, layout) if layout else {}
    found: dict[str, int | str] = {**_of_file(file), **(_of_gemm(file) if tensor in _GEMM else {}), **told}
    for name, number in _numbers(tensor.lower()):
        if name not in told and not (name in _OUTERMOST and name in found):
            found[name] = number
    phase = told.get("phase") or _phase(tensor) or found.get("phase") or _phase_of_names(tensor)
    if phase:
        found["phase"] = phase
    return dict(sorted(found.items()))


@functools.lru_cache(maxsize=1 << 12)
def _of_file(file: str) -> Coordinates:
    found: dict[str, int | str] = {}
    parts = file.replace("\\", "/").split("/")
    told = [dict(_numbers(part.lower())) for part in parts]
    for own in told:
        found |= {name: number for name, number in own.items() if name not in _OUTERMOST or name not in found}
    time = "step" if "step" in found else "epoch"
    # checkpoint-500/global_step500 is one step; a folder called step3 around all of it is none of this run.
    at = next(
        (depth for depth, own in enumerate(told) if time in found and own.get(time) == found[time]),
        len(parts),
    )
    if at < len(parts):
        found["path"] = "/".join(parts[: at + 1])
    outside = next((depth for depth, own in enumerate(told) if _AROUND_STEPS & own.keys()), len(parts))
    run = parts[: min(at, outside)]
    found |= _module(parts[-1].rpartition(".")[0] or parts[-1])
    if _IN_RUN & found.keys():
        found["run"] = "/".join(run)
    elif found.keys() & {"module", "order"}:
        found["run"] = "/".join(parts[:-1])
    phase = found.get("phase") or _phase_of_file(parts, min(len(run), len(parts) - 1))
    if phase:
        found["phase"] = phase
    return found


@functools.lru_cache(maxsize=1 << 16)  # all checkpoints of a run have the same names
def _numbers(text: str) -> tuple[tuple[str, int], ...]:
    return tuple(_found(text))


def _found(text: str) -> Iterator[tuple[str, int]]:
    for pattern, says in _PATTERNS:
        for match in pattern.finditer(text):
            for name, number in zip(says, match.groups(), strict=True):
                if number is not None:
                    yield name, int(number)
        text = pattern.sub("\0", text)


# ---------------------------------------------------------------------------------------------- what the user says

_PLACEHOLDERS = {
    **dict.fromkeys(NUMBERS, r"0*([0-9]{1,18})"),
    "phase": "(forward|backward|optimizer|model)",
    "side": "(input|output)",
    "name": "([^/]+?)",
    "run": "(.*?)",
}
"""What ``--layout`` may hold in braces; "name" is the module."""


@functools.cache
def layout_pattern(layout: str) -> tuple[re.Pattern[str], tuple[str, ...]]:
    """(what the end of a path must match, the coordinate of each group) of "dumps/{step}/{rank}/{name}.pt".

    "*" stands for anything within a folder's name. Raises NanhuntError for a layout that names no coordinate, one
    that is not known, or one of them twice.
    """
    names: list[str] = []
    text = ""
    for literal, name in re.findall(r"([^{}]*)(?:\{([^{}]*)\})?", layout.replace("\\", "/")):
        text += re.escape(literal).replace(r"\*", "[^/]*")
        if name:
            text += _placeholder(layout, name, names)
            names.append(name)
    if not names:
        raise _layout_refused(layout, "names no coordinate")
    return re.compile(f"(?:^|/){text}$"), tuple("module" if name == "name" else name for name in names)


def _placeholder(layout: str, name: str, before: list[str]) -> str:
    if name not in _PLACEHOLDERS:
        raise _layout_refused(layout, f"{{{name}}} is not known")
    if name in before:
        raise _layout_refused(layout, f"{{{name}}} stands in it twice")
    return _PLACEHOLDERS[name]


def _layout_refused(layout: str, why: str) -> NanhuntError:
    known = ", ".join(f"{{{name}}}" for name in _PLACEHOLDERS)
    return NanhuntError(f"--layout {layout}: {why}.", f"It is a path with some of {known}; * is anything.")


def _by_layout(file: str, layout: str) -> dict[str, int | str]:
    """Empty for a file that is not laid out so."""
    pattern, names = layout_pattern(layout)
    match = pattern.search(file.replace("\\", "/"))
    if match is None:
        return {}
    found: dict[str, int | str] = {
        name: int(text) if name in NUMBERS else text for name, text in zip(names, match.groups(), strict=True)
    }
    when = next((name for name in ("step", "epoch") if name in names), None)
    if when:
        end = file.find("/", match.end(names.index(when) + 1))
        found["path"] = file if end < 0 else file[:end]
    return {"run": file[: match.start()], **found}


def fits_layout(file: str, layout: str) -> bool:
    """Whether the path is laid out so. Raises NanhuntError as ``layout_pattern`` does."""
    return layout_pattern(layout)[0].search(file.replace("\\", "/")) is not None


# ---------------------------------------------------------------------------------------------- files of one tensor

_SIDES = {"input": "input", "inputs": "input", "output": "output", "outputs": "output"}
_MODULES = (
    # SGLang: step=3___rank=0___dump_index=7___name=attn_out___layer_id=2
    r"(?:^|___)name=(?P<module>.+?)(?:___|$)",
    # msprobe: Module.layers.0.mlp.Linear.forward.0.output.0
    r"^(?:Module|Cell|Functional|Tensor|Torch|Distributed|Aten|NPU|VF|Jit|Primitive|Mint|MintFunctional)\."
    r"(?P<api>.+)\.(?P<phase>forward|backward)(?:\.[0-9]+)?\.(?P<side>input|output)(?:\.|$)",
    # transformers' debugger: model.layers.0.self_attn_inputs_hidden_states
    r"^(?P<module>[A-Za-z_]\w*?(?:\.\w+)+?|[A-Z]\w*?)_(?P<side>inputs|outputs)(?:_\w+)?$",
    # TransformerEngine: transformer_layer_3_self_attention_qkv_dgrad, dots of the name as underscores
    r"^(?P<module>.+)_(?P<tensor>activation|gradient|dgrad|wgrad)$",
)
"""What the name of a file that holds one tensor says, in the writers' own spelling."""
_OF_TENSOR = {
    "activation": ("forward", "input"),
    "gradient": ("backward", "input"),
    "dgrad": ("backward", "output"),
    "wgrad": ("backward", "output"),
}
"""TransformerEngine's tensors of a linear layer: the phase, and the side of the layer's computation in it."""


_GEMM = ("high_precision", "quantized")
"""What TransformerEngine calls the tensor of such a file: how it was before and after it was quantised."""


def _of_gemm(file: str) -> dict[str, str]:
    """Of a weight or an output of a linear layer, whose files would be anybody's without what is in them."""
    module, _, tensor = file.rpartition("/")[2].rpartition(".")[0].rpartition("_")
    side = {"weight": "input", "output": "output"}.get(tensor)
    return {"module": module, "phase": "forward", "side": side} if side else {}


def _module(stem: str) -> dict[str, str]:
    """Module, side and phase of a file named after what made its tensor; empty for any other."""
    match = next(filter(None, (re.search(pattern, stem) for pattern in _MODULES)), None)
    if match is None:
        return {}
    said = match.groupdict()
    found = {"module": said.get("module") or said["api"]}
    phase, side = _OF_TENSOR.get(said.get("tensor") or "", ("", ""))
    phase, side = said.get("phase") or phase, _SIDES.get(said.get("side") or "", side)
    found |= {"side": side} if side else {}
    if not phase and found.get("side"):
        phase = "forward"
    return found | ({"phase": phase} if phase else {})


# ---------------------------------------------------------------------------------------------- phases

_BACKWARD = {"grad", "grads", "gradient", "gradients", "backward", "dgrad", "wgrad"}
_FORWARD = {"forward", "activation", "activations", "outputs", "inputs"}
_OPTIMIZER = {"optim", "optimizer", "optimizers", "optims"}
_MODEL = {"model", "weights", "consolidated", "adapter"}
_MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "exp_inf")
_PARAMETERS = {"weight", "bias", "gamma", "beta", "kernel", "scale"}
_CHECKPOINTS = (".ckpt", ".bin", ".pth", ".safetensors", ".json")
COUNTER = "counter"
"""Of what only counts: steps, in an optimizer's state. It is one number a parameter, grows, and is no state to lose."""
_COUNTER = r"(^|\.)state\.([^.]+\.)*step$"
_OPTIMIZER_KEYS = r"optimizer(s|_states?|_state_dict)?|optim(_state)?(_dict)?|opt_state"


def _words(text: str) -> set[str]:
    return {word for word in re.split(r"[^a-z0-9]+|_", text.lower()) if word}


def _phase(tensor: str) -> str:
    """What a name says by itself: optimizer state before all, since its names contain those of weights."""
    parts = tensor.lower().split(".")
    if re.search(_COUNTER, tensor.lower()):
        return COUNTER
    if re.fullmatch(_OPTIMIZER_KEYS, parts[0]) or parts[-1] in _MOMENTS:
        return "optimizer"
    words = _words(tensor)
    if words & _BACKWARD:
        return "backward"
    return "forward" if words & {"forward", "activation", "activations"} else ""


def _phase_of_names(tensor: str) -> str:
    """What a name lets suppose where its file says nothing."""
    last = tensor.lower().rpartition(".")[2]
    if last in _PARAMETERS or _words(last) & {"weight", "bias"}:
        return "model"
    return "forward" if _words(tensor) & _FORWARD else ""


def _phase_of_file(parts: list[str], outside: int) -> str:
    """By the file, then by the folders around it, innermost first.

    The first ``outside`` parts hold the run and are called as people like ("outputs"), but nothing is called
    "grads" by chance.
    """
    for depth, part in reversed(list(enumerate(parts))):
        words = _words(part)
        if words & _BACKWARD:
            return "backward"
        if depth < outside:
            continue
        if words & _FORWARD:
            return "forward"
        if words & _OPTIMIZER and not words & _MODEL:
            return "optimizer"
        if words & _MODEL and not words & _OPTIMIZER:
            return "model"
    return ""
