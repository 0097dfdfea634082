#!/usr/bin/env python3
"""compare.py DIR: reads that stall, live in DIR and as the laboratory has them."""
import json
import statistics
import sys

def all_reads(path):
    with open(path) as file:
        read = json.load(file)["read"]
    return read["mean_us"] / 1e3, read["p99_us"] / 1e3

def live(path):
    with open(path) as file:
        report = json.load(file)
    slow = report["slow_read"]
    return slow["count"], slow["p50_us"] / 1e3, slow["p99_us"] / 1e3

def lab(row):
    device = row["device"]
    return device["slow_reads"], device["slow_p50_ms"], device["slow_p99_ms"]

print("trace         prefetch  where   slow reads  p50 ms  p99 ms  rounds' p99")
for trace in ("msdtrs", "cloudphysics"):
    with open(f"{sys.argv[1]}/{trace}-served.json") as file:
        both = json.load(file)
    rows = {row["prefetch"]: lab(row) for row in both}
    p99_of_all = {row["prefetch"]: row["device"]["read_p99_ms"] for row in both}
    p99 = {}
    for kind in ("none", "learned"):
        rounds = [live(f"{sys.argv[1]}/{trace}-{kind}-{n}.json") for n in (1, 2, 3)]
        count, p50, p99[kind] = (statistics.median(column) for column in zip(*rounds))
        print(f"{trace:13} {kind:8}  live    {count:10}  {p50:6.1f}  {p99[kind]:6.1f} ",
              *(f"{one[2]:.1f}" for one in rounds))
        count, p50, of_lab = rows[kind]
        print(f"{'':13} {'':8}  lab     {count:10}  {p50:6.1f}  {of_lab:6.1f}  "
              f"{100 * (p99[kind] / of_lab - 1):+.1f} %")
    for kind in ("none", "learned"):
        rounds = [all_reads(f"{sys.argv[1]}/{trace}-{kind}-{n}.json") for n in (1, 2, 3)]
        mean, of_all = (statistics.median(column) for column in zip(*rounds))
        print(f"{trace:13} {kind:8}  all reads live: mean {mean:.2f} ms, p99 {of_all:.1f}; "
              f"in the laboratory p99 {p99_of_all[kind]:.1f}")
    falls = [100 * (1 - of["learned"] / of["none"])
             for of in (p99, {kind: rows[kind][2] for kind in rows})]
    print(f"{trace:13} p99 falls by {falls[0]:.1f} % live, {falls[1]:.1f} % in the laboratory")
