"""One self-contained HTML page about data, a run, a submission and its score.

Whoever leaves a page starts `python -m surface_report` as a process of its own: no other room imports this one.
"""
