"""Beyond one machine: a run's embedding and assignment on Ray. Needs the extra `ray`."""

from imgsearch.backends.ray.engine import RayEngine

__all__ = ["RayEngine"]
