"""Faces in pictures: find, align, measure. Light to import: OpenCV and onnxruntime come when a detector is loaded."""

from gptface_core.faces.detector import Detector, Face, load_detector

__all__ = ["Detector", "Face", "load_detector"]
