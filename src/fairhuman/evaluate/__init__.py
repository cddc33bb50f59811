"""Evaluation of pictures: features are computed once and cached; metrics are pure functions over them."""
