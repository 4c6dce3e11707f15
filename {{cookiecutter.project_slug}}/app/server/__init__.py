"""What is under every page: sessions, errors, headers, logs, health. It knows nothing of Logto."""
