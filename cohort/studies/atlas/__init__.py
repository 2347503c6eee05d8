"""Unbiased templates: the mean of a cohort, in shape and in looks.

    settings      what a template was begun with, kept in ``OUT/atlas.json``
    start         the volume that the first pass registers to
    build         pass after pass: register everyone to the template, average, remove the mean
    one_pass      a pass as a run, and what it is given
    reduction     what the tiles of a pass add up to
    means         mean, median, trimmed mean and Huber's mean of sums; the mirrored half
    update        the next template: the mean volume, moved by the inverse of the mean displacement
    passes        the folders of passes, and what they add up to
    world         where the template lies, and the way from there to the last pass
    affine_mean   the mean of the subjects' affine alignments, removed in the logarithm
    publish       files: the template, its labels, maps of volume change, a table of subjects
    label_maps    probabilities and majority of warped labels, whatever their number

A *pass* is a run of the engine whose pairs are (template, subject) for every subject; it lies in
``OUT/pass-1`` and so on, and the last one, to the finished template, in ``OUT/run``.
"""
