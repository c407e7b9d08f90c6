"""From competition data to one weights file: training with a rebalanced loss, averaged weights, and their check."""
