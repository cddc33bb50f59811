"""How people look in a picture: detections, shapes, strict and official confidences."""
