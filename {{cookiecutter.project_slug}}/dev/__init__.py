"""Tools for development. They are not part of the production image."""

from pathlib import Path

APP_NAME = "{{ cookiecutter.project_name }}"
FRAMEWORK = "{{ cookiecutter.framework }}"
ROOT = Path(__file__).resolve().parent.parent
