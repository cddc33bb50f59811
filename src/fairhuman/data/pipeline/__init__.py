"""From a source to a data set: manifest, tiers, selection, shards."""
