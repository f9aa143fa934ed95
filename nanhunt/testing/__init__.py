"""nanhunt inside pytest: an entry point, found by pytest itself (``pytest --nanhunt``)."""
