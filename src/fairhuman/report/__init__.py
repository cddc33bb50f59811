"""Tables, plots and self-contained pages made from the files of a run."""
