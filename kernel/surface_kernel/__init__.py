"""All that runs offline on Kaggle: one volume in, one mask out, and the submission around them."""

__version__ = "0.1.0"
