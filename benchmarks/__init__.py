"""Benchmarks of the template and its apps, and of apps to compare with."""
