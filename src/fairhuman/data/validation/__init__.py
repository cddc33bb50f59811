"""The validation set: brief prompts and clear pictures of people, drawn so that anyone can draw them again."""

from fairhuman.data.validation.build import ValidationSummary, build_validation
from fairhuman.data.validation.settings import PromptSettings, ValidationFilters, ValidationSetSettings

__all__ = ["PromptSettings", "ValidationFilters", "ValidationSetSettings", "ValidationSummary", "build_validation"]
