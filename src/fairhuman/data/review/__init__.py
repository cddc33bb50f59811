"""Manual review of a data set's pictures and prompts on a local web page: keep, drop, edit.

serve_review(folder, ReviewSettings(), "127.0.0.1", 8000, print)    # until Ctrl-C
apply_review(folder)                                                 # writes reviewed.jsonl and review.json
"""

from fairhuman.errors import FairHumanError

try:
    from fairhuman.data.review.app import create_review_app, serve_review
    from fairhuman.data.review.export import apply_review
except ModuleNotFoundError as error:
    raise FairHumanError(f"reviewing needs additional packages: pip install 'fairhuman[web]' ({error})") from error
from fairhuman.data.review.settings import ReviewSettings

__all__ = ["ReviewSettings", "apply_review", "create_review_app", "serve_review"]
