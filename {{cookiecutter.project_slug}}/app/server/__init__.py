"""The basis of every page: sessions, errors, headers, logs, health. Nothing here uses Logto."""
