"""Tools for development. They are not part of the production image."""

APP_NAME = "{{ cookiecutter.project_name }}"
