"""Every error this package raises on purpose.

    AudioR1Error
    ├── AudioError        a sound that cannot be read or used
    ├── PromptError       messages that cannot become a prompt, or do not fit the context
    ├── CheckpointError   a folder, shard or tensor that is missing, broken or unexpected
    │   └── ConfigError   a config.json value that is missing or impossible
    ├── HubError          the hub refused, is unreachable or has no such thing
    ├── DiskError         no room, or no right, to write
    ├── PlanError         more memory, or a longer context, than there is
    ├── JobError          a list of recordings, or an output of theirs, that cannot be used
    ├── JudgeError        a judge that cannot be asked
    ├── EvaluationError   a benchmark, or a run over one, that cannot be used
    └── TrainingError     a training run that cannot start or go on
        └── DataError     a row, or a file of rows, that cannot be learnt from

A message is one line: what went wrong, where, and the next step.
"""


class AudioR1Error(Exception):
    """Base class: `str(error)` is one line made for the person at the terminal."""


class AudioError(AudioR1Error):
    """A sound that cannot be read or used."""


class PromptError(AudioR1Error):
    """Messages that cannot become a prompt, or a prompt that does not fit the context."""


class CheckpointError(AudioR1Error):
    """A checkpoint folder, shard or tensor that is missing, broken or unexpected."""


class ConfigError(CheckpointError):
    """A configuration value that is missing or impossible."""


class HubError(AudioR1Error):
    """The hub refused, is unreachable, or has no such repository."""


class DiskError(AudioR1Error):
    """No room, or no right, to write."""


class JobError(AudioR1Error):
    """A list of recordings, or an output of theirs, that cannot be used."""


class JudgeError(AudioR1Error):
    """A judge that is not there, refuses, or gives what is no reply."""


class EvaluationError(AudioR1Error):
    """A benchmark's files, or the folder of a run over them, that cannot be used."""


class PlanError(AudioR1Error):
    """What was asked for does not fit the memory, or the model's context."""


class TrainingError(AudioR1Error):
    """A training run that cannot start or cannot go on."""


class DataError(TrainingError):
    """A row, or a file of rows, that cannot be learnt from; it begins with file:line."""
