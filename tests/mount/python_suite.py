"""Runs some of Python's own test modules where it is started, and prints what came of each as JSON.

A program of its own, so that only the standard library is loaded: python_suite.py MODULE...
"""

from __future__ import annotations

import io
import json
import re
import sys
import unittest
import warnings


def outcome(module: str) -> dict[str, object]:
    """{"run": how many, "failed": {test: traceback}, "skipped": {test: reason}}"""
    tests = unittest.defaultTestLoader.loadTestsFromName(f"test.{module}")
    result = unittest.TextTestRunner(stream=io.StringIO(), verbosity=0).run(tests)
    return {
        "run": result.testsRun,
        "failed": {_name(test): told for test, told in result.failures + result.errors},
        "skipped": {_name(test): told for test, told in result.skipped},
    }


def _name(test: unittest.TestCase) -> str:
    """Without the temporary folders that the parameters of a subtest may name."""
    return re.sub(r"'[^']*/[^']*'", "PATH", str(test))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print("\n" + json.dumps({module: outcome(module) for module in sys.argv[1:]}))
