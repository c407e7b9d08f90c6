"""A study of the losses: do they collapse, which is best, and what does the reference's inference make of each."""
