"""``nanhunt schema``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

OPTIONS = ()


def schema(
    of: Annotated[str, typer.Argument(metavar="[report|diff]", help="What is saved.")] = "report",
) -> None:
    """Print the JSON Schema of saved reports, or of what diff writes."""
    from nanhunt.cli import output
    from nanhunt.options import one_of
    from nanhunt.results import schema

    one_of("The schema of", of, ("report", "diff"))
    made = schema.schema() if of == "report" else schema.schema_of_differences()
    output.say(json.dumps(made, indent=2) + "\n")
