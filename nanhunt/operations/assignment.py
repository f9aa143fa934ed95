"""Which tensors of a container play which role of an operation: as the user says, and by name where they do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nanhunt.errors import NanhuntError
from nanhunt.load.container import Container
from nanhunt.load.options import ReadOptions
from nanhunt.load.reference import contents, tensor_at
from nanhunt.load.roles import Role, complete_sets, is_called, missing
from nanhunt.load.tensor import Tensor
from nanhunt.load.wording import described, did_you_mean, listed, printable
from nanhunt.operations.operation import Described, Operation
from nanhunt.operations.registry import OperationOptions
from nanhunt.options import one_of

Assignment = Mapping[str, Tensor]
"""By role."""


def assignments(
    container: Container, operation: Operation, given: Assignment, options: OperationOptions
) -> list[Assignment]:
    """Every set of tensors in ``container`` that the operation can be judged on, in file order.

    ``given``: tensors by role that are known already; others may be named in the options. Raises NanhuntError for
    a name that leads nowhere, and when a role is neither given nor found.
    """
    roles = {role.name: role for role in operation.roles}
    said = spoken(operation, options, tuple(options.role))
    given = {
        **{
            name: tensor_at(spec, roles[name], options.stored_dtype, container) for name, spec in said.items()
        },
        **given,
    }
    open_roles = [role for role in operation.roles if role.name not in given]
    if not missing(operation.roles, given):
        return [given | _alone(container, open_roles, given)]
    sets = complete_sets(container, open_roles) or _unnamed(container, open_roles)
    if not sets:
        raise _incomplete(container, operation, open_roles)
    return [given | found for found in sets]


def _alone(container: Container, roles: list[Role], given: Assignment) -> dict[str, Tensor]:
    """Optional tensors that only one tensor of the container can be."""
    taken = {tensor.label for tensor in given.values()}
    found = {}
    for role in roles:
        suiting = [tensor for tensor in role.among(container.tensors.values()) if tensor.label not in taken]
        if len(suiting) == 1:
            found[role.name] = suiting[0]
    return found


def _unnamed(container: Container, roles: list[Role]) -> list[dict[str, Tensor]]:
    """The only tensor of a file, where it has no name at all, as the only one that is needed."""
    needed = [role for role in roles if role.required]
    if list(container.tensors) != [""] or len(needed) != 1:
        return []
    (tensor,), (role,) = container.tensors.values(), needed
    fits = tensor.dtype in role.kinds and len(tensor.shape) >= role.dimensions
    return [{role.name: tensor}] if fits else []


def spoken(operation: Operation, options: ReadOptions, texts: Sequence[str]) -> dict[str, str]:
    """What --role says, and --logits and --targets where the operation has such roles: role to [FILE:]NAME.

    Raises NanhuntError for text that is no ROLE=NAME, and for a role that the operation does not have.
    """
    names = tuple(role.name for role in operation.roles)
    said: dict[str, str] = {}
    if options.logits and "logits" in names:
        said["logits"] = options.logits[0]
    if options.targets and "targets" in names:
        said["targets"] = options.targets
    for text in texts:
        name, spec = parted(text)
        name = meant_role(operation, name)
        one_of("--role", name, names)
        said[name] = spec
    return said


def meant_role(operation: Described, name: str) -> str:
    """The role of that name, or the only one whose name ends in it: mask of attention is attn_mask."""
    names = [role.name for role in operation.roles]
    longer = [each for each in names if each.endswith(f"_{name}")]
    return longer[0] if name not in names and len(longer) == 1 else name


def parted(text: str) -> tuple[str, str]:
    """(role, [FILE:]NAME) of one --role. Raises NanhuntError for text that is no ROLE=NAME."""
    name, equals, spec = text.partition("=")
    if not equals or not spec:
        raise NanhuntError(
            f"--role {text} is not ROLE=[FILE:]NAME.", f"Write --role {name or 'logits'}=NAME."
        )
    return name, spec


def spoken_name(role: Role) -> str:
    """A role as --role takes it: class-weights."""
    return role.name.replace(" ", "-")


def _incomplete(container: Container, operation: Operation, roles: list[Role]) -> NanhuntError:
    """Which tensor is missing, what is there and what may be meant; or which ones cannot be told apart."""
    tensors = container.tensors.values()
    absent = [role for role in roles if role.required and not role.among(tensors)]
    told = "; ".join(f"{role.name}, {role.what}" for role in absent or roles if role.required)
    found, wanted = "no tensor is called so", (absent or roles)[0]
    called = [(role, each) for role in absent for each in tensors if is_called(role.called, each.name)]
    if called:
        role, other = called[0]
        raise NanhuntError(
            f"{printable(container.file)} has {described(other)}, and {role.name} of --op {operation.name} is "
            f"{role.what}.",
            f"Save it so, or name another tensor: --role {role.name}=NAME. {contents(container)}",
        )
    guess = "".join(did_you_mean(role.name, container.tensors) for role in absent[:1])
    for role in () if absent else roles:
        several = role.among(tensors)
        if len(several) > 1:
            found, wanted = f"{listed(map(described, several))} could each be {role.name}", role
    return NanhuntError(
        f"{printable(container.file)} has not all that --op {operation.name} needs: {told}: {found}.",
        f"{guess}Say which: --role {wanted.name}=NAME. {contents(container)}",
    )
