"""The paper's published tables, and our numbers beside them."""
