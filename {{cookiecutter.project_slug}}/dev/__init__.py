"""Tools for development. They are not part of the production image."""
