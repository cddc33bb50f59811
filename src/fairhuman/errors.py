"""The errors that a user can mend: each names the file or parameter, the rule and the value."""


class FairHumanError(Exception):
    """Base of all errors that the command line shows as one message, without a traceback."""


class RecipeError(FairHumanError):
    """A setting is unknown or breaks its rule."""


class DataError(FairHumanError):
    """A data set, a record or a picture can't be used."""


class ModelError(FairHumanError):
    """A model can't be loaded, or doesn't fit what is asked of it."""


class PluginError(FairHumanError):
    """A part of a user's own package can't be loaded, or isn't what its group of entry points holds."""


class TrainingError(FairHumanError):
    """A run can't go on: non-finite loss, no memory, no disk."""
