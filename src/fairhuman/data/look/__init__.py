"""Look at a data set of any format: is all of it usable, what does it look like, what is in it?"""
