"""What several tests share: tiny models, networks, detectors, data sets, servers, and processes to start."""
