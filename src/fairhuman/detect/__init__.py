"""Detectors of faces, hands, persons and poses, one per file.

`settings` chooses detectors and runs them together, `guard` survives native crashes, `rates` computes detection rates.
`fairhuman.data.look.detectors` compares detectors with true boxes.

LiteRT, OpenCV, onnxruntime and rtmlib (`pip install 'fairhuman[detect]'`) are imported when a detector is created.
"""
