"""`make bench`: figures as ratios of one run, since machines are shared and noisy. Nothing is asserted."""
