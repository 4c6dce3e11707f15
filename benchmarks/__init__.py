"""The numbers: what the template and its apps cost, measured side by side."""
