"""An outcome as JUnit XML, which most CI systems show beside the tests."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from lpmoe_bench.check.verdicts import Line, Outcome
from lpmoe_bench.check.words import label, sentence

# What no XML 1.0 document may hold, not even as a reference.
_FORBIDDEN = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_junit(outcome: Outcome, strict: bool) -> str:
    """Return the XML: a suite a call, a case a line; regressed and not comparable are failures.

    An inconclusive line is skipped, and with `strict` a failure.
    """
    failing = {"regressed", "not comparable"} | ({"inconclusive"} if strict else set())
    skipped = {"inconclusive"} - failing
    failures = sum(line.verdict in failing for line in outcome.lines)
    skips = sum(line.verdict in skipped for line in outcome.lines)
    counts = {"tests": len(outcome.lines), "failures": failures, "skipped": skips, "errors": 0}
    attributes = {"name": "lpmoe-bench check"} | {k: str(v) for k, v in counts.items()}
    root = ElementTree.Element("testsuites", attributes)
    suite = ElementTree.SubElement(root, "testsuite", attributes)
    for line in outcome.lines:
        _case(suite, line, failing, skipped)
    for note in outcome.notes:
        ElementTree.SubElement(suite, "system-out").text = _clean(note)
    ElementTree.indent(root, " ")
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _case(suite: ElementTree.Element, line: Line, failing: set[str], skipped: set[str]) -> None:
    names = {"classname": _clean(line.cell), "name": _clean(label(line))}
    case = ElementTree.SubElement(suite, "testcase", names)
    said = _clean(sentence(line))
    if line.verdict in failing:
        attributes = {"message": said, "type": line.verdict}
        ElementTree.SubElement(case, "failure", attributes).text = said
    elif line.verdict in skipped:
        ElementTree.SubElement(case, "skipped", {"message": said})


def _clean(text: str) -> str:
    return _FORBIDDEN.sub("?", text)
