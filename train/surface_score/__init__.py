"""The competition's metric, computed on arrays or on files.

It imports nothing else of this project: a score that shared the writer's reader would share its mistakes.
"""

from surface_score.leaderboard import CaseScore, mean_score, score_case

__all__ = ["CaseScore", "mean_score", "score_case"]
