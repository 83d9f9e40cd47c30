"""Reads metrics from standard input with Prometheus' own client, and prints one sample a line: NAME KIND LABELS VALUE."""

import json
import sys

from prometheus_client.parser import text_string_to_metric_families

for family in text_string_to_metric_families(sys.stdin.read()):
    assert family.documentation, family.name
    for sample in family.samples:
        print(sample.name, family.type, json.dumps(sample.labels, sort_keys=True), float(sample.value))
