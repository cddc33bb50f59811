"""The build pipeline from a source to a data set: manifest, tiers, selection, shards."""
