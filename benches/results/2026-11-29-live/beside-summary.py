#!/usr/bin/env python3
"""beside-summary.py: reads of the fast tier without and with prediction, of beside.jsonl."""
import json
import statistics

rows = [json.loads(line) for line in open("beside.jsonl")]
print("server  read      pairs  none us  learned us  median of pairs and quartiles, %")
for server in ("before", "after", "quiet"):
    for key in ("p50_us", "mean_us", "p99_us", "p999_us"):
        of = {kind: [row["read"][key] for row in rows
                     if (row["server"], row["prefetch"]) == (server, kind)]
              for kind in ("none", "learned")}
        more = sorted(100 * (on / off - 1) for off, on in zip(of["none"], of["learned"]))
        quarter = len(more) // 4
        print(f"{server:7} {key:8} {len(more):6} {statistics.median(of['none']):8.1f} "
              f"{statistics.median(of['learned']):11.1f}  {statistics.median(more):+.1f} "
              f"({more[quarter]:+.1f}, {more[-1 - quarter]:+.1f})")
