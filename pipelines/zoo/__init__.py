"""Module factories that ship with the build: a model's YAML names one as ``pipelines.zoo.<module>:<factory>``."""
