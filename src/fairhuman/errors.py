"""Errors that a user can fix. Each message names the file or parameter, the rule and the value found."""


class FairHumanError(Exception):
    """Base class. The command line prints these errors as one message, without a traceback."""


class RecipeError(FairHumanError):
    """A setting is unknown or its value is invalid."""


class DataError(FairHumanError):
    """A data set, a record or an image cannot be used."""


class ModelError(FairHumanError):
    """A model cannot be loaded or does not fit the requested use."""


class PluginError(FairHumanError):
    """A part of a user's own package can't be loaded, or isn't what its group of entry points holds."""


class TrainingError(FairHumanError):
    """A training run cannot continue: non-finite loss, out of memory, disk full."""
