"""From weights to a bundle that was rehearsed as Kaggle would run it, and from there to Kaggle.

bundle    weights, settings and wheels -> one flat folder
wheels    the pinned wheels, the cache they are fetched to once, and the writer of our own
manifest  the list of what a bundle holds; checking it is `kernel/submit.py --verify`, run as a process
protocol  the line that submit.py and train_on_kaggle.py print for other programs
rehearse  submit.py exactly as pushed, in a tree like Kaggle's (sandbox, image, enclosure, guard, watch)
publish   the only part that goes online with what is yours
"""
