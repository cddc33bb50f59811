"""Regions of a picture: boxes, masks, the joint transform of picture and regions, the objectives over regions."""
