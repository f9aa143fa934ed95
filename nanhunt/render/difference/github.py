"""``nanhunt diff --format github``: workflow commands that GitHub shows as annotations."""

from __future__ import annotations

from nanhunt.render.difference import wording
from nanhunt.render.github import LEVELS, Annotation, commands
from nanhunt.results.difference import Difference


def render(found: Difference) -> str:
    """An annotation for every finding and every input that could not be read, errors first; then the verdict."""
    levels: dict[str, list[Annotation]] = {"error": [], "warning": [], "notice": []}
    for error in found.errors:
        levels["error"].append(
            Annotation(error.file, "nanhunt: not read", f"{error.message}\n{error.hint}".strip())
        )
    for tensor in found.tensors:
        for finding in tensor.findings:
            level = LEVELS[finding.severity] if found.fails(finding) else "notice"
            text = f"{wording.name(tensor)}\n{finding.message}\n{wording.advice(finding)}"
            levels[level].append(Annotation(tensor.file_a, f"nanhunt: {wording.heading(finding)}", text))
    for other, alone in (("B", found.only_a), ("A", found.only_b)):
        for each in alone:
            if each.finding:
                level = LEVELS[each.finding.severity] if found.fails(each.finding) else "notice"
                title = f"nanhunt: {wording.heading(each.finding)}"
                levels[level].append(Annotation(each.file, title, wording.alone(each, other)))
    lines = [line for level, annotations in levels.items() for line in commands(level, annotations)]
    return "\n".join([*lines, f"nanhunt diff: {wording.headline(found)}"]) + "\n"
