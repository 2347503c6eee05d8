"""Feature extractors: one volume in, ``[N, C, D, H, W]`` features out, each subject for itself."""
