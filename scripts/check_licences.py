#!/usr/bin/env python3
"""Holds the licences of every crate we depend on against the list in deny.toml, without a network.

What `cargo deny check licenses` does, for machines that do not have cargo-deny (building it takes longer than building
Bowline). It reads the SPDX expressions that crates declare; it does not read licence files and knows no advisories.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def allowed_by(expression: str, allowed: set[str]) -> bool:
    """Whether an SPDX expression can be met by the allowed licences alone (OR, AND, parentheses, `/` as OR)."""
    tokens = re.findall(r"\(|\)|[^\s()]+(?:\s+WITH\s+[^\s()]+)?", expression.replace("/", " OR "))

    def alternatives() -> bool:
        verdict = conjunction()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            other = conjunction()
            verdict = verdict or other
        return verdict

    def conjunction() -> bool:
        verdict = single()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            other = single()
            verdict = verdict and other
        return verdict

    def single() -> bool:
        token = tokens.pop(0)
        if token == "(":
            verdict = alternatives()
            tokens.pop(0)
            return verdict
        return re.sub(r"\s+", " ", token) in allowed

    return alternatives()


def main() -> int:
    allowed = set(tomllib.loads((ROOT / "deny.toml").read_text())["licenses"]["allow"])
    metadata = json.loads(
        subprocess.run(
            ["cargo", "metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"],
            cwd=ROOT, check=True, capture_output=True, text=True,
        ).stdout
    )
    refused = [
        f"{package['name']} {package['version']}: {package.get('license') or 'no licence stated'}"
        for package in metadata["packages"]
        if not package.get("license") or not allowed_by(package["license"], allowed)
    ]
    if refused:
        print("crates whose licence is not in deny.toml (replace the crate, or add the licence with a reason):")
        print("\n".join(f"  {line}" for line in sorted(refused)))
        return 1
    print(f"licences: {len(metadata['packages'])} crates, all allowed by deny.toml")
    return 0


if __name__ == "__main__":
    sys.exit(main())
