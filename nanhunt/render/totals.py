"""What is said of a whole report: counts before lists."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from nanhunt.literal import literal
from nanhunt.render.phrases import count, plural
from nanhunt.results import verdict as judged
from nanhunt.results.counted import Healthy
from nanhunt.results.exit_code import INTERRUPTED
from nanhunt.results.finding import Severity
from nanhunt.results.order import natural_key
from nanhunt.results.report import Report
from nanhunt.results.tensor import TensorReport


def groups(report: Report) -> list[list[TensorReport]]:
    """Tensors in natural order, judgements of the same tensor in several dtypes together.

    Two judgements in one dtype are of two tensors, whatever their names are.
    """
    found: dict[tuple[str, str, str], list[list[TensorReport]]] = {}
    for tensor in report.tensors:
        alike = found.setdefault((tensor.file, tensor.origin, tensor.tensor), [])
        free = (group for group in alike if all(other.judged_in != tensor.judged_in for other in group))
        group = next(free, None)
        if group is None:
            alike.append([tensor])
        else:
            group.append(tensor)
    keys = sorted(found, key=lambda key: (natural_key(key[0]), key[0], key[1], natural_key(key[2]), key))
    return [group for key in keys for group in found[key]]


def severity_counts(report: Report) -> dict[Severity, int]:
    """New findings by severity, most severe first."""
    found = [finding.severity for finding in report.findings if not finding.known]
    return {severity: found.count(severity) for severity in reversed(Severity)}


def tensors_and_files(report: Report) -> tuple[int, int]:
    """How many tensors were looked at in how many files, those included that are only counted.

    Tensors of a file that are stored alike are judged in the same dtypes, so the most judgements in one dtype are
    their number.
    """
    judgements: Counter[tuple[str, str, str, str]] = Counter()
    named: dict[tuple[str, str, str], set[str]] = {}
    for tensor in report.tensors:
        judgements[tensor.origin, tensor.file, tensor.stored_dtype, tensor.dtype] += 1
        named.setdefault((tensor.origin, tensor.file, tensor.stored_dtype), set()).add(tensor.tensor)
    for group in report.healthy:
        for file, number in group.files.items():
            judgements[group.origin, file, group.stored_dtype, group.dtype] += number
    alike = {key: len(names) for key, names in named.items()}
    for (origin, file, stored, _), number in judgements.items():
        alike[origin, file, stored] = max(number, alike.get((origin, file, stored), 0))
    return sum(alike.values()), len({key[:2] for key in alike})


def common_notes(groups: Iterable[Healthy], most: int = 3) -> list[tuple[str, int]]:
    """What has to be known of tensors that are only counted, and of how many: the most common notes."""
    found: Counter[str] = Counter()
    for group in groups:
        for note in group.notes:
            found[note] += sum(group.files.values())
    return sorted(found.items(), key=lambda item: (-item[1], item[0]))[:most]


def summary(report: Report) -> str:
    """One line on everything."""
    tensors, files = tensors_and_files(report)
    found = [plural(number, severity) for severity, number in severity_counts(report).items() if number]
    known = sum(finding.known for finding in report.findings)
    parts = [", ".join(found) or ("nothing new" if known else "healthy" if tensors else _nothing(report))]
    parts += [f"{count(known)} known"] if known else []
    parts += tolerated(report)
    parts += [f"{count(len(report.errors))} not read"] if report.errors else []
    parts += [f"{count(len(report.not_looked_at))} not looked at"] if report.not_looked_at else []
    return f"{plural(tensors, 'tensor')} in {plural(files, 'file')}: {'; '.join(parts)}."


def _nothing(report: Report) -> str:
    if report.exit_code == INTERRUPTED:  # what was seen of the one at work stands above
        return "none was judged to its end"
    return "nothing was judged" if report.errors else "nothing to judge"


def tolerated(report: Report) -> list[str]:
    """Said where warnings or errors do not fail the run, which nobody would expect."""
    grave = [
        (finding, tensor)
        for tensor in report.tensors
        for finding in tensor.findings
        if finding.severity is not Severity.NOTE and not finding.known
    ]
    passed = sum(not judged.fails(finding, tensor) for finding, tensor in grave)
    if not passed:
        return []
    some = f"{count(passed)} of them {'does' if passed == 1 else 'do'} not fail"
    return [f"{'none of them fails' if passed == len(grave) else some} the run (--fail-on)"]


NAMED = 5
"""Files of one kind that are named where they were not looked at."""


def not_looked_at(report: Report) -> str:
    """What the report says nothing about, by kind, most files first; "" where it looked at everything."""
    kinds: dict[str, list[str]] = {}
    for part in report.not_looked_at:
        kinds.setdefault(part.what, []).append(part.file)
    told = []
    for what, files in sorted(kinds.items(), key=lambda kind: (-len(kind[1]), kind[0])):
        more = f" and {count(len(files) - NAMED)} more" if len(files) > NAMED else ""
        told.append(f"{literal(what)}: {', '.join(map(literal, files[:NAMED]))}{more}")
    return "; ".join(told)


def not_run(report: Report, most: int | None) -> str:
    """Code that files name, in most files first, ``most`` of it: "argparse.Namespace, posix.system (2 files)"."""
    files: dict[str, set[str]] = {}
    for each in report.not_run:
        files.setdefault(each.name, set()).add(each.file)
    names = sorted(files, key=lambda name: (-len(files[name]), name))
    left = len(names) - len(names[:most])
    more = f" and {count(left)} more" if left else ""
    places = sorted(set().union(*files.values()))
    where = literal(places[0]) if len(places) == 1 else plural(len(places), "file")
    return f"{', '.join(map(literal, names[:most]))}{more} ({where})"


@dataclass(frozen=True)
class RuleCount:
    """One line of ``--statistics``."""

    code: str
    name: str
    severity: Severity
    tensors: int
    rows: int
    """Rows, or values of tensors that are not logits, over all inputs."""


def rule_counts(report: Report) -> list[RuleCount]:
    """Rules by how often they hold, most rows first, then by code."""
    found: dict[tuple[str, str, Severity], list[int]] = {}
    for finding in report.findings:
        found.setdefault((finding.code, finding.name, finding.severity), []).append(finding.count)
    lines = [RuleCount(*key, tensors=len(counts), rows=sum(counts)) for key, counts in found.items()]
    return sorted(lines, key=lambda line: (-line.rows, line.code, -line.severity.rank))
