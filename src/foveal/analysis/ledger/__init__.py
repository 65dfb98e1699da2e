"""The ledger: every published table of the papers held against what foveal computes now; plain records."""

from foveal.analysis.ledger.papers import PAPERS, Summary, ledger, summary, takes
from foveal.analysis.ledger.records import Cell, Run, Verdict

__all__ = ["PAPERS", "Cell", "Run", "Summary", "Verdict", "ledger", "summary", "takes"]
