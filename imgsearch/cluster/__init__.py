"""Beyond one machine: a run's embedding and filing on Ray. Needs the extra `ray`."""

from imgsearch.cluster.engine import RayEngine

__all__ = ["RayEngine"]
