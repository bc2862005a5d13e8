"""Custom Metal kernels, each beside the plain operations it stands for. See choice.py for which one runs.

No kernel here has run on a GPU yet: all are proven in the simulator of tests/metalsim.
"""
