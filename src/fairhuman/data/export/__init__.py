"""Export any source as WebDataset shards, an imagefolder or Parquet tables."""

from fairhuman.data.export.closeups import CloseupSettings
from fairhuman.data.export.run import FORMATS, ExportSummary, export_dataset

__all__ = ["FORMATS", "CloseupSettings", "ExportSummary", "export_dataset"]
