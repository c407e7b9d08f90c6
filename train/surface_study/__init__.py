"""The study of the losses: do they collapse, which is best, and what the reference's reading makes of any of them."""
