"""What the server knows, in SQL: names, resources, versions, sessions and changes."""
