"""Averages of weights over a run, over folds and over sites, one file each."""
