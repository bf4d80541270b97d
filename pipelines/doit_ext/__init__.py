"""Stages as doit tasks. The only code that knows doit."""

from pipelines.doit_ext.tasks import Build

__all__ = ["Build"]
