"""Scanners: the detectors that look at one input, one training set or one whole model.

All have one interface (`fl_shield.scanning.protocol`): `fit` on what the defender holds, `score`,
and a `threshold` that is calibrated to a rate of false alarms.
"""
