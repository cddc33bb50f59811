"""The paper's published tables with our results in separate columns."""
