"""Module factories that ship with the build: a YAML names one as ``pipelines.zoo.<module>:<factory>``."""
