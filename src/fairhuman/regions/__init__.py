"""Regions of a picture: boxes, masks, the transform that moves them with it, the objectives over them."""
