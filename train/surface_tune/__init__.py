"""Post-processing chosen on held-out scrolls."""
