"""What the evaluation of a run writes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from mdprop.attacks.threat import Threat
from mdprop.config.schema import EvaluateSettings
from mdprop.data.stores.adversarial import image_components
from mdprop.data.stores.queries import write_queries
from mdprop.files import sealed_json, write_files
from mdprop.robustness.checks import Finding, check_run, counts, to_json
from mdprop.robustness.corrupted import measure_corruptions
from mdprop.robustness.evaluation import evaluate_run, set_name
from mdprop.runs import CHECKS, Run


def write_results(
    run: Run,
    branches: Sequence[str],
    threats: Mapping[str, Threat],
    settings: EvaluateSettings,
    corruptions: Collection[str] = (),
) -> dict[str, list[Finding]]:
    """Evaluate a run and check it against false robustness: metrics.json, queries.parquet, checks.json.

    corruptions: names of the corrupted input sets, which the checks do not look at.

    Returns what the checks found, by branch. Raises as `evaluate_run` and `measure_corruptions`.
    """
    metrics, queries = evaluate_run(run, branches, threats, settings)
    name, threat = next(iter(threats.items()))
    size = image_components(run.attacked(branches[0], name, threat))
    findings = {branch: check_run(run, branch, queries, threats, size) for branch in branches}
    for branch, found in findings.items():
        metrics[set_name(CHECKS, branch)] = counts(found)
    for branch in branches:
        values, columns = measure_corruptions(run, branch, corruptions, settings)
        metrics |= values
        queries += columns
    write_queries(run.queries, queries)
    write_files({run.metrics: sealed_json(metrics), run.checks: to_json(findings)})
    return findings
